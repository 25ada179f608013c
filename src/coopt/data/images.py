"""Image files: how they are found, opened and named in messages.

Whatever a folder of somebody's photos holds, `open_image` ends in an upright RGB image or in a `BadImageError` that
names the file, says what is wrong with it and what to do.
"""

from __future__ import annotations

import glob
import io
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from PIL import Image, ImageOps

from coopt.errors import BadImageError, DataError

IMAGE_EXTENSIONS = frozenset(
    {
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".bmp", ".dib", ".tif", ".tiff"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".tga", ".ico", ".avif"),
    }
)
"""Lower-case endings that make a file an image when a folder is searched."""

MAX_PIXELS = 178_956_970
"""Images with more pixels are refused as decompression bombs (half a gigabyte as RGB). It is the limit above which
Pillow itself refuses with its default settings; a lower limit set in Pillow by the program is kept as well."""

Source = str | os.PathLike[str] | Image.Image
"""What stands for one image: a path or a PIL image."""


def display_name(path: str | os.PathLike[str]) -> str:
    """The path as text that every terminal and file takes: bytes that are not UTF-8 and control characters escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(path))


def _escaped(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte that Python could not decode (surrogateescape)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def open_image(source: Source) -> Image.Image:
    """An upright RGB image: EXIF rotation applied, the first frame of an animation, any colour mode converted.

    A PIL image is converted too (at the frame where it stands) and is itself left as it was.

    Raises:
        BadImageError: the file is missing, empty, truncated, no image, or larger than `MAX_PIXELS`.
    """
    if isinstance(source, Image.Image):
        return _upright_rgb(source, name_of(source))
    return decode_image(read_image_bytes(source), display_name(source))


def name_of(source: Source) -> str:
    """How messages call an image."""
    if not isinstance(source, Image.Image):
        return display_name(source)
    filename = getattr(source, "filename", "")
    return display_name(filename) if filename else f"a {source.mode} PIL image of {source.width}x{source.height}"


def read_image_bytes(path: str | os.PathLike[str]) -> bytes:
    """The bytes of an image file.

    Raises:
        BadImageError: the file is missing, a folder, empty, or may not be read.
    """
    name = display_name(path)
    try:
        data = Path(path).read_bytes()
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


def decode_image(data: bytes, name: str) -> Image.Image:
    """The bytes of an image file to an upright RGB image; `name` stands in the error message.

    Raises:
        BadImageError: not an image, truncated, or larger than `MAX_PIXELS`.
    """
    try:
        with Image.open(io.BytesIO(data)) as image:
            return _upright_rgb(image, name)
    except BadImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImageError(f"'{name}' is refused: {error} Scale the image down, or leave it out.") from error
    except Image.UnidentifiedImageError:
        raise BadImageError(
            f"'{name}' is not an image that Pillow knows (it begins with {data[:8]!r}). "
            "Convert it to PNG or JPEG, or leave it out."
        ) from None
    except Exception as error:  # a damaged header makes Pillow's format plugins raise nearly anything
        raise _damaged(name, error) from error


def _upright_rgb(image: Image.Image, name: str) -> Image.Image:
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
        from coopt.backbones.preprocessing import to_rgb  # here, since it needs torch, and finding images does not

        return to_rgb(upright)
    except Exception as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> BadImageError:
    return BadImageError(
        f"'{name}' is truncated or damaged ({type(error).__name__}: {error}). Copy the file again, or leave it out."
    )


def walk_images(folder: Path) -> list[Path]:
    """All image files below a folder, as `iter_images` finds them.

    Raises:
        DataError: a folder may not be read.
    """
    return list(_walk(folder, set()))


def _walk(folder: Path, entered: set[tuple[int, int]]) -> Iterator[Path]:
    try:
        status = folder.stat()
    except OSError as error:
        raise unreadable(folder, error) from error
    if (status.st_dev, status.st_ino) in entered:
        return
    entered.add((status.st_dev, status.st_ino))
    for name, is_folder, is_link in _scan(folder):
        entry = folder / name
        if is_folder:
            if not (is_link and entry.resolve() in entry.parent.resolve().parents):
                yield from _walk(entry, entered)
        elif entry.suffix.lower() in IMAGE_EXTENSIONS:
            yield entry


def visible_entries(folder: Path) -> list[Path]:
    """A folder's files and folders, sorted, without hidden ones and the leftovers of archives ('.git', '__MACOSX').

    Raises:
        DataError: the folder may not be read.
    """
    return [folder / name for name, _, _ in _scan(folder)]


def _scan(folder: Path) -> list[tuple[str, bool, bool]]:
    """The visible entries of a folder by name, each with whether it is a folder and whether it is a symbolic link."""
    try:
        with os.scandir(folder) as entries:
            return sorted(
                # A link is followed by pathlib, for which one that leads nowhere or to itself is no folder.
                (one.name, Path(one.path).is_dir() if one.is_symlink() else one.is_dir(), one.is_symlink())
                for one in entries
                if not one.name.startswith(".") and one.name != "__MACOSX"
            )
    except OSError as error:
        raise unreadable(folder, error) from error


def unreadable(folder: Path, error: OSError) -> DataError:
    """What to raise when the system refuses something below a folder."""
    where = display_name(error.filename) if isinstance(error.filename, str) else display_name(folder)
    return DataError(f"The folder '{where}' cannot be read: {error.strerror or error}. Change its permissions.")


def find_images(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> list[Path]:
    """Image files from any mix of files, folders (searched recursively) and globs ('photos/**/*.jpg').

    The order is that of `sources`, sorted within each folder and glob; a file found twice comes once. A file that is
    named itself is taken whatever its ending.

    Raises:
        DataError: a source does not exist, or nothing was found.
    """
    return list(iter_images(sources))


def iter_images(sources: str | os.PathLike[str] | Iterable[str | os.PathLike[str]]) -> Iterator[Path]:
    """The images of `find_images`, one after another: of a folder, no more than the entries of one are held at a time.

    Below a folder, hidden files and folders are left out. Symbolic links are followed, except those to a folder that
    holds them (which would bring in the images of other classes), and no folder is entered twice, so loops end.

    Raises:
        DataError: a source does not exist (before the first image), or nothing was found.
    """
    given = [sources] if isinstance(sources, str | os.PathLike) else list(sources)
    kinds = [_kind(source) for source in given]
    missing = [display_name(source) for source, kind in zip(given, kinds, strict=True) if kind is None]
    if missing:
        shown = ", ".join(f"'{name}'" for name in missing[:5]) + (" ..." if len(missing) > 5 else "")
        raise DataError(f"No such file or folder: {shown}. Expected image files, folders of images, or globs.")
    seen: set[Path] = set()
    found = False
    for source, kind in zip(given, kinds, strict=True):
        for path in _images_of(source, kind):
            if path not in seen:
                found = True
                yield path
                if len(given) > 1:  # one source alone never names a file twice
                    seen.add(path)
    if not found:
        shown = ", ".join(f"'{display_name(source)}'" for source in given[:5]) or "an empty list"
        raise DataError(
            f"No images found in {shown}. Expected files ending in {', '.join(sorted(IMAGE_EXTENSIONS))} "
            "(hidden files are left out)."
        )


def _kind(source: str | os.PathLike[str]) -> Literal["folder", "file", "glob"] | None:
    """What a source is; None when it does not exist."""
    path = Path(source)
    try:
        # What exists under that very name comes first: "photo[1].jpg" is a file, not a glob.
        if path.is_dir():
            return "folder"
        if path.exists():
            return "file"
    except (OSError, ValueError):  # a name too long for the system, or with a null byte
        return None
    return "glob" if glob.has_magic(os.fspath(source)) else None


def _images_of(source: str | os.PathLike[str], kind: str | None) -> Iterator[Path]:
    if kind == "folder":
        yield from _walk(Path(source), set())
    elif kind == "file":
        yield Path(source)
    else:
        yield from _matches(os.fspath(source))


def _matches(pattern: str) -> Iterator[Path]:
    """The images a glob stands for, those below a folder that it matches included, each once."""
    seen: set[Path] = set()
    for match in sorted(glob.glob(pattern, recursive=True)):  # noqa: PTH207  (Path.glob takes no absolute patterns)
        path = Path(match)
        below = _walk(path, set()) if path.is_dir() else [path] if path.suffix.lower() in IMAGE_EXTENSIONS else []
        for image in below:
            if image not in seen:
                seen.add(image)
                yield image


def listed_images(lines: Iterable[bytes]) -> Iterator[Path]:
    """The paths that a list names, one per line, of any bytes; blank lines are passed over."""
    for line in lines:
        name = line.rstrip(b"\r\n")
        if name.strip():
            yield Path(os.fsdecode(name))
