from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coopt.data import display_name, find_images, open_image
from coopt.data.images import MAX_PIXELS, iter_images, listed_images, walk_images
from coopt.errors import BadImageError, DataError

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


class TestFindImages:
    def test_folders_are_searched_sorted_and_without_hidden_files(self, tmp_path: Path) -> None:
        names = ["b/2.JPG", "b/1.png", "a/deep/er/3.webp", "0.gif"]
        for name in [*names, ".hidden.png", ".git/x.png", "__MACOSX/y.png", "notes.txt"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
        assert found == ["0.gif", "a/deep/er/3.webp", "b/1.png", "b/2.JPG"]

    def test_files_globs_and_folders_mix_and_come_once(self, tmp_path: Path) -> None:
        for name in ["x/1.png", "x/2.png", "y/3.png", "y/4.txt", "odd"]:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        sources = [tmp_path / "odd", f"{tmp_path}/**/[23].*", str(tmp_path / "x"), f"{tmp_path}/y/*"]
        found = [path.relative_to(tmp_path).as_posix() for path in find_images(sources)]
        assert found == ["odd", "x/2.png", "y/3.png", "x/1.png"]

    def test_a_file_with_glob_characters_in_its_name(self, tmp_path: Path) -> None:
        (tmp_path / "photo[1].jpg").touch()
        assert find_images(tmp_path / "photo[1].jpg") == [tmp_path / "photo[1].jpg"]

    def test_symbolic_link_loops_end(self, tmp_path: Path) -> None:
        (tmp_path / "a" / "b").mkdir(parents=True)
        (tmp_path / "a" / "1.png").touch()
        (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
        (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
        assert walk_images(tmp_path / "a") == [tmp_path / "a" / "1.png"]

    def test_links_to_a_folder_that_holds_them_bring_in_nothing(self, tmp_path: Path) -> None:
        for name in ("cat/a.png", "dog/b.png", "elsewhere/c.png"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        (tmp_path / "cat" / "loop").symlink_to(tmp_path)
        (tmp_path / "cat" / "more").symlink_to(tmp_path / "elsewhere")
        assert walk_images(tmp_path / "cat") == [tmp_path / "cat/a.png", tmp_path / "cat/more/c.png"]

    def test_missing_sources_are_all_named(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"No such file or folder: '.*gone', '.*lost'\. Expected image files"):
            find_images([tmp_path, tmp_path / "gone", tmp_path / "lost"])

    def test_nothing_found_says_what_was_looked_for(self, tmp_path: Path) -> None:
        (tmp_path / "notes.txt").touch()
        with pytest.raises(DataError, match=r"No images found in .*Expected files ending in .*\.jpg"):
            find_images([tmp_path])
        with pytest.raises(DataError, match=r"No images found in '.*\*\.png'"):
            find_images(f"{tmp_path}/*.png")
        with pytest.raises(DataError, match=r"No images found in an empty list"):
            find_images([])

    def test_a_folder_that_may_not_be_read_is_named(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "locked").mkdir()

        def refuse(folder: Path) -> None:  # chmod would not stop root
            raise PermissionError(13, "Permission denied", str(folder / "locked"))

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(DataError, match=r"locked' cannot be read: Permission denied"):
            find_images(tmp_path)

    def test_images_come_while_the_search_goes_on(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("a/1.png", "b/2.png", "c/3.png"):
            (tmp_path / name).parent.mkdir()
            (tmp_path / name).touch()
        opened: list[str] = []
        scan = os.scandir
        monkeypatch.setattr(os, "scandir", lambda folder: opened.append(Path(folder).name) or scan(folder))
        images = iter_images(tmp_path)
        assert next(images).name == "1.png"
        assert opened == [tmp_path.name, "a"]
        assert [path.name for path in images] == ["2.png", "3.png"]

    def test_a_missing_source_is_named_before_the_first_image(self, tmp_path: Path) -> None:
        (tmp_path / "1.png").touch()
        with pytest.raises(DataError, match="gone"):
            next(iter_images([tmp_path, tmp_path / "gone"]))

    def test_a_list_is_taken_line_by_line(self) -> None:
        lines = iter([b"a b.png\n", b"\n", b"  \r\n", b"caf\xe9.png\r\n", b"a b.png"])
        names = listed_images(lines)
        assert next(names) == Path("a b.png")
        assert [os.fsencode(name) for name in names] == [b"caf\xe9.png", b"a b.png"]
