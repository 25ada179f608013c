"""`coopt predict`: rows for people and machines, bad images, other classes, other backbones."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from pathlib import Path

import pytest

import coopt

from .conftest import COLOURS, run, run_json, save_image


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Five images, the third of which cannot be read."""
    for i in range(5):
        save_image(tmp_path / "mixed" / f"{i}.png", (200, 40 * i, 40), i)
    (tmp_path / "mixed" / "2.png").write_bytes(b"junk")
    return tmp_path / "mixed"


@pytest.fixture(params=[512, 2])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coopt.cli.predicting.CHUNK", request.param)


def test_people_see_class_percent_and_path(learned: tuple[Path, Path], mixed: Path) -> None:
    result = run("predict", learned[0], mixed / "0.png", mixed / "1.png")
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["class", "%", "image"]
    model = coopt.load(learned[0])
    for line, path in zip(lines[1:], (mixed / "0.png", mixed / "1.png"), strict=True):
        share = 100 * model.predict_proba([path]).max()
        assert line.startswith(str(model.predict([path])[0])) and line.endswith(f"{share:5.1f}   {path}")


@pytest.mark.usefixtures("_chunks")
def test_csv_rows_come_in_order_and_name_what_was_left_out(learned: tuple[Path, Path], mixed: Path) -> None:
    result = run("predict", learned[0], mixed, "--csv")
    assert result.exit_code == 0
    rows = list(csv.DictReader(io.StringIO(result.stdout)))
    assert [row["path"] for row in rows] == [str(mixed / f"{i}.png") for i in range(5)]
    assert rows[2]["class"] == "" and "is not an image that Pillow knows" in rows[2]["error"]
    good = [row for row in rows if not row["error"]]
    model = coopt.load(learned[0])
    proba = model.predict_proba([row["path"] for row in good])
    assert [row["class"] for row in good] == [model.class_names_[i] for i in proba.argmax(1)]
    assert [float(row["probability"]) for row in good] == pytest.approx(proba.max(1).tolist(), abs=1e-6)
    assert result.stderr.count("Warning: Left out: ") == 1


@pytest.mark.usefixtures("_chunks")
def test_jsonl_and_json_hold_the_same(learned: tuple[Path, Path], mixed: Path) -> None:
    result = run("predict", learned[0], mixed, "--jsonl", "--topk", 2)
    rows = [json.loads(line) for line in result.stdout.splitlines()]
    document = run_json("predict", learned[0], mixed, "--topk", 2)
    assert [row["path"] for row in rows] == [row["path"] for row in document["predictions"]]
    assert rows == document["predictions"]
    assert [len(row.get("top", [])) for row in rows] == [2, 2, 0, 2, 2]
    assert rows[0]["class"] == rows[0]["top"][0]["class"]
    assert document["class_names"] == sorted(COLOURS)
    assert [warning["type"] for warning in document["warnings"]] == ["SkippedImageWarning"]


def test_topk_columns(learned: tuple[Path, Path], mixed: Path) -> None:
    rows = list(csv.DictReader(io.StringIO(run("predict", learned[0], mixed, "--csv", "--topk", 9).stdout)))
    assert set(rows[0]) == {"path", "error"} | {f"{n}_{i}" for n in ("class", "probability") for i in (1, 2, 3)}
    assert sum(float(rows[0][f"probability_{i}"]) for i in (1, 2, 3)) == pytest.approx(1, abs=1e-5)
    assert run("predict", learned[0], mixed, "--topk", 2).stdout.splitlines()[0].split().count("class") == 2


def test_bad_images(learned: tuple[Path, Path], mixed: Path) -> None:
    failed = run("predict", learned[0], mixed, "--on-bad-image", "fail")
    assert failed.exit_code == 1 and failed.stdout == "" and "2.png' is not an image" in failed.stderr
    none = run("predict", learned[0], mixed / "2.png", "--json")
    assert none.exit_code == 1
    assert "None of the 1 images could be read" in json.loads(none.stdout)["error"]["message"]


