"""`coopt.compare` and `method="auto"`: every image predicted once by what was learned from others, and what is made of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import coopt
from coopt import app, events
from coopt.app import comparing
from coopt.app.comparing import CompareResult
from coopt.app.cross_validation import LATE, CrossValidation
from coopt.data.leakage import groups_that_show_the_same
from coopt.errors import DataError, Interrupted, ParameterError, SavedFileError
from coopt.evaluation.folds import folds_of, groups_that_look_alike
from tests.cli.conftest import make_photos, run, run_json, save_image

QUICK = {"n_ctx": 2, "recipe": {"epochs": 2}}
METHODS = ["zero_shot", "gda", ("coop", QUICK)]


@pytest.fixture(scope="module")
def same_photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images in each of three classes."""
    return make_photos(tmp_path_factory.mktemp("data") / "photos")


@pytest.fixture(scope="module")
def result(same_photos: Path, clip: str) -> CompareResult:
    return coopt.compare(same_photos, backbone=clip, methods=METHODS, seed=2)


def test_every_image_is_predicted_by_what_was_learned_from_others(
    result: CompareResult, same_photos: Path, clip: str
) -> None:
    whole = coopt.load_dataset(same_photos, test_fraction=0)
    paths, labels, names = list(whole.train.paths), list(whole.train.labels), whole.class_names
    features = coopt.ZeroShot(clip).fit_classes(names).image_features(paths).features[0].numpy()
    groups = groups_that_look_alike(features, labels, 3, groups_that_show_the_same(paths))
    folds = folds_of(labels, 3, 2, groups)
    for line, make in zip(
        result.methods,
        (lambda: coopt.ZeroShot(clip), lambda: coopt.GDA(clip, seed=2), lambda: coopt.CoOp(clip, seed=2, **QUICK)),
        strict=True,
    ):
        hits, probabilities = np.zeros(len(paths), bool), np.zeros(len(paths))
        for fold in range(3):
            learn, out = np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)
            fitted = (
                make().set_params(class_names=list(names)).fit([paths[i] for i in learn], [labels[i] for i in learn])
            )
            given = fitted.predict_proba([paths[i] for i in out])
            true = [names.index(labels[i]) for i in out]
            hits[out], probabilities[out] = given.argmax(axis=1) == true, given[np.arange(len(out)), true]
        assert np.array_equal(hits[folds >= 0], line.hits)
        assert probabilities[folds >= 0] == pytest.approx(np.array(line.probabilities), abs=2e-6)
        assert line.accuracy == pytest.approx(100 * np.mean(line.hits))
    assert (result.images, result.predicted) == (18, int((folds >= 0).sum()))


def test_the_table_says_what_is_to_be_known(result: CompareResult) -> None:
    headers, rows = result.table()
    assert headers[1:] == ["accuracy", "95% interval", "beside the best", "seconds", "size", "memory", "new classes"]
    assert [row[1] for row in rows] == [
        f"{a:.1f}" for a in sorted((one.accuracy for one in result.methods), reverse=True)
    ]
    made, gda, coop = result.methods
    assert (made.seconds, made.memory, gda.memory) == (0.0, 0, 0) and coop.memory > 0
    assert all(one.bytes > 100 and one.new_classes for one in result.methods)
    assert (made.text, gda.text, coop.text) == (False, False, True)
    assert result.best.title in str(result) and result.sentences()[-1].startswith("Taken: ")
    document = json.loads(json.dumps(result.to_dict()))
    assert document["best"]["method"] == result.best.method and document["methods"][2]["parameters"] == QUICK
    assert "| --- | ---: |" in result.markdown() and result.command in result.markdown()


def test_the_hand_made_prompt_is_always_among_them_and_one_that_fails_does_not_stop_the_others(
    photos: Path, clip: str
) -> None:
    heard: list[events.Event] = []
    with events.listening(heard.append):
        result = coopt.compare(photos, backbone=clip, methods=[("coop", {"n_ctx": 99}), "gda"])
    made, gda, failed = result.methods  # what costs little comes first
    assert (made.method, gda.method, failed.method) == ("zero_shot", "gda", "coop")
    assert failed.error is not None and "99" in failed.error and not failed.hits
    assert result.table()[1][-1][:2] == [failed.title, "failed"]
    assert [one.kind for one in result.warnings] == ["FailedRuns"] and result.warnings[0] in heard
    with pytest.raises(DataError, match="hand-made prompt .* failed, with which all others are compared"):
        coopt.compare(photos, backbone=clip, methods=[("zero_shot", {"templates": "a photo of a {} " + "and " * 99})])


def test_what_cannot_be_compared_is_refused_before_anything_is_read(photos: Path, clip: str) -> None:
    for options, message in (
        ({"methods": ["cop"]}, "There is no method 'cop'. Did you mean coop"),
        ({"methods": [("coop", {"beta": 1})]}, "The method 'coop' has no parameter 'beta'."),
        ({"methods": []}, "give at least one of methods"),
        ({"methods": ["coop", ("coop", {})]}, "The method 'coop' is named twice with the same parameters"),
        ({"folds": 1}, "The 'folds' parameter must be an int >= 2. Got 1"),
        ({"budget": 0}, "The 'budget' parameter must be above 0 seconds. Got 0"),
        ({"n_ctx": 4}, "CompareRequest has no field 'n_ctx'."),
    ):
        with pytest.raises(ParameterError, match=message):
            coopt.compare("nowhere", **options)
    with pytest.raises(DataError, match="No class of photos has two different images"):
        coopt.compare(photos, backbone=clip, shots=1, methods=["gda"])


