"""Images with more than 8 bits per value: which values are black and white, and whether an image's own fit that.

Black and white follow from the kind of file, or from what the user says, and never from the pixels of an image: two
images of a folder are scaled alike, and a new image as those that were learned from. The pixels only tell when that
looks wrong: 12-bit data in a 16-bit file are nearly black. Then a warning says what to do.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from coopt.backbones.preprocessing import ValueRange, is_deep, natural_range
from coopt.wording import on_command_line, setting

_BITS_PER_SAMPLE, _PHOTOMETRIC = 258, 262  # tags of TIFF
_NEVER_DEEP = (b"\xff\xd8\xff", b"GIF8", b"RIFF", b"BM")  # JPEG, GIF, WebP and BMP hold 8 bits
_PNG, _PNG_DEPTH = b"\x89PNG\r\n\x1a\n", 24  # where a PNG says how many bits a value has
_DARK, _DARK_IF_GIVEN = 1 / 4, 1 / 16  # images that do not reach this share of the range are dark
_BEYOND = 0.1  # values this share of the range beyond it are no mere overshoot of a filter
_USUAL_WHITES = (255, 1023, 4095, 16383, 65535)


@dataclass(frozen=True)
class DoubtfulRange:
    """What makes it doubtful that an image is scaled as its maker meant.

    Attributes:
        low, high: the image's least and greatest value.
        used: what was taken as black and white.
        colour: a colour image, of which Pillow keeps the upper 8 of 16 bits.
    """

    low: float | int
    high: float | int
    used: ValueRange
    colour: bool = False


def file_is_deep(data: bytes) -> bool:
    """Whether the bytes are those of an image file with more than 8 bits per value (False too when they are no image)."""
    if data.startswith(_NEVER_DEEP):
        return False
    if data.startswith(_PNG):
        return data[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10"
    try:
        with Image.open(io.BytesIO(data)) as image:
            return is_deep(image) or _bits_in_tiff(image) == 16
    except Exception:  # whatever is wrong is said where the image is decoded
        return False


def range_of(image: Image.Image, value_range: ValueRange | None) -> ValueRange:
    """What is black and white in an image just opened.

    Args:
        image: as Pillow opened it, or as somebody made it.
        value_range: what the user says; None: what the kind of file says.
    """
    tags = _tags(image)
    black, white = value_range or ((0, 4095) if _bits_in_tiff(image) == 12 else natural_range(image))
    # Pillow inverts "white is zero" in files of 8 bits only.
    return (white, black) if tags.get(_PHOTOMETRIC) == 0 and is_deep(image) else (black, white)


def doubt_about(
    image: Image.Image, rgb: Image.Image, used: ValueRange, given: bool, file_deep: bool
) -> DoubtfulRange | None:
    """Whether the values of an image fit the range that was taken as black to white; None: they do.

    Args:
        image: a loaded image in its own mode.
        rgb: what became of it.
        used: what `range_of` says.
        given: the user gave the range, so that only what is nearly black is doubtful.
        file_deep: its file has more than 8 bits per value, whether or not Pillow kept them.
    """
    least, most = min(used), max(used)
    if is_deep(image):
        values = np.asarray(image)
        values = values[np.isfinite(values)] if values.dtype.kind == "f" else values
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
        margin = _BEYOND * (most - least)
        beyond = high > most + margin or low < least - margin
        dark = high < least + (_DARK_IF_GIVEN if given else _DARK) * (most - least)
        return DoubtfulRange(low, high, (least, most)) if beyond or dark else None
    brightest = max(high for _, high in rgb.getextrema()) if file_deep else 255  # type: ignore[misc]
    return DoubtfulRange(0, brightest * 256 + 255, (0, 65535), colour=True) if brightest < _DARK * 255 else None


def range_warning(doubtful: Sequence[tuple[str, DoubtfulRange]], total: int) -> str:
    """The warning of images whose values do not fit the range that was used.

    Args:
        doubtful: name and doubt of each such image.
        total: how many images there were.
    """
    first = doubtful[0][1]
    shown = ", ".join(f"'{name}' ({_number(one.low)} to {_number(one.high)})" for name, one in doubtful[:3])
    more = ", ..." if len(doubtful) > 3 else "."
    black, white = map(_number, first.used)
    said = (
        f"{len(doubtful)} of {total} images have more than 8 bits per value, but values that do not fit the range that "
        f"is taken as black to white ({black} to {white}), so they become nearly black or white: {shown}{more} "
    )
    if any(one.colour for _, one in doubtful):
        said += "Of 16-bit colours only the upper 8 bits can be read: save such images with 8 bits. "
    grey = [one for _, one in doubtful if not one.colour]
    if grey:
        suggested = _suggested(min(one.low for one in grey), max(one.high for one in grey))
        said += (
            "If other values are meant to be black and white, say which: "
            f"{setting('value_range', suggested)}{'' if on_command_line() else ' of load_backbone'} holds all of these."
        )
    return said.rstrip()


def _suggested(low: float | int, high: float | int) -> tuple[float | int, float | int]:
    """A range that holds the values and is likely to be meant: 0,4095 for 12-bit data, 0,1000 for 0 to 998.2."""
    usual = next((one for one in _USUAL_WHITES if 1 < high <= one), None)
    white = usual if usual is not None and high > usual / 8 else _rounded_up(high)
    return (0 if low >= 0 else -_rounded_up(-low)), white


def _rounded_up(value: float | int) -> float | int:
    """The next number of two digits that is not below a positive value: 1000 for 998.2; 1 for any other value."""
    if value <= 0:
        return 1
    unit = 10.0 ** (math.floor(math.log10(value)) - 1)
    rounded = math.ceil(value / unit - 1e-9) * unit
    return int(rounded) if unit >= 1 else round(rounded, 12)


def _number(value: float | int) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 or value == int(value) else f"{value:.3g}"


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", None) or {}


def _bits_in_tiff(image: Image.Image) -> int | None:
    """Bits per value as a TIFF says; None for other files."""
    bits = _tags(image).get(_BITS_PER_SAMPLE)
    return int(bits[0]) if isinstance(bits, tuple) and bits else None
