"""Image files: how they are opened and named in messages.

Whatever a folder of somebody's photos holds, `open_image` ends in an upright RGB image or in a `BadImageError` that
names the file, says what is wrong with it and what to do.
"""

from __future__ import annotations

import io
import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps

from coopt.data.archives import read_bytes
from coopt.data.file_kinds import HEIF_ENDINGS, is_heif, what_it_is
from coopt.data.file_names import display_name
from coopt.errors import BadImageError, DataError

_READS_HEIF = find_spec("pillow_heif") is not None

IMAGE_EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".jp2", ".tga", ".ico", ".avif"),
        *(HEIF_ENDINGS if _READS_HEIF else ()),
    }
)
"""Lower-case endings that make a file an image when a folder is searched."""

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused as decompression bombs (half a gigabyte as RGB). It is the limit above which
Pillow itself refuses with its default settings; a lower limit set in Pillow by the program is kept as well."""

_ValueRange = tuple[float | int, float | int]  # as in coopt.backbones.preprocessing, whose import would need torch

DOUBT = "coopt_value_range"
"""In the `info` of an opened image: why its brightness may be wrong, as a `DoubtfulRange`."""

Source = Any
"""What stands for one image: a path (which may lead into a ZIP archive), a PIL image, or an array (H, W), (H, W, 3) or (H, W, 4) of uint8."""


def open_image(source: Source, value_range: _ValueRange | None = None) -> Image.Image:
    """An upright RGB image: EXIF rotation applied, the first frame of an animation, any colour mode converted.

    A PIL image is converted too (at the frame where it stands) and is itself left as it was.

    Args:
        source: a path, a PIL image or an array of uint8.
        value_range: which values are black and white in an image with more than 8 bits per value; None: 0 and 65535
            for integers, 0 and 1 for floating-point numbers.

    Raises:
        BadImageError: the file is missing, empty, truncated, no image, or larger than `MAX_PIXELS`.
    """
    if isinstance(source, str | os.PathLike):
        return decode_image(read_image_bytes(source), display_name(source), value_range)
    image = source if isinstance(source, Image.Image) else image_of_array(source, "The image")
    return _upright_rgb(image, name_of(source), value_range, file_deep=False)


def why_unreadable(source: Source) -> str | None:
    """Why an image cannot be read; None when it can."""
    try:
        open_image(source)
    except BadImageError as error:
        return str(error)
    return None


def name_of(source: Source) -> str:
    """How messages call an image."""
    if isinstance(source, str | os.PathLike):
        return display_name(source)
    if not isinstance(source, Image.Image):
        return f"an array of shape {tuple(source.shape)}"
    filename = getattr(source, "filename", "")
    return display_name(filename) if filename else f"a {source.mode} PIL image of {source.width}x{source.height}"


def image_of_array(array: Any, name: str) -> Image.Image:
    """An array of uint8 as a PIL image.

    Args:
        array: (H, W), (H, W, 1), (H, W, 3) or (H, W, 4).
        name: how messages call it.

    Raises:
        DataError: an array of another kind; says how to make it one.
    """
    shape, kind = tuple(array.shape), str(array.dtype)
    if len(shape) == 3 and shape[0] in (1, 3, 4) and shape[2] not in (1, 3, 4):
        hint = "Put the colours last: array.transpose(1, 2, 0)."
    elif kind == "uint8":
        hint = "Give each image as such an array."
    elif kind.startswith("float"):
        hint = "Of values from 0 to 1 make (255 * array).round().astype('uint8'); of 0 to 255 array.astype('uint8')."
    else:
        hint = "Scale its values to 0..255 and add .astype('uint8')."
    if kind != "uint8" or len(shape) not in (2, 3) or (len(shape) == 3 and shape[2] not in (1, 3, 4)):
        raise DataError(
            f"{name} is an array of {kind} of shape {shape}. Expected uint8 of shape (height, width), (height, width, 3) "
            f"or (height, width, 4). {hint}"
        )
    if 0 in shape:
        raise BadImageError(f"{name} has no pixels: it is an array of shape {shape}. Leave it out.")
    return Image.fromarray(array[:, :, 0] if len(shape) == 3 and shape[2] == 1 else array)


def read_image_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file.

    Raises:
        BadImageError: the file is missing, a folder, empty, or may not be read; or its archive cannot be read.
    """
    name = display_name(path)
    try:
        data = read_bytes(path)
    except BadImageError:
        raise
    except DataError as error:  # of the archive that it is in
        raise BadImageError(str(error)) from error
    except FileNotFoundError:
        raise BadImageError(
            f"'{name}' does not exist. Check the path (a broken symbolic link looks the same)."
        ) from None
    except IsADirectoryError:
        raise BadImageError(f"'{name}' is a folder, expected an image file. Give the images inside it.") from None
    except PermissionError:
        raise BadImageError(f"'{name}' may not be read (permission denied). Change its permissions.") from None
    except (OSError, ValueError) as error:
        raise BadImageError(f"'{name}' could not be read: {getattr(error, 'strerror', None) or error}.") from error
    if not data:
        raise BadImageError(f"'{name}' is empty (0 bytes), expected an image. Delete the file or copy it again.")
    return data


