from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coopt.data import display_name, find_images, open_image
from coopt.data.images import MAX_PIXELS
from coopt.errors import BadImageError

from .conftest import picture, save_picture


@pytest.mark.parametrize("mode", ["RGB", "L", "LA", "RGBA", "P", "1", "CMYK", "YCbCr", "HSV", "LAB"])
def test_every_colour_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("image.tif" if mode in ("CMYK", "YCbCr", "LAB") else "image.png")
    image = picture(mode="RGB" if mode in ("HSV", "LAB") else mode)
    if mode == "HSV":  # in memory only: no file format takes it
        opened = open_image(image.convert("HSV"))
    else:
        image.save(path)
        opened = open_image(path)
    assert opened.mode == "RGB"
    assert opened.size == image.size


def test_16_bit_images_are_scaled_and_not_clipped(tmp_path: Path) -> None:
    values = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    Image.fromarray(values).save(tmp_path / "deep.png")
    grey = np.asarray(open_image(tmp_path / "deep.png"))[..., 0]
    assert np.abs(grey.astype(float) - values / 257.0).max() <= 1


def test_palette_with_transparency(tmp_path: Path) -> None:
    image = picture(mode="P")
    image.save(tmp_path / "p.png", transparency=bytes(range(256)))
    assert open_image(tmp_path / "p.png").mode == "RGB"


def test_the_first_frame_of_an_animation_is_taken(tmp_path: Path) -> None:
    red, blue = (Image.new("RGB", (9, 7), colour) for colour in ("red", "blue"))
    red.save(tmp_path / "a.gif", save_all=True, append_images=[blue])
    assert open_image(tmp_path / "a.gif").getpixel((3, 3)) == (255, 0, 0)
    red.save(tmp_path / "a.webp", save_all=True, append_images=[blue], lossless=True)
    assert open_image(tmp_path / "a.webp").getpixel((3, 3)) == (255, 0, 0)


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    image = picture(size=(30, 10))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: show it rotated by 90 degrees clockwise
    image.save(tmp_path / "turned.png", exif=exif)
    assert np.array_equal(open_image(tmp_path / "turned.png"), image.transpose(Image.Transpose.ROTATE_270))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF")
def test_damaged_exif_does_not_matter(tmp_path: Path) -> None:
    picture().save(tmp_path / "x.jpg", exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff garbage")
    assert open_image(tmp_path / "x.jpg").size == picture().size


def test_one_pixel_is_an_image(tmp_path: Path) -> None:
    Image.new("L", (1, 1), 7).save(tmp_path / "dot.png")
    assert open_image(tmp_path / "dot.png").getpixel((0, 0)) == (7, 7, 7)


def test_a_pil_image_is_left_as_it_was() -> None:
    image = picture(mode="P")
    before = image.tobytes(), dict(image.info)
    assert open_image(image).mode == "RGB"
    assert (image.tobytes(), dict(image.info)) == before


def _png_header(width: int, height: int) -> bytes:
    """A PNG that says it is huge and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("limit", ["Pillow's", "none"])
def test_decompression_bombs_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    if limit == "none":  # a program that took Pillow's limit away still has ours
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(_png_header(50_000, 50_000))
    with pytest.raises(BadImageError, match=r"bomb\.png' is refused.*(bomb|exceeds limit).*Scale the image down"):
        open_image(tmp_path / "bomb.png")
    assert MAX_PIXELS < 50_000 * 50_000


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"is empty \(0 bytes\).*Delete the file"),
        (b"hello, world", r"is not an image that Pillow knows \(it begins with b'hello, w'\).*Convert it"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 40, r"(not an image|damaged)"),
    ],
)
def test_what_is_no_image_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "broken.jpg").write_bytes(content)
    with pytest.raises(BadImageError, match=rf"broken\.jpg' {message}" if "|" not in message else message):
        open_image(tmp_path / "broken.jpg")


@pytest.mark.parametrize("ending", ["jpg", "png", "gif", "webp", "bmp", "tif"])
def test_truncated_images_are_named(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"cut.{ending}"
    picture(size=(200, 200)).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(BadImageError, match=rf"cut\.{ending}' is (truncated or damaged|not an image)"):
        open_image(path)


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_bytes_never_end_in_another_error(tmp_path: Path) -> None:
    rng = np.random.RandomState(0)
    for ending in ("jpg", "png", "gif", "webp", "bmp", "tif", "ppm", "ico"):
        path = tmp_path / f"whole.{ending}"
        picture(size=(32, 32)).save(path)
        for _ in range(15):
            data = bytearray(path.read_bytes())
            for where in rng.randint(0, len(data), 6):
                data[where] = rng.randint(256)
            (tmp_path / f"damaged.{ending}").write_bytes(bytes(data))
            try:
                assert open_image(tmp_path / f"damaged.{ending}").mode == "RGB"
            except BadImageError as error:
                assert f"damaged.{ending}" in str(error)


def test_missing_files_and_folders_are_named(tmp_path: Path) -> None:
    with pytest.raises(BadImageError, match=r"gone\.jpg' does not exist"):
        open_image(tmp_path / "gone.jpg")
    with pytest.raises(BadImageError, match=r"is a folder, expected an image file"):
        open_image(tmp_path)
    with pytest.raises(BadImageError, match=r"could not be read"):
        open_image(tmp_path / "null\0byte.jpg")


def test_a_damaged_pil_image_is_named(tmp_path: Path) -> None:
    path = tmp_path / "cut.png"
    picture(size=(100, 100)).save(path)
    path.write_bytes(path.read_bytes()[:200])
    with Image.open(path) as lazy, pytest.raises(BadImageError, match=r"cut\.png' is truncated or damaged"):
        open_image(lazy)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="finds open files by /proc")
def test_no_file_stays_open(tmp_path: Path) -> None:
    good = save_picture(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes(good.read_bytes()[:60])
    kept = [open_image(good) for _ in range(5)]
    for _ in range(5):
        with pytest.raises(BadImageError):
            open_image(tmp_path / "bad.png")
    opened = [os.path.realpath(descriptor) for descriptor in Path("/proc/self/fd").iterdir()]
    assert not [name for name in opened if name.startswith(str(tmp_path))]
    assert len(kept) == 5


def test_display_name_is_safe_to_print() -> None:
    name = display_name(os.fsdecode(b"caf\xe9\n\x1b[31m.jpg"))
    assert name == r"caf\xe9\n\x1b[31m.jpg"
    name.encode("ascii")
    assert display_name("Katze ä 猫.jpg") == "Katze ä 猫.jpg"


def test_names_that_are_not_utf8_work(tmp_path: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    try:
        save_picture(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    assert find_images(tmp_path) == [path]
    assert open_image(path).mode == "RGB"
    path.write_bytes(b"")
    with pytest.raises(BadImageError) as caught:
        open_image(path)
    assert r"caf\xe9.png" in str(caught.value)
    str(caught.value).encode("utf-8")
