"""`coopt predict --copy-to / --move-to`, with `--min-confidence`: where images go, and what is never lost."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

import coopt
from coopt.app.placing import UNCERTAIN, folder_names

from .conftest import run, run_json, save_image


@pytest.fixture
def inbox(tmp_path: Path) -> Path:
    """Two folders with images of the same names, of which one cannot be read."""
    for name, seed in (("a", 0), ("b", 10)):
        for i in range(2):
            save_image(tmp_path / "inbox" / name / f"{i}.png", (200, 40, 40), seed + i)
    (tmp_path / "inbox" / "b" / "bad.png").write_bytes(b"junk")
    return tmp_path / "inbox"


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.fixture
def classes(learned: tuple[Path, Path], inbox: Path) -> dict[str, str]:
    """The class of every image that can be read."""
    images = [path for path in sorted(inbox.rglob("*.png")) if path.name != "bad.png"]
    return dict(zip(map(str, images), coopt.load(learned[0]).predict(images), strict=True))


def test_copies_stand_by_class_and_are_not_made_twice(
    learned: tuple[Path, Path], inbox: Path, classes: dict[str, str], tmp_path: Path
) -> None:
    before, out = files(inbox), tmp_path / "sorted"
    expected: dict[str, bytes] = {}
    for path, name in classes.items():
        target = f"{name}/{Path(path).name}"
        if target in expected:  # of the other folder
            target = f"{name}/{Path(path).stem}-2.png"
        expected[target] = Path(path).read_bytes()
    first = run("predict", learned[0], inbox, "--copy-to", out)
    assert first.exit_code == 0, first.stderr
    assert f"4 images copied to '{out}'." in first.stdout
    assert files(out) == expected and files(inbox) == before
    assert (out / next(iter(expected))).stat().st_mtime == (inbox / "a" / "0.png").stat().st_mtime
    again = run_json("predict", learned[0], inbox, "--copy-to", out)
    assert (again["placed"], again["there_already"]) == (0, 4)
    assert files(out) == expected


def test_a_file_of_the_user_is_never_written_over(
    learned: tuple[Path, Path], inbox: Path, classes: dict[str, str], tmp_path: Path
) -> None:
    for option in ("--copy-to", "--move-to"):
        out, image = tmp_path / option, inbox / "a" / "0.png"
        mine = out / classes[str(image)] / "0.png"
        mine.parent.mkdir(parents=True)
        mine.write_bytes(b"mine")
        data = image.read_bytes()
        assert run("predict", learned[0], image, option, out).exit_code == 0
        assert files(out) == {f"{mine.parent.name}/0-2.png": data, f"{mine.parent.name}/0.png": b"mine"}


def test_moved_images_are_gone_from_where_they_were(
    learned: tuple[Path, Path], inbox: Path, classes: dict[str, str], tmp_path: Path
) -> None:
    data = sorted(Path(path).read_bytes() for path in classes)
    result = run("predict", learned[0], inbox, "--move-to", tmp_path / "sorted")
    assert "4 images moved to" in result.stdout
    assert sorted(files(tmp_path / "sorted").values()) == data
    assert list(files(inbox)) == ["b/bad.png"]


def test_equal_images_are_both_moved(learned: tuple[Path, Path], inbox: Path, tmp_path: Path) -> None:
    shutil.copy2(inbox / "a" / "0.png", inbox / "b" / "0.png")
    run("predict", learned[0], inbox / "a" / "0.png", inbox / "b" / "0.png", "--move-to", tmp_path / "sorted")
    assert len(files(tmp_path / "sorted")) == 2


def test_sorting_a_folder_in_place(learned: tuple[Path, Path], inbox: Path) -> None:
    (inbox / "b" / "bad.png").unlink()
    first = run("predict", learned[0], inbox, "--move-to", inbox)
    assert "4 images moved" in first.stdout
    placed = files(inbox)
    again = run("predict", learned[0], inbox, "--move-to", inbox)
    assert again.exit_code == 0
    assert "Nothing to do: all that was found (4 images) lies in the folders of classes" in again.stdout
    save_image(inbox / "new.png", (200, 40, 40), 50)
    more = run("predict", learned[0], inbox, "--move-to", inbox)
    assert "Left out, since in the folders of classes already: 4 images." in more.stdout
    assert "1 image moved" in more.stdout
    assert len(files(inbox)) == len(placed) + 1


def test_a_moved_link_still_leads_to_its_image(learned: tuple[Path, Path], inbox: Path, tmp_path: Path) -> None:
    link = tmp_path / "links" / "0.png"
    link.parent.mkdir()
    link.symlink_to("../inbox/a/0.png")
    run("predict", learned[0], link, "--move-to", tmp_path / "sorted")
    (moved,) = (tmp_path / "sorted").rglob("0.png")
    assert moved.is_symlink() and moved.read_bytes() == (inbox / "a" / "0.png").read_bytes()
    assert not os.path.lexists(link)


def test_another_drive(
    learned: tuple[Path, Path], inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There a file is copied and then removed; where that is refused, the copy goes again."""
    rename, unlink = Path.rename, Path.unlink

    def refuse(self: Path, target: Path) -> Path:
        if inbox in self.parents:
            raise OSError(errno.EXDEV, "Invalid cross-device link")
        return rename(self, target)

    def read_only(self: Path, missing_ok: bool = False) -> None:
        if inbox in self.parents:
            raise OSError(errno.EROFS, "Read-only file system")
        unlink(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "rename", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", read_only)
        result = run("predict", learned[0], inbox, "--move-to", tmp_path / "sorted")
        assert result.exit_code == 1
        assert f"'{inbox / 'a' / '0.png'}' cannot be moved to" in result.stderr
        assert "Read-only file system. It is still where it was; 0 images moved before." in result.stderr
        assert not (tmp_path / "sorted").exists() and len(files(inbox)) == 5
    assert "4 images moved" in run("predict", learned[0], inbox, "--move-to", tmp_path / "sorted").stdout
    assert len(files(tmp_path / "sorted")) == 4 and len(files(inbox)) == 1


class TestWithRowsInAFile:
    def test_images_are_moved_after_the_last_row_and_a_stopped_run_goes_on(
        self, learned: tuple[Path, Path], inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        rename, moved = Path.rename, []

        def full(self: Path, target: Path) -> Path:
            if inbox in self.parents:
                if len(moved) == 2:
                    raise OSError(errno.ENOSPC, "No space left on device")
                moved.append(self)
            return rename(self, target)

        rows = tmp_path / "rows.csv"
        arguments = ("predict", learned[0], inbox, "--out", rows, "--move-to", tmp_path / "sorted")
        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", full)
            stopped = run(*arguments)
        assert stopped.exit_code == 1
        assert "No space left on device. It is still where it was; 2 images moved before." in stopped.stderr
        written = rows.read_bytes()
        other = run(*arguments[:-1], tmp_path / "elsewhere")
        assert "moving its images was stopped before the end" in other.stderr
        resumed = run_json(*arguments)
        assert (resumed["placed"], resumed["there_already"], resumed["images"]) == (2, 2, 5)
        assert list(files(inbox)) == ["b/bad.png"] and len(files(tmp_path / "sorted")) == 4
        repeated = run(*arguments)
        assert repeated.exit_code == 0 and "is complete: 4 images classified, 1 left out." in repeated.stdout
        assert rows.read_bytes() == written
        save_image(inbox / "a" / "0.png", (40, 180, 60), 77)  # another image of the old name stays where it is
        more = run(*arguments)
        assert more.exit_code == 1 and "there are others now. Choose another --out for them." in more.stderr
        assert (inbox / "a" / "0.png").exists()

    def test_images_of_a_complete_file_can_be_copied_later(
        self, learned: tuple[Path, Path], inbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for form in ("csv", "jsonl"):
            arguments = ("predict", learned[0], inbox, "--out", tmp_path / f"rows.{form}", "--topk", 2)
            run(*arguments)
            with monkeypatch.context() as patch:
                patch.setattr("coopt.app.loading.load_prompt", None)  # nothing is loaded
                document = run_json(*arguments, "--copy-to", tmp_path / form)
            assert document["placed"] == 4
        assert files(tmp_path / "csv") == files(tmp_path / "jsonl") != {}


class TestMinConfidence:
    def test_what_is_less_probable_has_no_class(self, learned: tuple[Path, Path], inbox: Path, tmp_path: Path) -> None:
        shares = coopt.load(learned[0]).predict_proba([inbox / "a" / "0.png", inbox / "a" / "1.png"])
        low, high = sorted(shares.max(axis=1))
        least = (low + high) / 2
        arguments: tuple[Any, ...] = ("predict", learned[0], inbox / "a", "--min-confidence", least)
        unsure = int(shares.max(axis=1).argmin())
        document = run_json(*arguments, "--topk", 2, "--copy-to", tmp_path / "sorted")
        row, other = document["predictions"][unsure], document["predictions"][1 - unsure]
        assert row["class"] is None and row["probability"] == low and row["top"][0]["probability"] == low
        assert other["class"] == other["top"][0]["class"]
        assert f"{UNCERTAIN}/{unsure}.png" in files(tmp_path / "sorted")
        plain = list(csv.DictReader(run(*arguments, "--csv").stdout.splitlines()))
        assert plain[unsure] == {"path": row["path"], "class": "", "probability": f"{low:.6f}", "error": ""}
        several = list(csv.DictReader(run(*arguments, "--csv", "--topk", 2).stdout.splitlines()))
        assert several[unsure]["class"] == "" and several[unsure]["class_1"] == row["top"][0]["class"]
        assert several[1 - unsure]["class"] == several[1 - unsure]["class_1"] == other["class"]
        lines = run(*arguments).stdout.splitlines()
        assert lines[1 + unsure].startswith("(uncertain)") and f"{100 * low:5.1f}" in lines[1 + unsure]

    def test_it_is_out_of_range(self, learned: tuple[Path, Path], inbox: Path) -> None:
        assert run("predict", learned[0], inbox, "--min-confidence", 60).exit_code == 2


def test_folders_of_classes_are_taken_by_every_file_system() -> None:
    names = [
        "a/b",
        "a:b",
        "..",
        ".hidden",
        "con",
        "NUL.txt",
        "Cat",
        "cat",
        "  x. ",
        "\n\t",
        UNCERTAIN,
        "é" * 200,
        "plain",
    ]
    folders = folder_names(names)
    assert list(folders.values()) == [
        *("a-b", "a-b-2", "_", "_hidden", "_con", "_NUL.txt", "Cat", "cat-2", "x", "_-2", "_uncertain-2", "é" * 50),
        "plain",
    ]


def test_wrong_use(learned: tuple[Path, Path], inbox: Path, tmp_path: Path) -> None:
    both = run("predict", learned[0], inbox, "--copy-to", tmp_path / "x", "--move-to", tmp_path / "y")
    assert both.exit_code == 2 and "--copy-to and --move-to exclude each other" in both.stderr
    (tmp_path / "file").touch()
    taken = run("predict", learned[0], inbox, "--copy-to", tmp_path / "file")
    assert taken.exit_code == 1 and "Cannot write" in taken.stderr and "File exists" in taken.stderr
    gone = run("predict", tmp_path, inbox, "--copy-to", tmp_path / "new", "--json")
    assert json.loads(gone.stdout)["error"]["type"] == "SavedFileError" and not (tmp_path / "new").exists()
