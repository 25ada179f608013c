"""`coopt.app.predict`: rows in the result, in a file, and as events."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import coopt
from coopt import app, events
from coopt.app.prediction_rows import Predicted, PredictionsBegun
from coopt.errors import DataError, Interrupted, ParameterError, SavedFileError
from coopt.events import Event, Progress
from tests.cli.conftest import COLOURS, run, run_json, save_image


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Five images, the third of which cannot be read."""
    for i in range(5):
        save_image(tmp_path / "mixed" / f"{i}.png", (200, 40 * i, 40), i)
    (tmp_path / "mixed" / "2.png").write_bytes(b"junk")
    return tmp_path / "mixed"


def test_rows_are_those_of_the_command(
    learned: tuple[Path, Path], mixed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    by_command = run_json("predict", learned[0], mixed, "--topk", 2)
    capfd.readouterr()
    result = app.predict(learned[0], mixed, topk=2)
    assert capfd.readouterr() == ("", "")
    assert json.loads(json.dumps(result.to_dict())) == by_command
    assert result.rows is not None and [row.path.name for row in result.rows] == [f"{i}.png" for i in range(5)]
    assert result.class_names == tuple(sorted(COLOURS)) and result.rows[2].error is not None
    assert [one.kind for one in result.warnings] == ["SkippedImageWarning"]
    good = [row for row in result.rows if row.error is None]
    assert [row.best[0][0] for row in good] == coopt.load(learned[0]).predict([row.path for row in good]).tolist()


def test_rows_are_told_as_they_come(learned: tuple[Path, Path], mixed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coopt.app.classifying.CHUNK", 2)
    heard: list[Event] = []
    with events.listening(heard.append):
        result = app.predict(learned[0], mixed, keep_rows=False)
    assert result.rows is None
    kinds = [type(event) for event in heard if isinstance(event, Progress | Predicted | PredictionsBegun)]
    assert kinds.index(PredictionsBegun) < kinds.index(Predicted) < len(kinds) - 1 - kinds[::-1].index(Progress)
    told = [event for event in heard if isinstance(event, Predicted)]
    assert [event.row.path.name for event in told] == [f"{i}.png" for i in range(5)]
    assert str(told[0]).startswith(f"{mixed / '0.png'}: ") and str(told[0]).endswith("%")
    assert json.loads(json.dumps(told[2].to_dict()))["error"] in str(told[2])


def test_a_file_is_gone_on_with(
    learned: tuple[Path, Path], mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopt.app.classifying.CHUNK", 2)

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.doing == "predicting" and event.done == 2:
            raise KeyboardInterrupt

    kept = "after 2 images, whose rows are kept: the same call goes on from there"
    with pytest.raises(Interrupted, match=kept), events.listening(stop):
        app.predict(learned[0], mixed, out=tmp_path / "rows.csv")
    result = app.predict(learned[0], mixed, out=tmp_path / "rows.csv")
    assert (result.rows, result.out, result.images, result.left_out) == (None, tmp_path / "rows.csv", 5, 1)
    assert (tmp_path / "rows.csv").read_bytes() == run("predict", learned[0], mixed, "--csv").stdout_bytes
    assert run_json("predict", learned[0], mixed, "--out", tmp_path / "rows.csv") == {
        **json.loads(json.dumps(result.to_dict())),
        "warnings": [],
    }
    with pytest.raises(SavedFileError, match="Choose another out, or add overwrite=True to begin anew."):
        app.predict(learned[0], mixed, out=tmp_path / "rows.csv", topk=2)


def test_images_are_placed_and_a_second_time_there_is_nothing_to_do(
    learned: tuple[Path, Path], mixed: Path, tmp_path: Path
) -> None:
    first = app.predict(learned[0], mixed, move_to=mixed, contact_sheet=tmp_path / "sheet.html")
    assert (first.placed, first.there_already, first.missing) == (4, 0, 0)
    assert first.contact_sheet == tmp_path / "sheet.html" and first.contact_sheet.exists()
    (mixed / "2.png").unlink()
    heard: list[Event] = []
    with events.listening(heard.append):
        again = app.predict(learned[0], mixed, move_to=mixed)
    assert again.rows == () and again.placed is None
    assert "Nothing to do: all that was found (4 images)" in str(heard[-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "Give either images or from_list."),
        ({"images": "x.png", "from_list": "-"}, "Give either images or from_list."),
        ({"images": "x.png", "topk": 0}, "topk must be an int >= 1. Got 0 instead."),
        ({"images": "x.png", "min_confidence": 2.0}, "min_confidence must be > 0 and <= 1. Got 2.0 instead."),
        ({"images": "x.png", "copy_to": "a", "move_to": "b"}, "copy_to and move_to exclude each other"),
        ({"images": "x.png", "out": "rows.txt"}, "'rows.txt' does not say what to write: end it in .csv or .jsonl"),
    ],
)
def test_wrong_use(options: dict, message: str, learned: tuple[Path, Path]) -> None:
    with pytest.raises(ParameterError, match=message.replace("(", r"\(")):
        app.predict(learned[0], **options)


def test_nothing_that_can_be_read(learned: tuple[Path, Path], mixed: Path) -> None:
    with pytest.raises(DataError, match="None of the 1 images could be read"):
        app.predict(learned[0], mixed / "2.png")
