from __future__ import annotations

import os
from pathlib import Path

import pytest

from coopt.data import find_images
from coopt.data.finding import iter_images, walk_images
from coopt.errors import DataError, SkippedImageWarning


def test_folders_are_searched_sorted_and_without_hidden_files(tmp_path: Path) -> None:
    names = ["b/2.JPG", "b/1.png", "a/deep/er/3.webp", "0.gif"]
    for name in [*names, ".hidden.png", ".git/x.png", "__MACOSX/y.png", "notes.txt"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)]
    assert found == ["0.gif", "a/deep/er/3.webp", "b/1.png", "b/2.JPG"]


def test_files_globs_and_folders_mix_and_come_once(tmp_path: Path) -> None:
    for name in ["x/1.png", "x/2.png", "y/3.png", "y/4.txt", "odd"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    sources = [tmp_path / "odd", f"{tmp_path}/**/[23].*", str(tmp_path / "x"), f"{tmp_path}/y/*"]
    found = [path.relative_to(tmp_path).as_posix() for path in find_images(sources)]
    assert found == ["odd", "x/2.png", "y/3.png", "x/1.png"]


def test_a_file_with_glob_characters_in_its_name(tmp_path: Path) -> None:
    (tmp_path / "photo[1].jpg").touch()
    assert find_images(tmp_path / "photo[1].jpg") == [tmp_path / "photo[1].jpg"]


def test_symbolic_link_loops_end(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "1.png").touch()
    (tmp_path / "a" / "b" / "up").symlink_to(tmp_path / "a")
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a" / "self")
    assert walk_images(tmp_path / "a") == [tmp_path / "a" / "1.png"]


def test_links_to_a_folder_that_holds_them_bring_in_nothing(tmp_path: Path) -> None:
    for name in ("cat/a.png", "dog/b.png", "elsewhere/c.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    (tmp_path / "cat" / "loop").symlink_to(tmp_path)
    (tmp_path / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    assert walk_images(tmp_path / "cat") == [tmp_path / "cat/a.png", tmp_path / "cat/more/c.png"]


def test_missing_sources_are_all_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"No such file or folder: '.*gone', '.*lost'\. Expected image files"):
        find_images([tmp_path, tmp_path / "gone", tmp_path / "lost"])


def test_nothing_found_says_what_was_looked_for(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").touch()
    with pytest.raises(DataError, match=r"No images found in .*Expected files ending in .*\.jpg"):
        find_images([tmp_path])
    with pytest.raises(DataError, match=r"No images found in '.*\*\.png'"):
        find_images(f"{tmp_path}/*.png")
    with pytest.raises(DataError, match=r"No images found in an empty list"):
        find_images([])


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "locked").mkdir()

    def refuse(folder: Path) -> None:  # chmod would not stop root
        raise PermissionError(13, "Permission denied", str(folder / "locked"))

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(DataError, match=r"locked' cannot be read: Permission denied"):
        find_images(tmp_path)


def test_images_come_while_the_search_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_a_missing_source_is_named_before_the_first_image(tmp_path: Path) -> None:
    (tmp_path / "1.png").touch()
    with pytest.raises(DataError, match="gone"):
        next(iter_images([tmp_path, tmp_path / "gone"]))


def test_what_systems_leave_is_no_image(tmp_path: Path) -> None:
    names = [
        "a/1.png",
        "@eaDir/1.png/thumb.jpg",
        "a/@eaDir/x.jpg",
        "$RECYCLE.BIN/x.jpg",
        "System Volume Information/x.jpg",
    ]
    names += [
        "lost+found/x.jpg",
        ".ipynb_checkpoints/x.jpg",
        "__MACOSX/a/._1.png",
        "__pycache__/x.jpg",
        "#recycle/x.jpg",
    ]
    names += [".Trash-1000/x.jpg", "Thumbs.db", "desktop.ini", "a/._1.png", "a/Thumbs.db"]
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    assert find_images(tmp_path) == [tmp_path / "a/1.png"]
    assert find_images([f"{tmp_path}/**/*.*", f"{tmp_path}/*"]) == [tmp_path / "a/1.png"]
    assert find_images(f"{tmp_path}/@eaDir/*/*") == [tmp_path / "@eaDir/1.png/thumb.jpg"]  # named, so meant


def test_files_of_other_kinds_are_counted_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coopt.data.finding.IMAGE_EXTENSIONS", frozenset({".jpg"}))
    names = ["1.jpg", "IMG_2.HEIC", "IMG_3.HEIC", "a/4.mp4", "5.cr2", "notes.txt", ".hidden.heic"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.warns(SkippedImageWarning) as caught:
        assert find_images(tmp_path) == [tmp_path / "1.jpg"]
    message = str(caught[0].message)
    assert "Left out 2 .heic, 1 .cr2, 1 .mp4 ('5.cr2', 'IMG_2.HEIC', 'IMG_3.HEIC', ...)" in message
    assert "`pip install 'coopt[heic]'` reads them; develop camera raw files to JPEG; take single frames" in message
    (tmp_path / "1.jpg").unlink()
    with pytest.raises(DataError, match=r"No images found .*Left out 2 \.heic"):
        find_images(tmp_path)


def test_one_folder_that_may_not_be_read_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a/1.png", "b/2.png", "c/3.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    scan = os.scandir

    def refuse_b(folder: Path) -> object:  # chmod would not stop root
        if Path(folder).name == "b":
            raise PermissionError(13, "Permission denied", str(folder))
        return scan(folder)

    monkeypatch.setattr(os, "scandir", refuse_b)
    with pytest.warns(SkippedImageWarning, match=r"Left out 1 folders\. The folder '.*/b' cannot be read: Permission"):
        assert [path.name for path in find_images(tmp_path)] == ["1.png", "3.png"]
    with pytest.raises(DataError, match=r"/b' cannot be read"):
        find_images(tmp_path / "b")
    with pytest.raises(DataError, match=r"/b' cannot be read: .* on_bad_image='skip' leaves it out"):
        walk_images(tmp_path)