def decode_image(data: bytes, name: str, value_range: _ValueRange | None = None) -> Image.Image:
    """The bytes of an image file to an upright RGB image; `name` stands in the error message.

    Args:
        data: the bytes.
        name: of the file.
        value_range: see `open_image`.

    Raises:
        BadImageError: not an image, truncated, or larger than `MAX_PIXELS`.
    """
    from coopt.data.value_range import file_is_deep

    if _READS_HEIF and is_heif(data):
        _register_heif()
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _upright_rgb(image, name, value_range, file_is_deep(data))
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"'{name}' is refused: {error} Scale the image down, or leave it out.") from error
    except Image.UnidentifiedImageError:
        kind = what_it_is(data)
        if kind is not None:
            raise BadImageError(f"'{name}' is {kind}, or leave it out.") from None
        raise BadImageError(
            f"'{name}' is not an image that Pillow knows (it begins with {data[:8]!r}). "
            "Convert it to PNG or JPEG, or leave it out."
        ) from None
    except Exception as error:  # a damaged header makes Pillow's format plugins raise nearly anything
        raise _damaged(name, error) from error


def _register_heif() -> None:
    import pillow_heif  # type: ignore[import-not-found]

    pillow_heif.register_heif_opener()


def _upright_rgb(image: Image.Image, name: str, value_range: _ValueRange | None, file_deep: bool) -> Image.Image:
    # Checked on the header's size, before any pixel is decoded.
    pixels = image.width * image.height
    if pixels > MAX_PIXELS:
        raise BadImageError(
            f"'{name}' is refused: {image.width}x{image.height} is {pixels:,} pixels, expected at most {MAX_PIXELS:,} "
            "(it may be a decompression bomb). Scale the image down, or leave it out."
        )
    if pixels == 0:
        raise BadImageError(f"'{name}' has no pixels ({image.width}x{image.height}). Leave it out.")
    try:
        image.load()
    except Exception as error:  # as above: truncated or damaged data
        raise _damaged(name, error) from error
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # damaged EXIF data do not make the picture unusable
        upright = image
    try:
        # Here, since they need torch, and finding images does not.
        from coopt.backbones.preprocessing import to_rgb
        from coopt.data.value_range import doubt_about, range_of

        used = range_of(image, value_range)
        rgb = to_rgb(upright, used)
        doubt = doubt_about(image, rgb, used, value_range is not None, file_deep)
    except Exception as error:
        raise _damaged(name, error) from error
    if doubt is not None:
        rgb.info[DOUBT] = doubt
    return rgb


def _damaged(name: str, error: Exception) -> BadImageError:
    return BadImageError(
        f"'{name}' is truncated or damaged ({type(error).__name__}: {error}). Copy the file again, or leave it out."
    )


def unreadable(folder: Path, error: OSError) -> DataError:
    """What to raise when the system refuses something below a folder."""
    where = display_name(error.filename) if isinstance(error.filename, str) else display_name(folder)
    return DataError(f"The folder '{where}' cannot be read: {error.strerror or error}. Change its permissions.")
