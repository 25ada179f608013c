"""`coopt predict`: rows for people and machines, bad images, other classes, other backbones."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from rich.cells import cell_len

import coopt
from coopt.app import classifying
from coopt.app.classifying import predictions
from coopt.app.prediction_rows import PredictedRow, Shape
from coopt.cli import main
from coopt.methods.base import ClipClassifier
from coopt.runtime import Runtime

from .conftest import COLOURS, run, run_json, save_image

REAL_CHUNK = classifying._chunk


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Five images, the third of which cannot be read."""
    for i in range(5):
        save_image(tmp_path / "mixed" / f"{i}.png", (200, 40 * i, 40), i)
    (tmp_path / "mixed" / "2.png").write_bytes(b"junk")
    return tmp_path / "mixed"


@pytest.fixture(params=[512, 2])
def _chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("coopt.app.classifying.CHUNK", request.param)


def test_people_see_class_percent_and_path(learned: tuple[Path, Path], mixed: Path) -> None:
    result = run("predict", learned[0], mixed / "0.png", mixed / "1.png")
    assert result.exit_code == 0 and result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["class", "%", "image"]
    model = coopt.load(learned[0])
    for line, path in zip(lines[1:], (mixed / "0.png", mixed / "1.png"), strict=True):
        share = 100 * model.predict_proba([path]).max()
        assert line.startswith(str(model.predict([path])[0])) and line.endswith(f"{share:5.1f}   {path}")


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("topk", [1, 3])
def test_lines_fit_the_terminal(
    learned: tuple[Path, Path], mixed: Path, columns: int, topk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = mixed / ("a folder with a name that fills a line of a usual terminal alone" * 2) / "0.png"
    save_image(long, (200, 40, 40), 0)
    names = ["a class with a name that fills a line of a usual terminal alone", "日本語の名前日本語の名前", "kite"]
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setattr("coopt.cli.predict._on_terminal", lambda: True)
    lines = run("predict", learned[0], long, "--classes", ",".join(names), "--topk", topk).stdout.splitlines()
    assert len(lines) == (2 if topk == 1 else 4)
    assert max(map(cell_len, lines)) <= columns
    assert lines[-1].endswith("0.png") if topk == 1 else lines[0].endswith("0.png")
    assert "…" in "".join(lines)


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


def test_several_classes_stand_below_their_image(learned: tuple[Path, Path], mixed: Path) -> None:
    lines = run("predict", learned[0], mixed / "0.png", mixed / "1.png", "--topk", 2).stdout.splitlines()
    assert [lines[0], lines[3]] == [str(mixed / "0.png"), str(mixed / "1.png")]
    shares = coopt.load(learned[0]).predict_proba([mixed / "0.png"])[0]
    assert lines[1].split()[0] == f"{100 * shares.max():.1f}" and len(lines) == 6


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
    for encoding in ("utf-8-sig", "utf-16"):  # as Windows' editors write it
        (tmp_path / "marked.txt").write_bytes("\r\n".join(["\u200ba red kite", "a grey heron "]).encode(encoding))
        assert run_json("predict", learned[0], mixed, "--classes-file", tmp_path / "marked.txt") == document
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
        ((learned[0],), 2, "Give either IMAGES... or --from-list FILE."),
        ((learned[0], mixed, "--from-list", "-"), 2, "Give either IMAGES... or --from-list FILE."),
        ((learned[0], "--from-list", tmp_path / "gone.txt"), 1, "gone.txt' cannot be read: No such file"),
        ((learned[0], mixed, "--out", tmp_path / "rows.txt"), 2, "--out ends in '.txt': add --csv or --jsonl"),
        ((learned[0], mixed, "--overwrite"), 2, "--overwrite is for a file: give --out FILE."),
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


def test_precision(learned: tuple[Path, Path], mixed: Path, arithmetics: set[str]) -> None:
    exact = run_json("predict", learned[0], mixed)
    assert arithmetics == {"cpu"}
    arithmetics.clear()
    rough = run_json("predict", learned[0], mixed, "--precision", "bf16")
    assert arithmetics == {"cpu+bf16"}
    read = [row for row in rough["predictions"] if row.get("class") is not None]
    expected = (
        coopt.load(learned[0], runtime=Runtime(precision="bf16"))
        .predict_proba([row["path"] for row in read])
        .max(axis=1)
    )
    assert [row["probability"] for row in read] == expected.tolist()
    assert exact["predictions"] != rough["predictions"]


def test_precision_of_a_method_without_one(photos: Path, clip: str, tmp_path: Path) -> None:
    out = tmp_path / "probe"
    run_json("fit", photos, "--backbone", clip, "--method", "linear_probe", "--out", out)
    result = run("predict", out, photos, "--precision", "bf16")
    assert result.exit_code == 1
    assert "The method 'linear_probe' has no precision: it predicts in fp32." in " ".join(result.stderr.split())


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


class TestLists:
    def test_a_list_gives_one_row_per_line(self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path) -> None:
        names = [mixed / "1.png", mixed / "0.png", mixed / "gone.png", mixed / "1.png"]
        (tmp_path / "list.txt").write_text("\n".join(map(str, names)))
        result = run("predict", learned[0], "--from-list", tmp_path / "list.txt", "--csv")
        rows = list(csv.DictReader(io.StringIO(result.stdout)))
        assert [row["path"] for row in rows] == list(map(str, names))
        assert "does not exist" in rows[2]["error"]
        assert rows[0]["class"] == rows[3]["class"] != ""

    def test_standard_input(self, learned: tuple[Path, Path], mixed: Path) -> None:
        given = f"{mixed / '0.png'}\n{mixed / '1.png'}\n"
        arguments = ["predict", str(learned[0]), "--from-list", "-", "--jsonl"]
        result = CliRunner().invoke(main, arguments, input=given)
        assert result.exit_code == 0, result.stderr
        assert [json.loads(line)["path"] for line in result.stdout.splitlines()] == given.splitlines()

    def test_an_empty_list(self, learned: tuple[Path, Path], tmp_path: Path) -> None:
        (tmp_path / "list.txt").write_text("\n")
        result = run("predict", learned[0], "--from-list", tmp_path / "list.txt")
        assert result.exit_code == 1 and "list.txt' names none. Expected one path per line." in result.stderr

    def test_no_more_images_are_taken_than_are_worked_on(
        self, learned: tuple[Path, Path], mixed: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("coopt.app.classifying.CHUNK", 3)
        request = coopt.app.PredictRequest(learned[0], from_list="-", cache=False)
        taken: list[Path] = []

        def endless() -> Iterator[Path]:
            while True:
                taken.append(mixed / "0.png")
                yield taken[-1]

        rows = predictions(coopt.load(learned[0]), request, Shape(), endless(), total=None)
        for chunk in (3, 6):
            assert len(next(rows)) == 3
            assert len(taken) == chunk


class TestFiles:
    """`--out`: a file that a stopped run leaves fit to go on with."""

    @pytest.mark.parametrize("form", ["csv", "jsonl"])
    def test_the_file_holds_what_is_printed(
        self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path, form: str
    ) -> None:
        out = tmp_path / f"new/rows.{form}"
        result = run("predict", learned[0], mixed, "--out", out)
        assert result.exit_code == 0, result.stderr
        assert out.read_bytes() == run("predict", learned[0], mixed, f"--{form}").stdout_bytes
        assert f"4 images classified, 1 left out: '{out}'." in result.stdout
        assert result.stderr.count("Warning: Left out: ") == 1
        assert sorted(file.name for file in out.parent.iterdir()) == [f".{out.name}.json", out.name]

    def test_json_says_what_was_written(self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path) -> None:
        document = run_json("predict", learned[0], mixed, "--out", tmp_path / "rows.csv")
        assert document["out"] == str(tmp_path / "rows.csv")
        assert (document["images"], document["left_out"]) == (5, 1)
        assert document["class_names"] == sorted(COLOURS)
        assert "predictions" not in document

    @pytest.mark.parametrize("form", ["csv", "jsonl"])
    def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
        self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path, form: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("coopt.app.classifying.CHUNK", 2)
        out = tmp_path / f"rows.{form}"
        arguments = ("predict", learned[0], mixed, "--no-cache", "--out")
        run(*arguments, tmp_path / f"whole.{form}")
        encoded: list[str] = []
        monkeypatch.setattr(classifying, "_chunk", _stopping_at("4.png", encoded))
        stopped = run(*arguments, out)
        assert stopped.exit_code == 130
        assert "Interrupted after 4 images, whose rows are kept: the same command goes on" in stopped.stderr
        assert not out.exists()
        part = tmp_path / f".rows.{form}.part"
        part.write_bytes(part.read_bytes() + b"half a ro")  # as a killed run leaves it
        monkeypatch.setattr(classifying, "_chunk", _stopping_at(None, encoded))
        resumed = run(*arguments, out)
        assert resumed.exit_code == 0, resumed.stderr
        assert "Going on after 4 images, where an earlier run stopped." in resumed.stdout
        assert encoded == [f"{i}.png" for i in range(5)]
        assert out.read_bytes() == (tmp_path / f"whole.{form}").read_bytes()
        assert [file.name for file in tmp_path.glob(".rows*")] == [f".rows.{form}.json"]

    def test_other_settings_or_images_do_not_go_on(
        self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("coopt.app.classifying.CHUNK", 2)
        out = tmp_path / "rows.csv"
        arguments = ("predict", learned[0], mixed, "--out", out)
        with monkeypatch.context() as patch:
            patch.setattr(classifying, "_chunk", _stopping_at("2.png", []))
            run(*arguments)
        begun = (tmp_path / ".rows.csv.part").read_bytes()
        other = run(*arguments, "--classes", "a kite,a heron", "--topk", 2)
        assert other.exit_code == 1 and "begun with other settings (classes, topk)" in other.stderr
        save_image(mixed / "00.png", (9, 9, 9), 99)
        changed = run(*arguments)
        assert changed.exit_code == 1 and "begun with other images than the 2 that come first now" in changed.stderr
        assert (tmp_path / ".rows.csv.part").read_bytes() == begun
        assert run(*arguments, "--overwrite").exit_code == 0
        assert len(out.read_text().splitlines()) == 7

    def test_a_finished_file_is_not_written_over(self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path) -> None:
        out = tmp_path / "rows.csv"
        out.write_text("mine")
        refused = run("predict", learned[0], mixed, "--out", out)
        assert refused.exit_code == 1 and "is there already. Choose another --out, or add --overwrite" in refused.stderr
        assert out.read_text() == "mine"

    def test_a_finished_file_says_so_and_refuses_anything_else(
        self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "rows.csv"
        arguments = ("predict", learned[0], mixed, "--out", out)
        first = run_json(*arguments)
        rows, images = out.read_bytes(), [mixed / f"{i}.png" for i in range(5)]
        monkeypatch.setattr("coopt.app.loading.load_prompt", None)  # nothing is loaded
        document = run_json(*arguments)
        assert document == {**first, "warnings": []}
        assert "is complete: 4 images classified, 1 left out." in run(*arguments, "--precision", "fp32").stdout
        assert run("predict", learned[0], *images, "--out", out).exit_code == 0  # the same images

        def refused(*others: Any) -> str:
            result = run(*(others or arguments))
            assert result.exit_code == 1 and out.read_bytes() == rows
            return result.stderr

        assert "was made with other settings (topk)." in refused(*arguments, "--topk", 2)
        assert "(min-confidence)" in refused(*arguments, "--min-confidence", 0.5)
        assert "was made with other settings (classes)." in refused(*arguments, "--classes", "a,b,c")
        assert "for 5 images; only 1 now." in refused("predict", learned[0], images[0], "--out", out)
        other = refused("predict", learned[0], *reversed(images), "--out", out)
        assert "is there already, for other images than those of now." in other
        save_image(mixed / "5.png", (1, 2, 3), 0)
        assert "is complete for 5 images, and more follow them now (1). Give these with another --out" in refused()
        (mixed / "5.png").unlink()
        os.utime(mixed / "3.png", ns=(1, 1))
        assert "but some of its images were changed since (size or date)." in refused()
        rows = b"path,class\nmine,mine\n"
        out.write_bytes(rows)
        assert "is there already and was changed since it was written." in refused()
        out.unlink()
        monkeypatch.undo()
        assert run_json(*arguments)["images"] == 5  # begun anew

    def test_another_prompt_in_the_same_folder(
        self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path, clip: str
    ) -> None:
        prompt = tmp_path / "prompt"
        shutil.copytree(learned[0], prompt)
        arguments = ("predict", prompt, mixed, "--out", tmp_path / "rows.csv")
        assert run(*arguments).exit_code == 0
        shutil.rmtree(prompt)
        run("zero-shot", learned[1], "--backbone", clip, "--out", prompt)
        assert "was made with other settings (prompt)." in run(*arguments).stderr

    def test_a_stopped_run_that_replaces_a_file_goes_on(
        self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("coopt.app.classifying.CHUNK", 2)
        out = tmp_path / "rows.csv"
        out.write_text("old")
        arguments = ("predict", learned[0], mixed, "--out", out)
        with monkeypatch.context() as patch:
            patch.setattr(classifying, "_chunk", _stopping_at("4.png", []))
            stopped = run(*arguments, "--overwrite")
        assert "whose rows are kept: the same command without --overwrite goes on from there." in stopped.stderr
        assert out.read_text() == "old"
        resumed = run(*arguments)
        assert resumed.exit_code == 0 and "Going on after 4 images" in resumed.stdout
        assert len(out.read_text().splitlines()) == 6

    def test_killed_just_before_the_file_got_its_name(
        self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "rows.csv"
        arguments = ("predict", learned[0], mixed, "--out", out)
        run(*arguments)
        rows = out.read_bytes()
        out.rename(tmp_path / ".rows.csv.part")
        assert run(*arguments).exit_code == 0
        assert out.read_bytes() == rows

    def test_a_run_that_fails_leaves_nothing(self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path) -> None:
        out = tmp_path / "new" / "rows.csv"
        failed = run("predict", learned[0], mixed, "--out", out, "--on-bad-image", "fail")
        assert failed.exit_code == 1 and not out.parent.exists()
        run("predict", learned[0], mixed, "--out", tmp_path / "rows.csv")
        failed = run("predict", learned[0], tmp_path / "gone.png", "--out", tmp_path / "rows.csv", "--overwrite")
        assert failed.exit_code == 1
        assert "is complete" in run("predict", learned[0], mixed, "--out", tmp_path / "rows.csv").stdout

    def test_many_bad_images_are_counted_and_not_all_named(
        self, learned: tuple[Path, Path], mixed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("coopt.app.predicting.MOST_NAMED", 2)
        for name in ("5.png", "6.png", "7.png"):
            (mixed / name).write_bytes(b"junk")
        result = run("predict", learned[0], mixed, "--out", tmp_path / "rows.jsonl")
        assert result.stderr.count("Warning: Left out: ") == 2
        assert "4 images were left out; the rows without a class name them all." in result.stderr
        rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
        assert sum("error" in row for row in rows) == 4


def _stopping_at(name: str | None, encoded: list[str]) -> Any:
    """`_chunk` that notes the images it is given and is interrupted before the one of this name."""

    def chunk(estimator: ClipClassifier, paths: Sequence[Path], *others: Any) -> Iterator[PredictedRow]:
        if paths[0].name == name:
            raise KeyboardInterrupt
        encoded.extend(path.name for path in paths)
        return REAL_CHUNK(estimator, paths, *others)

    return chunk
