"""`coopt.app.compare`: the same images for all, numbers those of the methods themselves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import coopt
from coopt import app, events
from coopt.errors import DataError, ParameterError
from tests.cli.conftest import run, run_json

QUICK = {"n_ctx": 2, "recipe": {"epochs": 2}}


def test_numbers_are_those_of_the_methods(photos: Path, clip: str, capfd: pytest.CaptureFixture[str]) -> None:
    methods = ["zero_shot", "linear_probe", ("coop", QUICK)]
    result = app.compare(photos, backbone=clip, shots=3, seeds=(2,), methods=methods)
    assert capfd.readouterr() == ("", "")
    whole = coopt.load_dataset(photos, seed=2)
    sample = coopt.data.few_shot(whole, 3, 2)
    assert whole.test is not None
    test = (list(whole.test.paths), list(whole.test.labels))
    train = (list(sample.train.paths), list(sample.train.labels))
    expected = [
        coopt.ZeroShot(clip).fit_classes(whole.class_names).score(*test),
        coopt.LinearProbe(clip, seed=2).fit(*train).score(*test),
        coopt.CoOp(clip, seed=2, **QUICK).fit(*train).score(*test),
    ]
    assert [one.summary.mean for one in result.methods if one.summary] == pytest.approx([100 * one for one in expected])
    assert (result.train, result.test) == (9, 3)
    headers, rows = result.table()
    assert headers[:3] == ["On 3 held-out images, %", "accuracy", "95% interval"] and len(rows) == 3
    assert str(result).splitlines()[1].startswith("hand-made prompt ")
    assert result.best.summary is not None and result.best.summary.mean == max(100 * one for one in expected)


def test_of_several_seeds_the_spread_is_told(photos: Path, clip: str) -> None:
    result = app.compare(photos, backbone=clip, shots=2, seeds=(1, 2, 3), methods=["zero_shot", ("coop", QUICK)])
    made, learned = result.methods
    assert len(made.evaluations) == 1 and len(learned.evaluations) == 3
    assert learned.summary is not None and learned.summary.n == 3
    assert result.table()[0][2] == "std over seeds" and result.table()[1][0][2] == ""
    assert learned.title == "learned prompt (n_ctx 2, recipe {'epochs': 2})"
    assert json.loads(json.dumps(result.to_dict()))["methods"][1]["accuracy"] == learned.summary.mean


def test_one_that_fails_does_not_stop_the_others(photos: Path, clip: str) -> None:
    methods = [("coop", {"n_ctx": 99}), "zero_shot"]
    heard: list[events.Event] = []
    with events.listening(heard.append):
        result = app.compare(photos, backbone=clip, methods=methods)
    failed = result.methods[0]
    assert failed.error is not None and failed.summary is None and result.best.method == "zero_shot"
    assert result.table()[1][0][1] == "failed"
    assert [one.kind for one in result.warnings] == ["FailedRuns"] and result.warnings[0] in heard
    with pytest.raises(DataError, match="Every method failed. learned prompt"):
        app.compare(photos, backbone=clip, methods=methods[:1])


def test_what_cannot_be_compared_is_refused_before_anything_is_read() -> None:
    for options, message in (
        ({"methods": ["cop"]}, "There is no method 'cop'. Did you mean coop"),
        ({"methods": [("coop", {"beta": 1})]}, "The method 'coop' has no parameter 'beta'."),
        ({"methods": []}, "give at least one of methods and seeds"),
        ({"n_ctx": 4}, "CompareRequest has no field 'n_ctx'."),
    ):
        with pytest.raises(ParameterError, match=message):
            app.compare("nowhere", **options)  # type: ignore[arg-type]


def test_the_command_says_the_same(photos: Path, clip: str) -> None:
    typed = ("compare", photos, "--backbone", clip, "--shots", 2, "--method", "zero_shot", "--method")
    document = run_json(*typed, "text_bias:recipe=paper")
    assert [one["method"] for one in document["methods"]] == ["zero_shot", "text_bias"]
    assert document["methods"][1]["parameters"] == {"recipe": "paper"}
    said = run(*typed, "text_bias").stdout
    assert "photos: 3 classes, 6 images to learn from, 3 held out." in said
    assert "On 3 held-out images, %   accuracy   95% interval   seconds" in said
    wrong = run(*typed, "coop:n_ctx")
    assert wrong.exit_code == 2 and "'coop:n_ctx' is not NAME or NAME:PARAMETER=VALUE,..." in wrong.stderr
    assert "There is no method 'cop'. Did you mean coop" in run(*typed, "cop").stderr
