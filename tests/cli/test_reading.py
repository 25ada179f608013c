"""Options that say how DATA is read: names of classes, where they stand, and the range of values."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import coopt

from .conftest import COLOURS, make_photos, run, run_json

NAMES = {"0": "blue sky", "1": "green leaf", "2": "red car"}


@pytest.fixture
def numbered(photos: Path) -> Path:
    """Folders 0 to 2 in the order of the colours' names."""
    for number, name in enumerate(sorted(COLOURS)):
        (photos / name).rename(photos / str(number))
    return photos


@pytest.fixture
def twelve_bits(photos: Path) -> Path:
    """The photos' grey values as 12-bit data in 16-bit files."""
    for file in photos.rglob("*.png"):
        grey = np.asarray(Image.open(file).convert("L")).astype(np.uint16)
        Image.fromarray(grey * 16).save(file)
    return photos


def test_class_names_are_learned_saved_and_found_again(numbered: Path, short: Path, clip: str, tmp_path: Path) -> None:
    (tmp_path / "names.json").write_text(json.dumps(NAMES), encoding="utf-8-sig")
    arguments = ("fit", numbered, "--backbone", clip, "--config", short, "--out", tmp_path / "out")
    assert "Warning: 3 of 3 class names are numbers or codes" in run(*arguments, "--overwrite").stderr
    result = run(*arguments, "--class-names", tmp_path / "names.json", "--overwrite")
    assert result.exit_code == 0 and result.stderr == ""
    assert f"coopt eval {tmp_path}/out {numbered} --class-names {tmp_path}/names.json" in result.stdout
    assert json.loads((tmp_path / "out/prompt.json").read_text())["class_names"] == list(NAMES.values())
    assert yaml.safe_load((tmp_path / "out/config.yaml").read_text())["class-names"] == f"{tmp_path}/names.json"
    found = run_json("eval", tmp_path / "out", numbered, "--class-names", tmp_path / "names.json")
    assert (found["n"], found["classes_of"]) == (3, "prompt")  # those that were held out
    assert run("fit", "--config", tmp_path / "out/config.yaml").exit_code == 0  # the same run
    (tmp_path / "names.json").write_text('{"0": "blue sky"}')
    result = run(*arguments, "--class-names", tmp_path / "names.json")
    assert result.exit_code == 1 and "has no name for 2 of 3 classes: '1', '2'." in result.stderr


def test_which_folder_names_the_class(short: Path, clip: str, tmp_path: Path) -> None:
    for place in ("here", "there"):
        make_photos(tmp_path / "two" / place, 3, seed=len(place))
    arguments = ("zero-shot", tmp_path / "two", "--backbone", clip)
    result = run(*arguments)
    assert "those of 'blue sky', 'green_leaf', 'red car' to 'here', and so on." in result.stderr
    assert "add --class-from parent; if all is right, --class-from top." in result.stderr
    found = run_json(*arguments, "--class-from", "parent")
    assert found["warnings"] == [] and len(found["classes"]) == 3
    assert len(run_json(*arguments, "--class-from", "path")["classes"]) == 6


def test_columns(photos: Path, clip: str, tmp_path: Path) -> None:
    rows = [f"{file},{file.parent.name},{file.parent.name}" for file in sorted(photos.rglob("*.png"))]
    (tmp_path / "rows.csv").write_text("\n".join(["where,class,species", *rows]))
    arguments = ("zero-shot", tmp_path / "rows.csv", "--backbone", clip, "--path-column", "where")
    message = run(*arguments).stderr
    assert (
        "several columns that may hold the label: 'class' and 'species'. Say which with --label-column class."
        in message
    )
    assert run_json(*arguments, "--label-column", "species")["n"] == 18
    message = run("zero-shot", photos, "--backbone", clip, "--label-column", "x").stderr
    assert message == f"Error: --label-column is for a CSV, not for the folder '{photos}'. Leave it out.\n"


def test_a_range_of_values_goes_with_the_prompt(twelve_bits: Path, short: Path, clip: str, tmp_path: Path) -> None:
    out, image = tmp_path / "out", twelve_bits / "red car" / "0.png"
    arguments = ("fit", twelve_bits, "--backbone", clip, "--config", short, "--out", out)
    assert "--value-range 0,4095 holds all of these." in run(*arguments, "--overwrite").stderr
    result = run(*arguments, "--value-range", "0,4080", "--overwrite")
    assert result.exit_code == 0 and "more than 8 bits" not in result.stderr
    assert json.loads((out / "prompt.json").read_text())["backbone"]["value_range"] == [0, 4080]
    refused = run(*arguments, "--value-range", "0,4095")
    assert refused.exit_code == 1 and "value-range [0, 4080] there, [0, 4095] now" in refused.stderr
    assert run("fit", "--config", out / "config.yaml").exit_code == 0  # the same run

    shown = tmp_path / "shown.png"
    Image.fromarray((np.asarray(Image.open(image)) // 16).astype(np.uint8)).save(shown)
    one, other = (run_json("predict", out, file)["predictions"][0]["probability"] for file in (image, shown))
    assert one == other  # as the same picture of 8 bits
    assert coopt.load(out).predict_proba([image]).tolist() == coopt.load(out).predict_proba([shown]).tolist()
    assert run_json("predict", out, image, "--value-range", "0,8160")["predictions"][0]["probability"] != one
    dark = tmp_path / "dark.png"
    Image.fromarray(np.asarray(Image.open(image)) // 16).save(dark)
    assert "values that do not fit the range" in run("predict", out, dark).stderr


@pytest.mark.parametrize("wrong", ["4095", "0,x", "1,1", "0,inf", "0,1,2"])
def test_what_is_no_range_is_refused(photos: Path, wrong: str) -> None:
    result = run("fit", photos, "--value-range", wrong)
    assert result.exit_code == 2 and f"{wrong!r} is not two" in result.stderr


def test_bad_images_of_all_parts_are_named_at_once(photos: Path, clip: str, tmp_path: Path) -> None:
    for part in ("train", "test"):
        make_photos(tmp_path / "data" / part, 2, seed=len(part))
    page = tmp_path / "data/train/red car/page.jpg"
    page.write_text("<!DOCTYPE html><html></html>")
    (tmp_path / "data/test/red car/lfs.jpg").write_text("version https://git-lfs.github.com/spec/v1\n")
    result = run("fit", tmp_path / "data", "--backbone", clip, "--out", tmp_path / "out")
    lines = result.stderr.splitlines()
    assert result.exit_code == 1 and lines[0] == "Error: 2 of 14 images cannot be read:"
    assert lines[1].endswith(
        "lfs.jpg' is a Git LFS pointer and not the file itself. Run `git lfs pull` there, or leave it out."
    )
    assert lines[2].startswith(f"  '{page}' is a web page (HTML): the download went wrong")
    assert lines[3:] == ["With --on-bad-image skip such images are left out and named."]


def test_a_list_may_be_a_csv_or_our_own_predictions(learned: tuple[Path, Path], tmp_path: Path) -> None:
    prompt, data = learned
    first = run_json("predict", prompt, data / "red car", "--out", tmp_path / "first.csv")
    assert first["images"] == 6
    again = run_json("predict", prompt, "--from-list", tmp_path / "first.csv")
    assert [Path(row["path"]).name for row in again["predictions"]] == [f"{i}.png" for i in range(6)]
    (tmp_path / "x.zip").write_bytes(b"PK\x03\x04")
    result = run("predict", prompt, "--from-list", tmp_path / "x.zip")
    assert result.exit_code == 1 and "x.zip' is a ZIP archive (or an office document). Unpack it." in result.stderr