def test_a_picture_and_its_copies_are_held_out_together(photos: Path, clip: str, tmp_path: Path) -> None:
    for name in ("one", "two"):
        for i in range(4):
            save_image(tmp_path / "data" / name / f"{i}.png", (200, 40, 40) if name == "one" else (50, 80, 210), i // 2)
    dataset = coopt.load_dataset(tmp_path / "data", test_fraction=0)
    request = app.CompareRequest(tmp_path / "data")
    validation = CrossValidation(
        request, coopt.load_backbone(clip), dataset, None, coopt.FeatureCache(tmp_path / "cache")
    )
    folds = validation.folds.tolist()
    assert [folds[0], folds[2]] == [folds[1], folds[3]] and folds[0] != folds[2]
    (tmp_path / "data" / "one" / "2.png").unlink()
    (tmp_path / "data" / "one" / "3.png").unlink()
    less = coopt.load_dataset(tmp_path / "data", test_fraction=0)
    validation = CrossValidation(request, coopt.load_backbone(clip), less, None, coopt.FeatureCache(tmp_path / "cache"))
    assert validation.folds.tolist()[:2] == [-1, -1]  # the class has one picture, twice


def test_what_is_not_finished_within_the_budget_is_left_out(photos: Path, clip: str) -> None:
    result = coopt.compare(photos, backbone=clip, methods=METHODS, budget=1e-9)
    assert [one.error for one in result.methods] == [None, LATE, LATE]
    assert result.best.method == "zero_shot" and result.runner_up is None
    assert (
        result.sentences()[-1]
        == f"Not finished within the budget: {', '.join(one.title for one in result.methods[1:])}."
    )
    assert [row[1] for row in result.table()[1]][1:] == ["late", "late"]


def test_learning_that_has_begun_is_stopped_at_the_budget(
    photos: Path, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The clock passes the budget at the third epoch of the first fold."""
    from coopt.app import cross_validation

    now, epochs = [0.0], []

    class Clock:
        @staticmethod
        def monotonic() -> float:
            return now[0]

    def look(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.doing == "learning":
            epochs.append(event.done)
            now[0] = 99.0 if event.done >= 3 else 1.0

    monkeypatch.setattr(cross_validation, "time", Clock)
    with events.listening(look):
        result = coopt.compare(
            photos, backbone=clip, methods=[("coop", {"n_ctx": 2, "recipe": {"epochs": 9, "steps": 9}})], budget=50
        )
    assert result.methods[1].error == LATE and max(epochs) == 3


def test_a_comparison_is_kept_and_goes_on(
    photos: Path, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "compared"

    def stop(event: events.Event) -> None:
        if isinstance(event, events.Progress) and event.doing == "comparing" and event.done == 2:
            raise KeyboardInterrupt

    given: dict[str, Any] = {"backbone": clip, "methods": METHODS, "out": out}
    kept = "2 of 3 methods done, and kept in '.*compared'. Make the same call to go on"
    with pytest.raises(Interrupted, match=kept), events.listening(stop):
        coopt.compare(photos, **given)
    learned: list[str] = []
    original = CrossValidation._measured

    def measured(self: CrossValidation, line: Any, *rest: Any) -> Any:
        learned.append(line.method)
        return original(self, line, *rest)

    monkeypatch.setattr(CrossValidation, "_measured", measured)
    result = coopt.compare(photos, **given)
    assert learned == ["coop"] and len(result.methods) == 3
    assert {one.name for one in out.iterdir()} == {"comparison.json", "comparison.md", "comparison.png"}
    assert (out / "comparison.md").read_text() == result.markdown()
    again = coopt.compare(photos, **given)
    assert learned == ["coop"] and again.methods == result.methods
    with pytest.raises(SavedFileError, match=r"holds a comparison with other settings \(folds\)"):
        coopt.compare(photos, **given, folds=2)
    assert coopt.compare(photos, **given, folds=2, overwrite=True).folds == 2
    (out / "comparison.json").write_text("{")
    with pytest.raises(SavedFileError, match=r"\(it is not whole\)"):
        coopt.compare(photos, **given)


def test_without_the_cache_images_are_encoded_once_all_the_same(
    photos: Path, clip: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, encoded = coopt.load_backbone(clip), []
    original = type(backbone).encode_image
    monkeypatch.setattr(comparing, "load_backbone", lambda *_: backbone)
    monkeypatch.setattr(
        type(backbone), "encode_image", lambda self, pixels: encoded.append(len(pixels)) or original(self, pixels)
    )
    coopt.compare(photos, backbone=clip, methods=["gda", "tip_adapter"], cache=False)
    assert len(encoded) == 1  # all of them in one batch


def test_descriptions_go_to_the_methods_that_take_them(photos: Path, clip: str, tmp_path: Path) -> None:
    texts = tmp_path / "texts.json"
    texts.write_text(
        json.dumps({"red car": ["A fast one."], "blue sky": ["Air above."], "green_leaf": ["Part of a tree."]})
    )
    out = tmp_path / "out"
    plain = coopt.compare(photos, backbone=clip, methods=["gda", "linear_probe"], out=out)
    with pytest.raises(SavedFileError, match="descriptions"):
        coopt.compare(photos, backbone=clip, methods=["gda", "linear_probe"], descriptions=texts, out=out)
    described = coopt.compare(photos, backbone=clip, methods=["gda", "linear_probe"], descriptions=texts)
    assert described.methods[0].probabilities != plain.methods[0].probabilities
    assert described.methods[1].probabilities != plain.methods[1].probabilities
    assert described.methods[2].probabilities == plain.methods[2].probabilities  # a linear probe reads no words


def test_the_command_says_the_same(photos: Path, clip: str, tmp_path: Path) -> None:
    typed = ("compare", photos, "--backbone", clip, "--shots", 3, "--folds", 2, "--method", "gda", "--method")
    document = run_json(*typed, "text_bias:recipe=paper")
    assert [one["method"] for one in document["methods"]] == ["zero_shot", "gda", "text_bias"]
    assert document["methods"][2]["parameters"] == {"recipe": "paper"} and document["folds"] == 2
    said = run(*typed, "text_bias", "--out", tmp_path / "out", "--budget", "5m").stdout
    assert "photos: 3 classes, 9 images." in said and "On 9 images held out, %" in said
    assert "Taken: " in said and f"Saved to '{tmp_path / 'out'}'." in said
    wrong = run(*typed, "coop:n_ctx")
    assert wrong.exit_code == 2 and "'coop:n_ctx' is not NAME or NAME:PARAMETER=VALUE,..." in wrong.stderr
    assert "There is no method 'cop'. Did you mean coop" in run(*typed, "cop").stderr


AUTO: dict[str, Any] = {"method": "auto", "methods": METHODS, "folds": 2, "test_fraction": 0.34}


def test_auto_learns_with_the_method_that_a_comparison_takes(photos: Path, clip: str, tmp_path: Path) -> None:
    heard: list[events.Event] = []
    with events.listening(heard.append):
        result = app.fit(photos, backbone=clip, out=tmp_path / "out", **AUTO)
    compared = result.compared
    assert (
        compared is not None and compared.images == 12 and compared.predicted <= 12
    )  # the held-out images are not looked at
    assert result.method == compared.best.method
    assert any(isinstance(one, app.Compared) and one.result is not None for one in heard)
    saved = json.loads((tmp_path / "out" / "result.json").read_text())
    assert saved["compared"]["best"]["method"] == result.method and saved["method"] == result.method
    assert yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())["method"] == "auto"
    named = app.fit(
        photos,
        backbone=clip,
        out=tmp_path / "named",
        test_fraction=0.34,
        method=result.method,
        **dict(compared.best.parameters),
    )
    assert named.accuracy == result.accuracy
    again = run_json("fit", "--config", tmp_path / "out" / "config.yaml")
    assert again["method"] == result.method and again["metrics"] == saved["metrics"]


def test_auto_saves_the_hand_made_prompt_where_nothing_is_better(photos: Path, clip: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    typed = ("fit", photos, "--backbone", clip, "--method", "auto", "--budget", "0.000001", "--out", out)
    said = run(*typed)
    assert said.exit_code == 0, said.stderr
    assert "Taken: hand-made prompt." in said.stdout and "Not finished within the budget" in said.stdout
    assert json.loads((out / "result.json").read_text())["method"] == "zero_shot"
    assert coopt.load(out).class_names_ == ("blue sky", "green_leaf", "red car")
    predicted = run_json("predict", out, photos / "red car" / "0.png")
    assert predicted["predictions"]


def test_auto_without_two_images_of_a_class_learns_as_usual(photos: Path, clip: str, tmp_path: Path) -> None:
    heard: list[str] = []
    with events.listening(lambda event: heard.append(str(event))):
        result = app.fit(photos, backbone=clip, out=tmp_path / "out", method="auto", shots=1)
    assert result.method == "coop" and result.compared is None
    assert any("No class has two different images, so methods cannot be compared: coop learns" in one for one in heard)


def test_auto_takes_no_parameters_of_methods(photos: Path, clip: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="The method 'auto' has no parameter 'n_ctx': it chooses a method"):
        app.fit(photos, backbone=clip, out=tmp_path / "out", method="auto", n_ctx=4)
    refused = run("fit", photos, "--backbone", clip, "--method", "auto", "--n-ctx", 4)
    assert refused.exit_code == 1 and "The method 'auto' has no --n-ctx." in refused.stderr
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "prompt.json").write_text("{}")
    with pytest.raises(SavedFileError, match="holds a prompt with other settings"):
        app.fit(photos, backbone=clip, out=tmp_path / "out", method="auto")
