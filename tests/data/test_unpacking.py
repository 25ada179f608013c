"""Archives as folders: all of it or nothing, and nothing outside of the folder."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from coopt.data import load_dataset
from coopt.data import unpacking as unpacking_module
from coopt.data.archives import Archive
from coopt.data.unpacking import archive_named, unpack_archive
from coopt.errors import DataError, SavedFileError

from .conftest import make_folder
from .test_archives import made_of, zipped


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    make_folder(tmp_path / "made" / "photos", {"cat": 3, "dog": 2})
    return zipped(tmp_path / "made" / "photos", tmp_path / "made" / "photos.zip", "photos/")


def names(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


@pytest.mark.parametrize("there", [False, True])
def test_writes_what_the_archive_was_made_of(archive: Path, tmp_path: Path, there: bool) -> None:
    out = tmp_path / "out"
    if there:
        out.mkdir()
    assert unpack_archive(archive, out) == 5
    assert load_dataset(out / "photos").hash == load_dataset(archive).hash
    assert names(out / "photos") == names(archive.parent / "photos")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["made", "out"]  # nothing hidden is left beside
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(out.stat().st_mode) == 0o777 & ~umask


def test_what_systems_leave_in_archives_is_left_out(tmp_path: Path) -> None:
    archive = made_of(tmp_path / "a.zip", {"cat/1.png": b"x", "__MACOSX/cat/._1.png": b"y", "cat/.DS_Store": b"z"})
    assert unpack_archive(archive, tmp_path / "out") == 1
    assert names(tmp_path / "out") == ["cat", "cat/1.png"]


def test_a_folder_that_holds_something_is_left_as_it_is(archive: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("mine")
    with pytest.raises(SavedFileError, match=r"out' is not empty\. Choose a new or an empty folder"):
        unpack_archive(archive, tmp_path / "out")
    assert names(tmp_path / "out") == ["mine.txt"]
    with pytest.raises(SavedFileError, match=r"mine\.txt' is a file, expected a folder"):
        unpack_archive(archive, tmp_path / "out" / "mine.txt")


@pytest.mark.parametrize("there", [False, True])
def test_whatever_stops_it_leaves_nothing(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    target = tmp_path / "new" / "deep" / "out"
    if there:
        target.mkdir(parents=True)
    before = names(tmp_path)
    real, calls = Archive.read, []

    def stopped(self: Archive, name: str) -> bytes:
        calls.append(name)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, name)

    monkeypatch.setattr(Archive, "read", stopped)
    with pytest.raises(KeyboardInterrupt):
        unpack_archive(archive, target)
    assert names(tmp_path) == before


@pytest.mark.parametrize("name", ["../evil.png", "/evil.png", "cat/../../evil.png"])
def test_names_that_lead_out_of_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    archive = made_of(tmp_path / "a.zip", {"cat/1.png": b"x", name: b"x"})
    with pytest.raises(DataError, match="which would lie outside of the archive's folder"):
        unpack_archive(archive, tmp_path / "some" / "out")
    assert names(tmp_path) == ["a.zip"]


def test_damaged_files_and_links_are_refused(tmp_path: Path) -> None:
    archive = made_of(tmp_path / "a.zip", {"cat/1.png": b"first", "cat/2.png": b"second"})
    archive.write_bytes(archive.read_bytes().replace(b"second", b"Second"))
    with pytest.raises(DataError, match=r"a\.zip/cat/2\.png' is damaged"):
        unpack_archive(archive, tmp_path / "out")
    link = made_of(tmp_path / "b.zip", {"cat": b"/etc"}, external_attr=0o120777 << 16)
    with pytest.raises(DataError, match=r"b\.zip/cat' is a symbolic link"):
        unpack_archive(link, tmp_path / "out")
    assert names(tmp_path) == ["a.zip", "b.zip"]


def test_what_does_not_fit_on_the_disk_is_not_begun(
    archive: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unpacking_module.shutil, "disk_usage", lambda path: _Usage)
    with pytest.raises(SavedFileError, match=r"has 10 free\. Free space or choose another place"):
        unpack_archive(archive, tmp_path / "out")


class _Usage:
    free = 10


def test_names(archive: Path, tmp_path: Path) -> None:
    assert archive_named(str(archive)) == archive
    assert archive_named("bundled:animals").name == archive_named("animals").name == "animals.zip"
    with pytest.raises(DataError, match="does not exist"):
        archive_named(str(tmp_path / "none.zip"))
    with pytest.raises(DataError, match="There is no bundled data set"):
        archive_named("photos")


def test_merged_data_set_has_nothing_to_write() -> None:
    with pytest.raises(DataError, match=r"'mixed' has no images of its own.* Extract these: objects, animals, "):
        archive_named("bundled:mixed")
    assert archive_named("fleet").name == "fleet.zip"
