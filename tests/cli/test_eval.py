"""`coopt eval` and `coopt zero-shot`."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
from PIL import Image

import coopt
from coopt.backbones import Backbone
from coopt.evaluation import evaluate
from tests.checkpoints import recorded_cocoop, save_checkpoint

from .conftest import COLOURS, make_photos, run, run_json, save_image

REFERENCE = Path(__file__).parent.parent / "golden" / "checkpoint_coop_end_m4"


class TestEval:
    def test_the_part_that_was_held_out_is_found_again(self, learned: tuple[Path, Path]) -> None:
        out, data = learned
        document = run_json("eval", out, data)
        fitted = json.loads((out / "result.json").read_text())["metrics"]["learned"]
        assert {key: document[key] for key in fitted} == fitted
        assert document["classes_of"] == "prompt"
        shown = run("eval", out, data).stdout
        assert "photos: the 3 images held out when the prompt was learned from this data." in shown

    def test_other_data_is_used_whole(self, learned: tuple[Path, Path], tmp_path: Path) -> None:
        other = make_photos(tmp_path / "other", 4, seed=5)
        document = run_json("eval", learned[0], other)
        dataset = coopt.load_dataset(other, test_fraction=0)
        expected = evaluate(coopt.load(learned[0]), list(dataset.train.paths), list(dataset.train.labels))
        assert document["n"] == 12
        assert document["accuracy"] == expected.accuracy and document["macro_f1"] == expected.macro_f1
        assert run_json("eval", learned[0], learned[1], "--split", "all")["n"] == 18

    def test_parts(self, learned: tuple[Path, Path], tmp_path: Path) -> None:
        make_photos(tmp_path / "data" / "train", 2)
        make_photos(tmp_path / "data" / "test", 1, seed=2)
        found = {
            part: run_json("eval", learned[0], tmp_path / "data", "--split", part)["n"] for part in ("test", "all")
        }
        assert found == {"test": 3, "all": 9}
        assert run_json("eval", learned[0], tmp_path / "data" / "test")["n"] == 3
        result = run("eval", learned[0], tmp_path / "data", "--split", "val")
        assert result.exit_code == 1
        assert "has no val part; it has train and test. Choose another --split." in result.stderr

    def test_mistakes_are_shown(self, learned: tuple[Path, Path], tmp_path: Path) -> None:
        save_image(tmp_path / "wrong" / "red car" / "0.png", COLOURS["blue sky"], 0)
        save_image(tmp_path / "wrong" / "red car" / "1.png", COLOURS["green_leaf"], 1)
        document = run_json("eval", learned[0], tmp_path / "wrong")  # one class is enough to measure
        assert document["accuracy"] < 100
        mistake = document["confusions"][0]
        shown = run("eval", learned[0], tmp_path / "wrong").stdout
        assert "Weakest classes, %" in shown and "Most frequent mistakes" in shown
        assert mistake["true"] == "red car" and mistake["predicted"] in shown

    def test_mistakes_and_confusions_as_files(self, learned: tuple[Path, Path], tmp_path: Path) -> None:
        data, out = make_photos(tmp_path / "data", 4, seed=7), tmp_path / "new" / "eval"
        for i in range(3):
            save_image(data / "red car" / f"wrong{i}.png", COLOURS["blue sky"], i)
        (data / "red car" / "bad.png").write_bytes(b"junk")
        arguments = ("eval", learned[0], data, "--on-bad-image", "skip")
        document = run_json(*arguments, "--out", out)
        assert {**document, "out": None} == {**run_json(*arguments), "out": None}
        images = [path for path in sorted(data.rglob("*.png")) if path.name != "bad.png"]
        model = coopt.load(learned[0])
        shares, names = model.predict_proba(images), list(model.class_names_)
        expected = []
        counts = {(true, other): 0 for true in names for other in names}
        for path, share in zip(images, shares, strict=True):
            true, other = path.parent.name, names[share.argmax()]
            counts[true, other] += 1
            if true != other:
                expected.append([str(path), true, other, share[names.index(true)], share.max()])
        expected.sort(key=lambda row: -row[4])
        rows = list(csv.DictReader((out / "mistakes.csv").open()))
        assert [list(row.values())[:3] for row in rows] == [row[:3] for row in expected] and len(rows) >= 3
        found = [[float(row["probability_true"]), float(row["probability_predicted"])] for row in rows]
        assert found == [pytest.approx(row[3:], abs=2e-6) for row in expected]
        header, *lines = csv.reader((out / "confusion.csv").open())
        assert header == [r"true \ predicted", *names]
        assert lines == [[true, *(str(counts[true, other]) for other in names)] for true in names]
        with Image.open(out / "confusion.png") as picture:
            assert picture.format == "PNG"
        assert json.loads((out / "evaluation.json").read_text())["accuracy"] == document["accuracy"]
        again = run(*arguments, "--out", out)  # its own files are replaced
        assert again.exit_code == 0
        assert f"In '{out}': mistakes.csv ({len(rows)} mistakes, the surest first), confusion.csv" in again.stdout
        assert len(list(out.iterdir())) == 4
        inside = run(*arguments, "--out", data)
        assert inside.exit_code == 1 and f"such as --out {data.parent / 'coopt-data'}." in inside.stderr
        foreign = run(*arguments, "--out", learned[0])
        assert foreign.exit_code == 1 and "holds other files" in foreign.stderr

    def test_nothing_but_the_right_class(self, learned: tuple[Path, Path], tmp_path: Path) -> None:
        data = make_photos(tmp_path / "data", 1)
        model = coopt.load(learned[0])
        for path in data.rglob("*.png"):
            (data / "all").mkdir(exist_ok=True)
            path.rename(data / "all" / f"{path.parent.name}.png")
        (tmp_path / "labels.csv").write_text(
            "path,label\n" + "".join(f"{path},{model.predict([path])[0]}\n" for path in (data / "all").iterdir())
        )
        assert run("eval", learned[0], tmp_path / "labels.csv", "--out", tmp_path / "out").exit_code == 0
        assert (tmp_path / "out" / "mistakes.csv").read_text().count("\n") == 1

    def test_new_classes_take_the_place_of_the_old(
        self, learned: tuple[Path, Path], clip: str, short: Path, tmp_path: Path
    ) -> None:
        save_image(tmp_path / "new" / "red car" / "0.png", COLOURS["red car"], 0)
        save_image(tmp_path / "new" / "violet" / "0.png", (150, 30, 200), 1)
        shown = run("eval", learned[0], tmp_path / "new")
        assert shown.exit_code == 0
        assert "was not learned for 1 of the 2 classes ('violet'), so it is applied to the classes" in shown.stdout
        document = run_json("eval", learned[0], tmp_path / "new")
        assert document["classes_of"] == "data" and len(document["classes"]) == 2
        run_json("fit", learned[1], "--backbone", clip, "--config", short, "--csc", "--out", tmp_path / "csc")
        refused = run("eval", tmp_path / "csc", tmp_path / "new")
        assert refused.exit_code == 1
        assert "1 classes that the prompt was not learned for: 'violet'. A class-specific context" in refused.stderr

    def test_reference_checkpoint(self, clip: str, backbone: Backbone, tmp_path: Path) -> None:
        from coopt.methods.reference_checkpoint import load_reference_checkpoint

        data = make_photos(tmp_path / "data", 3)
        arguments = ("eval", REFERENCE, data, "--no-cache")
        assert "`coopt eval` takes the classes from the data" in run(*arguments).stderr
        found = {
            position: run_json(*arguments, "--backbone", clip, "--position", position)
            for position in ("end", "middle", "front")
        }
        dataset = coopt.load_dataset(data, test_fraction=0)
        model = load_reference_checkpoint(REFERENCE, backbone, dataset.class_names)
        expected = evaluate(model, list(dataset.train.paths), list(dataset.train.labels))
        assert found["end"]["accuracy"] == expected.accuracy
        before = coopt.load_backbone(clip).preprocessing
        other = run_json(*arguments, "--backbone", clip, "--preprocess", "reference-2021-09")
        assert other["preprocessing"] == "reference-2021-09"
        assert coopt.load_backbone(clip).preprocessing == before

    def test_precision(
        self, learned: tuple[Path, Path], clip: str, backbone: Backbone, tmp_path: Path, arithmetics: set[str]
    ) -> None:
        data = make_photos(tmp_path / "data", 3)
        prompts = [(learned[0],), (REFERENCE, "--backbone", clip)]
        prompts.append((save_checkpoint(tmp_path, recorded_cocoop()), "--backbone", clip))
        for prompt, *options in prompts:
            for given, name, seen in (((), "fp32", "cpu"), (("--precision", "bf16"), "bf16", "cpu+bf16")):
                arithmetics.clear()
                document = run_json("eval", prompt, data, *options, *given)
                assert (document["precision"], arithmetics) == (name, {seen})

    def test_reference_checkpoint_of_cocoop(self, clip: str, backbone: Backbone, tmp_path: Path) -> None:
        data, prompt = make_photos(tmp_path / "data", 3), save_checkpoint(tmp_path, recorded_cocoop())
        document = run_json("eval", prompt, data, "--no-cache", "--backbone", clip)
        dataset = coopt.load_dataset(data, test_fraction=0)
        model = coopt.load(prompt, backbone=backbone, class_names=dataset.class_names)
        expected = evaluate(model, list(dataset.train.paths), list(dataset.train.labels))
        assert document["accuracy"] == expected.accuracy and document["n"] == 9
        refused = run("eval", prompt, data, "--backbone", clip, "--position", "front")
        assert refused.exit_code == 1 and "is a checkpoint of CoCoOp" in refused.stderr

    def test_position_is_for_reference_checkpoints(self, learned: tuple[Path, Path]) -> None:
        result = run("eval", learned[0], learned[1], "--position", "end")
        assert result.exit_code == 1 and "Leave out --position" in result.stderr


class TestZeroShot:
    def test_it_writes_over_no_learned_prompt(self, learned: tuple[Path, Path], clip: str, tmp_path: Path) -> None:
        before = (learned[0] / "prompt.json").read_bytes()
        refused = run("zero-shot", learned[1], "--backbone", clip, "--out", learned[0])
        assert refused.exit_code == 1
        assert "holds a prompt that was learned (coop). Choose another folder with --out." in refused.stderr
        assert (learned[0] / "prompt.json").read_bytes() == before
        for _ in range(2):  # over its own it does
            assert run("zero-shot", learned[1], "--backbone", clip, "--out", tmp_path / "own").exit_code == 0
        inside = run("zero-shot", learned[1], "--backbone", clip, "--out", learned[1] / "red car")
        assert inside.exit_code == 1 and "is inside of the folder of images" in inside.stderr

    def test_each_template_and_all_together(self, photos: Path, clip: str) -> None:
        templates = ["a photo of a {}.", "art of the {}.", "{} texture."]
        arguments = ["zero-shot", photos, "--backbone", clip]
        for template in templates:
            arguments += ["--template", template]
        document = run_json(*arguments)
        dataset = coopt.load_dataset(photos, test_fraction=0)
        everything = (list(dataset.train.paths), list(dataset.train.labels))
        for row, template in zip(document["templates"], templates, strict=True):
            single = coopt.ZeroShot(clip, templates=template).fit_classes(dataset.class_names)
            assert (row["template"], row["accuracy"]) == (template, pytest.approx(100 * single.score(*everything)))
        together = coopt.ZeroShot(clip, templates=templates).fit_classes(dataset.class_names)
        assert document["accuracy"] == pytest.approx(100 * together.score(*everything))
        shown = run(*arguments).stdout
        assert all(template in shown for template in templates) and "all 3 together" in shown

    def test_default_and_ensemble(self, photos: Path, clip: str) -> None:
        single = run_json("zero-shot", photos, "--backbone", clip)
        assert single["used"] == ["a photo of a {}."] and single["n"] == 18
        assert len(run_json("zero-shot", photos, "--backbone", clip, "--ensemble")["used"]) == 7
        eight = run_json("zero-shot", photos, "--backbone", clip, "--ensemble", "--template", "{} texture.")
        assert eight["used"][0] == "{} texture." and len(eight["used"]) == 8

    def test_saved_it_predicts(self, photos: Path, clip: str, tmp_path: Path) -> None:
        document = run_json("zero-shot", photos, "--backbone", clip, "--ensemble", "--out", tmp_path / "saved")
        assert run_json("eval", tmp_path / "saved", photos)["accuracy"] == document["accuracy"]
        assert run("predict", tmp_path / "saved", photos).exit_code == 0

    def test_precision(self, photos: Path, clip: str, tmp_path: Path, arithmetics: set[str]) -> None:
        given = ("zero-shot", photos, "--backbone", clip)
        assert run_json(*given)["precision"] == "fp32" and arithmetics == {"cpu"}
        arithmetics.clear()
        assert run_json(*given, "--precision", "bf16", "--out", tmp_path / "saved")["precision"] == "bf16"
        assert run_json("eval", tmp_path / "saved", photos)["precision"] == "bf16" and arithmetics == {"cpu+bf16"}

    @pytest.mark.parametrize("template", ["a photo", "{} and {}"])
    def test_bad_template(self, template: str, photos: Path, clip: str) -> None:
        result = run("zero-shot", photos, "--backbone", clip, "--template", template)
        assert result.exit_code == 1
        assert f"A template must hold '{{}}' exactly once, for the class name. Got {template!r}." in result.stderr

    def test_one_class_is_not_enough(self, clip: str, tmp_path: Path) -> None:
        save_image(tmp_path / "one" / "red car" / "0.png", COLOURS["red car"], 0)
        result = run("zero-shot", tmp_path / "one", "--backbone", clip)
        assert result.exit_code == 1 and "at least two classes" in result.stderr


def test_missing_files_of_a_csv_can_be_left_out(learned: tuple[Path, Path], clip: str, tmp_path: Path) -> None:
    image = save_image(tmp_path / "0.png", COLOURS["red car"], 0)
    other = save_image(tmp_path / "1.png", COLOURS["blue sky"], 1)
    (tmp_path / "labels.csv").write_text(f"path,label\n{image},red car\ngone.png,red car\n{other},blue sky\n")
    for arguments in (("eval", learned[0], tmp_path / "labels.csv"), ("zero-shot", tmp_path / "labels.csv")):
        if arguments[0] == "zero-shot":
            arguments = (*arguments, "--backbone", clip)
        assert "gone.png" in run(*arguments).stderr
        document = run_json(*arguments, "--on-bad-image", "skip")
        assert document["n"] == 2
        assert [warning["type"] for warning in document["warnings"]] == ["SkippedImageWarning"]
