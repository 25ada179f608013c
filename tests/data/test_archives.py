"""ZIP archives of images: read in place as the folders they were made of, and every fault in one is named."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import struct
import warnings
import zipfile
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from coopt.data import FeatureCache, extract_features, find_images, find_leakage, load_dataset, open_image
from coopt.data import archives as archives_module
from coopt.data.archives import (
    inside,
    is_archive,
    is_file,
    is_folder,
    open_archive,
    read_bytes,
    status_of,
)
from coopt.data.csv_file import find_file
from coopt.data.images import why_unreadable
from coopt.errors import BadImageError, BadImagesError, DataError, LeakageWarning, SkippedImageWarning
from tools.bundled.archive import write_archive

from .conftest import TinyBackbone, make_folder, save_picture


def zipped(folder: Path, archive: Path, top: str = "", compression: int = zipfile.ZIP_DEFLATED) -> Path:
    """An archive of what is in a folder, below the folder `top`."""
    with zipfile.ZipFile(archive, "w", compression) as file:
        for path in sorted(folder.rglob("*"), reverse=True):  # readers must sort
            file.write(path, f"{top}{path.relative_to(folder).as_posix()}")
    return archive


def made_of(archive: Path, files: Mapping[str, bytes], **fields: int) -> Path:
    """An archive with files of these names, as they are."""
    with zipfile.ZipFile(archive, "w") as file:
        for name, data in files.items():
            info = zipfile.ZipInfo(name)
            for field, value in fields.items():
                setattr(info, field, value)
            file.writestr(info, data)
    return archive


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "photos", {"cat": 4, "dog": 5, "red car": 3})


@pytest.fixture
def png(tmp_path: Path) -> bytes:
    return save_picture(tmp_path / "one.png").read_bytes()


class TestDataset:
    @pytest.mark.parametrize("top", ["", "photos/", "some/where/"])
    def test_is_that_of_the_folder(self, photos: Path, tmp_path: Path, top: str) -> None:
        archive = zipped(photos, tmp_path / "photos.ZIP", top)
        packed, loose = load_dataset(archive), load_dataset(photos)
        assert packed.hash == loose.hash and packed.class_names == loose.class_names
        assert (packed.name, packed.root) == ("photos", archive / top)
        assert packed.train.labels == loose.train.labels
        assert packed.train.paths[0] == archive / top / loose.train.paths[0].relative_to(photos)
        for ours, theirs in zip(packed.train.paths, loose.train.paths, strict=True):
            assert read_bytes(ours) == theirs.read_bytes()
            assert np.array_equal(np.asarray(open_image(ours)), np.asarray(open_image(theirs)))

    @pytest.mark.parametrize("top", ["", "photos/"])
    def test_with_parts(self, tmp_path: Path, top: str) -> None:
        for part in ("train", "val", "test"):
            make_folder(tmp_path / "photos" / part, {"cat": 2, "dog": 2})
        packed = load_dataset(zipped(tmp_path / "photos", tmp_path / "photos.zip", top))
        assert packed.hash == load_dataset(tmp_path / "photos").hash
        assert packed.val is not None and len(packed.val) == 4
        part = load_dataset(tmp_path / "photos.zip" / top / "train")  # a folder in an archive is one, too
        assert part.class_names == ("cat", "dog") and part.name == "train"

    def test_a_lone_part_and_a_lone_class_are_no_wrapping(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "a" / "test", {"cat": 2, "dog": 2})
        dataset = load_dataset(zipped(tmp_path / "a", tmp_path / "a.zip"), require_train=False)
        assert not dataset.train.paths and dataset.test is not None and len(dataset.test) == 4
        make_folder(tmp_path / "b", {"cat": 2})
        dataset = load_dataset(zipped(tmp_path / "b", tmp_path / "b.zip"), require_train=False)
        assert dataset.class_names == ("cat",)

    def test_what_systems_leave_there_is_left_out(self, photos: Path, tmp_path: Path, png: bytes) -> None:
        archive = zipped(photos, tmp_path / "photos.zip", "photos/")
        with zipfile.ZipFile(archive, "a") as file:
            for name in (
                "__MACOSX/photos/cat/._000.png",
                "photos/.DS_Store",
                "photos/cat/._x.png",
                "photos/.git/a.png",
            ):
                file.writestr(name, png)
            file.writestr("photos/dog/Thumbs.db", b"x")
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert load_dataset(archive).hash == load_dataset(photos).hash

    def test_what_cannot_be_read_is_said_as_of_a_folder(self, photos: Path, tmp_path: Path) -> None:
        (photos / "cat" / "film.mp4").write_bytes(b"x")
        (photos / "dog" / "more.zip").write_bytes(b"x")
        (photos / "loose.png").write_bytes(b"x")
        (photos / "empty").mkdir()
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            load_dataset(zipped(photos, tmp_path / "photos.zip"))
        text = " ".join(str(one.message) for one in said)
        assert "1 .mp4, 1 .zip ('film.mp4', 'more.zip')" in text and "unpack archives" in text
        assert "directly in '" in text and "'loose.png'" in text
        assert "without images are left out: 'empty'" in text

    def test_nothing_in_it(self, tmp_path: Path, png: bytes) -> None:
        with pytest.raises(DataError, match=r"a\.zip' is empty \(or holds hidden files only\)"):
            load_dataset(made_of(tmp_path / "a.zip", {}))
        with pytest.raises(DataError, match=r"b\.zip' has 1 image \('1\.png'\) but no sub-folder with images"):
            load_dataset(made_of(tmp_path / "b.zip", {"1.png": png}))

    def test_class_from_and_class_names(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "photos" / "animals", {"cat": 2, "dog": 2})
        make_folder(tmp_path / "photos" / "things", {"cup": 2, "pen": 2})
        archive = zipped(tmp_path / "photos", tmp_path / "photos.zip")
        assert load_dataset(archive, class_from="parent").class_names == ("cat", "cup", "dog", "pen")
        assert load_dataset(archive, class_from="path").class_names[0] == "animals cat"
        named = load_dataset(archive, class_from="top", class_names={"animals": "animals", "things": "tools"})
        assert named.class_names == ("animals", "tools")

    def test_a_csv_may_name_images_in_an_archive(self, photos: Path, tmp_path: Path) -> None:
        zipped(photos, tmp_path / "photos.zip")
        (tmp_path / "data.csv").write_text(
            "path,label\nphotos.zip/cat/000.png,cat\nphotos.zip\\dog\\000.png,dog\nphotos.zip/dog/001.png,dog\n"
            "photos.zip/cat/001.png,cat\n"
        )
        dataset = load_dataset(tmp_path / "data.csv")
        assert tmp_path / "photos.zip" / "dog" / "000.png" in dataset.train.paths + dataset.test.paths  # type: ignore[union-attr]
        assert find_file(tmp_path, "photos.zip/cat/999.png") is None

    def test_a_folder_called_zip_is_a_folder(self, photos: Path, tmp_path: Path) -> None:
        folder = tmp_path / "old.zip"
        shutil.copytree(photos, folder)
        assert load_dataset(folder).hash == load_dataset(photos).hash
        assert not is_archive(folder) and inside(folder / "cat" / "000.png") is None
        (folder / "cat").rename(folder / "cat.zip")
        assert "cat.zip" in load_dataset(folder).class_names

    def test_registered(self, photos: Path, tmp_path: Path) -> None:
        from coopt.data.benchmarks import registry

        registry.register_dataset("packed", zipped(photos, tmp_path / "photos.zip"), prompt="a {}.")
        registry.register_dataset("nothing", tmp_path / "nothing")
        try:
            assert load_dataset("packed").hash == load_dataset(photos).hash
            with pytest.raises(DataError, match="is not a folder, a ZIP archive or a CSV file"):
                load_dataset("nothing")
        finally:
            del registry._registered["packed"], registry._registered["nothing"]


class TestNames:
    def test_of_every_kind_of_program(self, tmp_path: Path, png: bytes) -> None:
        """Python and new programs mark UTF-8; macOS writes it unmarked; DOS programs write its code page."""
        archive = made_of(tmp_path / "a.zip", {"Straße/1.png": png, "plain/1.png": png})
        unmarked = tmp_path / "b.zip"
        raw = made_of(unmarked, {"Stra##e/1.png": png, "plain/1.png": png}).read_bytes()
        unmarked.write_bytes(raw.replace(b"Stra##e", "Straße".encode()))
        dos = tmp_path / "c.zip"
        dos.write_bytes(
            made_of(dos, {"Stra#e/1.png": png, "plain/1.png": png}).read_bytes().replace(b"Stra#e", b"Stra\xe1e")
        )
        for path in (archive, unmarked, dos):
            assert load_dataset(path).class_names == ("Straße", "plain")
            assert read_bytes(path / "Straße" / "1.png") == png

    def test_backslashes_of_old_programs_for_windows(self, tmp_path: Path, png: bytes) -> None:
        archive = made_of(tmp_path / "a.zip", {"cat\\1.png": png, "dog\\1.png": png}, create_system=0)
        assert load_dataset(archive).class_names == ("cat", "dog")

    def test_dots_and_double_slashes_are_nothing(self, tmp_path: Path, png: bytes) -> None:
        archive = made_of(tmp_path / "a.zip", {"./cat//1.png": png, "dog/./1.png": png})
        assert [path.relative_to(archive).as_posix() for path in find_images(archive)] == ["cat/1.png", "dog/1.png"]
        assert read_bytes(archive / "dog" / ".." / "cat" / "1.png") == png

    @pytest.mark.parametrize(
        "name", ["../evil.png", "cat/../../evil.png", "/tmp/evil.png", "C:/evil.png", "..\\evil.png"]
    )
    def test_that_lead_out_of_the_archive_are_refused(self, tmp_path: Path, png: bytes, name: str) -> None:
        archive = made_of(tmp_path / "a.zip", {"cat/1.png": png, name: png}, create_system=0)
        with pytest.raises(
            DataError, match=r"a\.zip' is refused: it holds a file named '.*evil\.png', which would lie outside"
        ):
            load_dataset(archive)
        assert "which would lie outside" in str(why_unreadable(archive / "cat" / "1.png"))

    def test_a_file_in_the_place_of_a_folder(self, tmp_path: Path, png: bytes) -> None:
        archive = made_of(tmp_path / "a.zip", {"cat": b"x", "cat/1.png": png, "dog/1.png": png})
        assert load_dataset(archive).class_names == ("cat", "dog")
        assert not is_file(archive / "cat") and is_folder(archive / "cat")

    def test_of_two_files_of_one_name_the_later_counts(self, tmp_path: Path, png: bytes) -> None:
        archive = made_of(tmp_path / "a.zip", {"cat/1.png": b"old"})
        with zipfile.ZipFile(archive, "a") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")
            file.writestr("cat/1.png", png)
        assert read_bytes(archive / "cat" / "1.png") == png and len(find_images(archive)) == 1


class TestFaults:
    """Each names the image as `photos.zip/cat/000.png`."""

    def test_missing_and_folders(self, photos: Path, tmp_path: Path) -> None:
        archive = zipped(photos, tmp_path / "photos.zip")
        with pytest.raises(BadImageError, match=r"photos\.zip/cat/999\.png' does not exist"):
            open_image(archive / "cat" / "999.png")
        with pytest.raises(BadImageError, match=r"photos\.zip/cat' is a folder, expected an image"):
            open_image(archive / "cat")
        with pytest.raises(BadImageError, match=r"none\.zip/cat/1\.png' does not exist"):
            open_image(tmp_path / "none.zip" / "cat" / "1.png")
        with pytest.raises(BadImageError, match=r"is a ZIP archive \(or an office document\)"):
            open_image(archive)

    def test_encrypted(self, tmp_path: Path, png: bytes) -> None:
        archive = made_of(tmp_path / "photos.zip", {"cat/1.png": png, "dog/1.png": png})
        data = bytearray(archive.read_bytes())
        for signature, flags in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
            data[data.index(signature) + flags] |= 1
        archive.write_bytes(data)
        with pytest.raises(
            BadImageError, match=r"photos\.zip/cat/1\.png' is encrypted: .* Unpack it with its password"
        ):
            open_image(archive / "cat" / "1.png")
        open_image(archive / "dog" / "1.png")

    def test_damaged_files_are_named_and_others_are_read(self, tmp_path: Path, png: bytes) -> None:
        archive = made_of(tmp_path / "photos.zip", {"cat/1.png": png, "dog/1.png": png})
        data = bytearray(archive.read_bytes())
        data[data.index(png) + 40] ^= 0xFF
        archive.write_bytes(data)
        with pytest.raises(BadImageError, match=r"cat/1\.png' is damaged within its archive \(BadZipFile: Bad CRC-32"):
            open_image(archive / "cat" / "1.png")
        open_image(archive / "dog" / "1.png")

    def test_no_image(self, tmp_path: Path) -> None:
        archive = made_of(tmp_path / "photos.zip", {"cat/1.png": b"<html>", "cat/2.png": b""})
        with pytest.raises(BadImageError, match=r"photos\.zip/cat/1\.png' is a web page"):
            open_image(archive / "cat" / "1.png")
        with pytest.raises(BadImageError, match=r"photos\.zip/cat/2\.png' is empty \(0 bytes\)"):
            open_image(archive / "cat" / "2.png")

    def test_symbolic_links(self, tmp_path: Path) -> None:
        archive = made_of(tmp_path / "photos.zip", {"cat/1.png": b"../dog/1.png"}, external_attr=0o120777 << 16)
        with pytest.raises(
            BadImageError, match=r"cat/1\.png' is a symbolic link, which is not followed within an archive"
        ):
            open_image(archive / "cat" / "1.png")

    def test_bombs(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(archives_module, "MAX_FILE_BYTES", 1 << 20)
        archive = tmp_path / "photos.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("cat/1.png", bytes((1 << 20) + 1))
            file.writestr("dog/1.png", bytes(1 << 20))
        with pytest.raises(
            BadImageError, match=r"cat/1\.png' is refused: it unpacks to 1,048,577 bytes, expected at most"
        ):
            read_bytes(archive / "cat" / "1.png")
        assert len(read_bytes(archive / "dog" / "1.png")) == 1 << 20

    def test_a_size_that_is_a_lie_bounds_what_is_unpacked(self, tmp_path: Path) -> None:
        archive = tmp_path / "photos.zip"
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
            file.writestr("cat/1.png", bytes(1 << 22))
        true, said = struct.pack("<I", 1 << 22), struct.pack("<I", 1000)
        archive.write_bytes(archive.read_bytes().replace(true, said))
        with pytest.raises(BadImageError, match=r"cat/1\.png' is damaged within its archive"):
            read_bytes(archive / "cat" / "1.png")

    def test_packed_in_an_unknown_way(self, tmp_path: Path, png: bytes) -> None:
        archive = made_of(tmp_path / "photos.zip", {"cat/1.png": png})
        data = bytearray(archive.read_bytes())
        for signature, method in ((b"PK\x03\x04", 8), (b"PK\x01\x02", 10)):
            data[data.index(signature) + method] = 9  # Deflate64
        archive.write_bytes(data)
        with pytest.raises(
            BadImageError, match=r"cat/1\.png' cannot be unpacked by Python .*Unpack the archive and give"
        ):
            read_bytes(archive / "cat" / "1.png")

    @pytest.mark.parametrize(
        ("data", "message"),
        [
            (b"", r"is empty \(0 bytes\), expected a ZIP archive"),
            (b"<!DOCTYPE html><html>", r"is a web page \(HTML\): .*\. Expected a ZIP archive"),
            (b"version https://git-lfs.github.com/spec/v1\n", r"is a Git LFS pointer"),
            (b"Rar!\x1a\x07", r"is a RAR archive\. Unpack it\. Expected a ZIP archive"),
            (b"hello", r"is no ZIP archive, or not a whole one \(File is not a zip file\)\. Copy it again"),
        ],
    )
    def test_no_archive(self, tmp_path: Path, data: bytes, message: str) -> None:
        (tmp_path / "photos.zip").write_bytes(data)
        with pytest.raises(DataError, match=r"photos\.zip' " + message):
            load_dataset(tmp_path / "photos.zip")

    def test_every_cut_and_flipped_archive_ends_in_an_error_that_names_it(self, photos: Path, tmp_path: Path) -> None:
        whole = zipped(photos, tmp_path / "whole.zip").read_bytes()
        damaged = tmp_path / "photos.zip"
        rng = np.random.RandomState(0)
        versions = [whole[:end] for end in rng.randint(1, len(whole), 40)]
        directory = whole.index(b"PK\x01\x02")
        for at in rng.randint(directory, len(whole), 150):  # where the directory is
            versions.append(whole[:at] + bytes([whole[at] ^ (1 << rng.randint(8))]) + whole[at + 1 :])
        for data in versions:
            damaged.write_bytes(data)
            try:
                images = find_images(damaged)
            except DataError as error:
                assert "photos.zip'" in str(error)
                continue
            for path in images:
                reason = why_unreadable(path)
                assert reason is None or "photos.zip" in reason

    @pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
    def test_may_not_be_read(self, photos: Path, tmp_path: Path) -> None:
        archive = zipped(photos, tmp_path / "photos.zip")
        archive.chmod(0)
        with pytest.raises(DataError, match=r"photos\.zip' cannot be read: Permission denied"):
            load_dataset(archive)

    def test_bad_images_are_skipped_or_named_together(
        self, photos: Path, tmp_path: Path, backbone: TinyBackbone, png: bytes
    ) -> None:
        (photos / "cat" / "000.png").write_bytes(b"junk")
        (photos / "dog" / "000.png").write_bytes(b"")
        paths = find_images(zipped(photos, tmp_path / "photos.zip"))
        with pytest.raises(BadImagesError, match=r"(?s)2 of 12 images cannot be read:.*photos\.zip/cat/000.*/dog/000"):
            extract_features(backbone, paths, cache=None)
        with pytest.warns(SkippedImageWarning, match="Left out 2 of 12 images"):
            found = extract_features(backbone, paths, cache=None, on_bad_image="skip")
        assert len(found.kept) == 10


class TestFinding:
    def test_archives_are_searched_when_they_are_named(self, photos: Path, tmp_path: Path) -> None:
        archive = zipped(photos, tmp_path / "more.zip")
        expected = [archive / path.relative_to(photos) for path in find_images(photos)]
        assert find_images(archive) == find_images(str(tmp_path / "*.zip")) == expected
        assert find_images(archive / "cat") == expected[:4]
        assert find_images([archive / "cat" / "000.png", archive]) == expected
        shutil.move(archive, photos / "more.zip")
        with pytest.warns(SkippedImageWarning, match=r"Left out 1 \.zip \('more\.zip'\): unpack archives"):
            assert len(find_images(photos)) == 12

    def test_what_is_not_there(self, photos: Path, tmp_path: Path) -> None:
        archive = zipped(photos, tmp_path / "photos.zip")
        for path in (archive / "lion", archive / "cat" / "999.png", tmp_path / "other.zip"):
            with pytest.raises(DataError, match="No such file or folder"):
                find_images(path)


class TestReading:
    def test_features_are_those_of_the_files_and_shared_through_the_cache(
        self, photos: Path, tmp_path: Path, backbone: TinyBackbone
    ) -> None:
        loose = find_images(photos)
        packed = find_images(zipped(photos, tmp_path / "photos.zip"))
        cache = FeatureCache(tmp_path / "cache")
        expected = extract_features(backbone, loose, cache=cache).features
        encoded = backbone.encoded
        assert np.array_equal(extract_features(backbone, packed, cache=cache, workers=4).features, expected)
        assert backbone.encoded == encoded
        assert np.array_equal(extract_features(backbone, packed, cache=None, workers=4).features, expected)

    def test_images_on_both_sides_of_a_split(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "data" / "train", {"cat": 2, "dog": 2})
        make_folder(tmp_path / "data" / "test", {"cat": 2, "dog": 2}, seed=1)
        shutil.copy(tmp_path / "data" / "train" / "cat" / "000.png", tmp_path / "data" / "test" / "cat" / "999.png")
        archive = zipped(tmp_path / "data", tmp_path / "data.zip")
        with pytest.warns(LeakageWarning):
            pairs = find_leakage(load_dataset(archive))
        assert pairs == [(archive / "train" / "cat" / "000.png", archive / "test" / "cat" / "999.png")]

    def test_many_threads_read_the_same_archive(self, tmp_path: Path) -> None:
        files = {f"c{i % 7}/{i}.png": os.urandom(2000 + i) for i in range(300)}
        stored, deflated = tmp_path / "a.zip", tmp_path / "b.zip"
        write_archive(stored, files)
        with zipfile.ZipFile(deflated, "w", zipfile.ZIP_DEFLATED) as file:
            for name, data in files.items():
                file.writestr(name, data)
        names = [archive / name for name in files for archive in (stored, deflated)] * 3
        with ThreadPoolExecutor(16) as pool:
            for path, data in zip(names, pool.map(read_bytes, names), strict=True):
                within = inside(path)
                assert within is not None and data == files[within[1]]

    @pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork")
    def test_forked_processes_read_beside_each_other(self, tmp_path: Path) -> None:
        files = {f"c/{i}.png": os.urandom(50_000) for i in range(60)}
        write_archive(tmp_path / "a.zip", files)
        paths = [str(tmp_path / "a.zip" / name) for name in files] * 10
        assert read_bytes(paths[0]) == files["c/0.png"]  # opened before they are forked
        with multiprocessing.get_context("fork").Pool(4) as pool:
            for path, data in zip(paths, pool.imap(read_bytes, paths, chunksize=7), strict=True):
                assert data == files[f"c/{Path(path).name}"]

    def test_an_archive_that_was_changed_is_read_anew(self, tmp_path: Path, png: bytes) -> None:
        archive = made_of(tmp_path / "a.zip", {"cat/1.png": png})
        assert read_bytes(archive / "cat" / "1.png") == png
        archive.unlink()
        made_of(archive, {"cat/1.png": b"other", "cat/2.png": png})
        assert read_bytes(archive / "cat" / "1.png") == b"other" and len(find_images(archive)) == 2

    def test_few_archives_are_kept_open(self, tmp_path: Path, png: bytes) -> None:
        kept = archives_module._KEPT_OPEN
        for i in range(kept + 8):
            made_of(tmp_path / f"{i}.zip", {"cat/1.png": png})
            assert read_bytes(tmp_path / f"{i}.zip" / "cat" / "1.png") == png
        assert len(archives_module._opened) == kept
        assert read_bytes(tmp_path / "0.zip" / "cat" / "1.png") == png

    def test_size_and_date(self, tmp_path: Path, png: bytes) -> None:
        archive = made_of(tmp_path / "a.zip", {"cat/1.png": png})
        assert status_of(archive / "cat" / "1.png") == (len(png), archive.stat().st_mtime_ns)
        assert status_of(tmp_path / "one.png").size == len(png)
        for path in (archive / "cat" / "2.png", tmp_path / "two.png"):
            with pytest.raises(FileNotFoundError):
                status_of(path)


def test_written_archives_are_the_same_bytes_in_the_order_of_folders(tmp_path: Path) -> None:
    files = {"test-ink/a/1.png": b"1", "test/b/1.png": b"2", "test/a/2.png": b"3", "test/a b/1.png": b"4"}
    write_archive(tmp_path / "a.zip", files)
    write_archive(tmp_path / "b.zip", dict(reversed(files.items())))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.zip") as file:
        names = [info.filename for info in file.infolist()]
        assert names == [str(path) for path in sorted(map(Path, files))]
        assert all(info.compress_type == zipfile.ZIP_STORED for info in file.infolist())
    archive = open_archive(tmp_path / "a.zip")
    assert {name: archive.read(name) for name in archive.files} == files