def test_other_classes(learned: tuple[Path, Path], mixed: Path, tmp_path: Path) -> None:
    names = ["a red kite", "a grey heron"]
    document = run_json("predict", learned[0], mixed, "--classes", ", ".join(names))
    assert document["class_names"] == names
    (tmp_path / "names.txt").write_text("\n".join(names) + "\n\n")
    assert run_json("predict", learned[0], mixed, "--classes-file", tmp_path / "names.txt") == document
    both = run("predict", learned[0], mixed, "--classes", "a,b", "--classes-file", tmp_path / "names.txt")
    assert "exclude each other" in both.stderr
    assert "at least two" in run("predict", learned[0], mixed, "--classes", "one").stderr
    gone = run("predict", learned[0], mixed, "--classes-file", tmp_path / "gone.txt")
    assert "cannot be read: No such file or directory." in gone.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="needs a file system with names of any bytes")
def test_names_of_any_bytes_survive(learned: tuple[Path, Path], mixed: Path) -> None:
    name = os.fsencode(mixed) + b"/na\xefve\n.png"
    (mixed / "0.png").rename(os.fsdecode(name))
    result = run("predict", learned[0], mixed, "--csv")
    assert b"na\xefve\n.png" in result.stdout_bytes
    assert "na\\xefve\\n.png" in run("predict", learned[0], mixed).stdout
    document = run_json("predict", learned[0], mixed)
    assert os.fsencode(document["predictions"][-1]["path"]) == name


def test_wrong_use(learned: tuple[Path, Path], mixed: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for arguments, code, message in (
        ((learned[0],), 2, "Missing argument 'IMAGES...'"),
        ((learned[0], mixed, "--csv", "--json"), 2, "--json and --csv exclude each other"),
        ((learned[0], mixed, "--csv", "--jsonl"), 2, "--csv and --jsonl exclude each other"),
        ((learned[0], mixed, "--classes", ", ,"), 1, "--classes names no class. Expected at least two."),
        ((learned[0], mixed, "--topk", 0), 2, "0 is not in the range x>=1"),
        ((learned[0], mixed / "gone.png"), 1, "No such file or folder: "),
        ((learned[0], tmp_path / "empty"), 1, "No images found in "),
        ((tmp_path / "empty", mixed), 1, "There is no saved prompt at "),
        ((learned[0], mixed, "--backbone", "openai:gone.pt"), 1, "does not exist"),
        ((learned[0], mixed, "--device", "abacus"), 1, "The device 'abacus' is not on this machine"),
    ):
        result = run("predict", *arguments)
        assert result.exit_code == code and message in result.stderr, result.stderr


def test_the_same_weights_elsewhere_and_other_weights(
    learned: tuple[Path, Path], mixed: Path, clip: str, other_clip: str, tmp_path: Path
) -> None:
    moved = tmp_path / "moved.pt"
    moved.write_bytes(Path(clip.removeprefix("openai:")).read_bytes())
    assert run("predict", learned[0], mixed, "--backbone", f"openai:{moved}").exit_code == 0
    other = run("predict", learned[0], mixed, "--backbone", other_clip, "--json")
    assert other.exit_code == 1
    assert json.loads(other.stdout)["error"]["type"] == "BackboneMismatchError"


def test_a_prompt_that_was_changed_is_refused(learned: tuple[Path, Path], mixed: Path, tmp_path: Path) -> None:
    for name, change in (
        ("prompt.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("prompt.safetensors", lambda data: data[:20]),
        ("prompt.json", lambda data: data.replace(b'"format": 1', b'"format": 99')),
        ("prompt.json", lambda data: b"{}"),
    ):
        folder = tmp_path / "changed"
        folder.mkdir(exist_ok=True)
        for file in ("prompt.json", "prompt.safetensors"):
            (folder / file).write_bytes((learned[0] / file).read_bytes())
        (folder / name).write_bytes(change((folder / name).read_bytes()))
        result = run("predict", folder, mixed)
        assert result.exit_code == 1
        assert result.stderr.startswith("Error: ") and len(result.stderr.splitlines()) == 1
