from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coopt.data import open_image
from coopt.data.images import DOUBT
from coopt.data.value_range import DoubtfulRange, file_is_deep, range_warning
from coopt.wording import spoken

RAMP = np.arange(256).reshape(16, 16)


def _tiff(values: np.ndarray, **tags: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(values).save(file, "TIFF", tiffinfo={int(tag[1:]): value for tag, value in tags.items()})
    return file.getvalue()


def _png_of_16_bits(values: np.ndarray, colour_type: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = values.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def _opened(data: bytes, tmp_path: Path, value_range: tuple[float | int, float | int] | None = None) -> Image.Image:
    (tmp_path / "image").write_bytes(data)
    return open_image(tmp_path / "image", value_range)


def _grey(image: Image.Image) -> np.ndarray:
    return np.asarray(image)[:, :, 0]


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("bits", [8, 10, 12])
def test_the_same_data_in_deep_files(tmp_path: Path, kind: type, bits: int) -> None:
    white = 2**bits - 1
    image = _opened(_tiff(np.rint(RAMP / 255 * white).astype(kind)), tmp_path, (0, white))
    assert np.array_equal(_grey(image), RAMP)
    assert DOUBT not in image.info


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_images_of_one_folder_are_scaled_alike(tmp_path: Path, kind: type) -> None:
    for value_range in (None, (0, 255), (0, 1000)):
        images = [np.full((4, 4), 100, kind) for _ in range(3)]
        for image, most in zip(images, (254, 256, 60000), strict=True):
            image[0, 0] = most
        shown = [_grey(_opened(_tiff(image), tmp_path, value_range))[1, 1] for image in images]
        assert len(set(shown)) == 1


def test_white_is_zero(tmp_path: Path) -> None:
    assert np.array_equal(_grey(_opened(_tiff((RAMP * 257).astype(np.uint16), _262=0), tmp_path)), 255 - RAMP)


def test_a_tiff_of_12_bits_says_so(tmp_path: Path) -> None:
    packed = bytes([0x00, 0x08, 0x00, 0xFF, 0xFF, 0xFF])  # 0, 2048, 4095, 4095
    entries = {256: (4, 2), 257: (4, 2), 258: (3, 12), 259: (3, 1), 262: (3, 1), 273: (4, 8), 278: (4, 2), 279: (4, 6)}
    table = b"".join(struct.pack("<HHII", tag, kind, 1, value) for tag, (kind, value) in sorted(entries.items()))
    data = b"II*\0" + struct.pack("<I", 14) + packed + struct.pack("<H", len(entries)) + table + b"\0\0\0\0"
    image = _opened(data, tmp_path)
    assert _grey(image).tolist() == [[0, 128], [255, 255]]
    assert DOUBT not in image.info


@pytest.mark.parametrize(
    ("values", "doubtful"),
    [
        ((RAMP * 257).astype(np.uint16), False),
        ((RAMP * 60).astype(np.uint16), True),
        ((RAMP * 16).astype(np.int32), True),
        ((RAMP * 300).astype(np.int32), True),
        ((RAMP * 257 - 40000).astype(np.int32), True),
        ((RAMP / 255).astype(np.float32), False),
        ((RAMP / 255 * 1.05 - 0.02).astype(np.float32), False),  # what a sharpening filter adds
        (RAMP.astype(np.float32), True),
        ((RAMP / 5000).astype(np.float32), True),
        (np.full((4, 4), np.nan, np.float32), True),
        (RAMP.astype(np.uint8), False),
        (np.zeros((4, 4), np.uint8), False),
    ],
)
def test_what_looks_wrong_is_noticed(tmp_path: Path, values: np.ndarray, doubtful: bool) -> None:
    assert (DOUBT in _opened(_tiff(values), tmp_path).info) is doubtful


def test_a_given_range_is_doubted_where_it_cuts_or_leaves_all_black(tmp_path: Path) -> None:
    dark = (RAMP * 2).astype(np.uint16)
    assert DOUBT not in _opened(_tiff(dark), tmp_path, (0, 4095)).info
    assert DOUBT in _opened(_tiff(dark), tmp_path, (0, 255)).info
    assert DOUBT in _opened(_tiff(dark), tmp_path, (0, 16383)).info  # 12-bit data for a prompt of 14-bit images


def test_colours_of_16_bits(tmp_path: Path) -> None:
    colours = np.stack([RAMP * 257, RAMP * 128, RAMP * 0], axis=2)
    whole = _opened(_png_of_16_bits(colours, 2), tmp_path)
    assert np.abs(np.asarray(whole, np.int64) - colours // 257).max() <= 1
    assert DOUBT not in whole.info
    assert _opened(_png_of_16_bits(colours // 16, 2), tmp_path).info[DOUBT].colour


@pytest.mark.parametrize(
    ("data", "deep"),
    [
        (_tiff(RAMP.astype(np.uint8)), False),
        (_tiff(RAMP.astype(np.uint16)), True),
        (_tiff(RAMP.astype(np.float32)), True),
        (_png_of_16_bits(RAMP, 0), True),
        (b"P5 2 1 65535\n\0\0\xff\xff", True),
        (b"P5 2 1 255\n\0\xff", False),
        (b"\xff\xd8\xff\xe0 cut", False),
        (b"junk", False),
        (b"", False),
    ],
)
def test_deep_files_are_known_by_their_headers(data: bytes, deep: bool) -> None:
    assert file_is_deep(data) is deep


@pytest.mark.parametrize(
    ("low", "high", "suggested"),
    [
        (0, 255, "0,255"),
        (0, 1000, "0,1023"),
        (12, 4080, "0,4095"),
        (0, 998.2, "0,1023"),
        (0, 66000, "0,66000"),
        (0, 30, "0,30"),
        (0, 1.5, "0,1.5"),
        (0, 0.031, "0,0.031"),
        (-1024, 3071, "-1100,4095"),
        (0, 0, "0,1"),
    ],
)
def test_the_warning_says_what_to_type(low: float, high: float, suggested: str) -> None:
    doubt = DoubtfulRange(low, high, (0, 65535))
    with spoken({"value_range": "--value-range"}):
        message = range_warning([("a.tif", doubt), ("b.tif", doubt)], 5)
    assert message.startswith("2 of 5 images have more than 8 bits per value")
    assert f"--value-range {suggested} holds all of these." in message


def test_the_warning_of_colours_says_that_nothing_can_be_set() -> None:
    colours, grey = DoubtfulRange(0, 4095, (0, 65535), colour=True), DoubtfulRange(0, 900, (0, 65535))
    assert range_warning([("a.png", colours)], 1).endswith("save such images with 8 bits.")
    assert range_warning([("a.png", colours), ("b.png", grey)], 2).endswith(
        "value_range=(0, 1023) of load_backbone holds all of these."
    )


def test_a_leak_is_not_seen_in_images_that_are_all_black(tmp_path: Path) -> None:
    from coopt.data import find_leakage, load_dataset

    rng = np.random.RandomState(0)
    for c in "ab":
        (tmp_path / c).mkdir()
        for i in range(3):
            values = rng.randint(0, 256, (16, 16)).astype(np.uint16)
            Image.fromarray(values).save(tmp_path / c / f"{i}.png")
    dataset = load_dataset(tmp_path)
    assert find_leakage(dataset) == []
    assert find_leakage(dataset, value_range=(0, 255)) == []
