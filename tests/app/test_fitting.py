"""`coopt.app.fit` and `evaluate`: what the commands do, told as events and given as results."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

import coopt
from coopt import app, events
from coopt.app.fitting import DataRead, most_epochs
from coopt.data import Split
from coopt.errors import DataError, Interrupted, InUseError, ParameterError, SavedFileError
from coopt.evaluation.runs import RunResult, Score, Setting
from coopt.events import Event, Progress, Said
from coopt.training.recipe import FAST
from tests.cli.conftest import COLOURS, run, run_json

SHORT: dict[str, Any] = {"n_ctx": 2, "recipe": {"name": "fast", "epochs": 8, "views": 2, "lr": 0.02}}


def test_it_is_what_the_command_does(
    photos: Path, short: Path, clip: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    by_command = run_json("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "command")
    capfd.readouterr()
    heard: list[Event] = []
    with events.listening(heard.append):
        result = app.fit(photos, out=tmp_path / "call", backbone=clip, **SHORT)
    assert capfd.readouterr() == ("", "")
    for name in ("prompt.json", "prompt.safetensors"):
        assert (tmp_path / "call" / name).read_bytes() == (tmp_path / "command" / name).read_bytes()
    document = json.loads((tmp_path / "call" / "result.json").read_text())
    assert json.loads(json.dumps(result.to_dict())) == {k: v for k, v in document.items() if k != "identity"}
    differs = {"command", "seconds", "peak_memory_bytes", "out"}
    assert {k: v for k, v in document.items() if k not in {*differs, "identity"}} == {
        k: v for k, v in by_command.items() if k not in differs
    }
    assert eval(result.command, {"coopt": coopt}).settings == result.settings  # it is there already
    assert result.accuracy == document["metrics"]["learned"]["accuracy"]
    assert result.estimator.class_names_ == tuple(sorted(COLOURS)) == result.class_names
    assert {type(event) for event in heard} >= {DataRead, Progress}
    assert str(heard[0]).startswith("photos: 3 classes, 15 images to learn from, 3 held out.\nThere is no test part")
    losses = [event for event in heard if isinstance(event, Progress) and event.doing == "learning"]
    assert [event.done for event in losses] == [*range(9), 8] and "loss" in losses[-2].note


def test_the_configuration_that_it_leaves_is_the_commands(photos: Path, clip: str, tmp_path: Path) -> None:
    more = {"finetune": True, "beta": 2.0}
    app.fit(photos, out=tmp_path / "out", method="tip_adapter", backbone=clip, shots=2, **more)
    config = yaml.safe_load((tmp_path / "out" / "config.yaml").read_text())
    assert config["set"] == ["finetune=true", "beta=2.0"] and config["method"] == "tip_adapter"
    prompt = (tmp_path / "out" / "prompt.safetensors").read_bytes()
    assert run("fit", "--config", tmp_path / "out" / "config.yaml", "--overwrite").exit_code == 0
    assert (tmp_path / "out" / "prompt.safetensors").read_bytes() == prompt


def test_stopped_it_says_what_is_kept_and_goes_on(photos: Path, clip: str, tmp_path: Path) -> None:
    request = app.FitRequest.of(data=photos, out=tmp_path / "out", backbone=clip, parameters=SHORT)
    undisturbed = app.fit(request, out=tmp_path / "undisturbed")

    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.doing == "learning" and event.done == 5:
            raise KeyboardInterrupt

    again = "epochs saved in .* Make the same call to go on:\n  coopt.app.fit"
    with pytest.raises(Interrupted, match=f"5 of 8 {again}"), events.listening(stop):
        app.fit(request)
    heard: list[Event] = []
    with events.listening(heard.append):
        resumed = app.fit(request)
    assert Said("Going on after epoch 5 of 8, where an earlier run stopped.") in heard
    first, second = (one.out / "prompt.safetensors" for one in (undisturbed, resumed))
    assert first.read_bytes() == second.read_bytes()


def test_errors_speak_python(photos: Path, clip: str, tmp_path: Path) -> None:
    for options, message in (
        ({"n_ctx": 0}, "The 'n_ctx' parameter of CoOp must be an int >= 1. Got 0 instead."),
        ({"nctx": 4}, "The method 'coop' has no parameter 'nctx'. Did you mean n_ctx?"),
        ({"method": "linear_probe", "csc": True}, "The method 'linear_probe' has no parameter 'csc'."),
        ({"method": "cop"}, "There is no method 'cop' that learns from images. Did you mean coop"),
        ({"method": "zero_shot"}, "There is no method 'zero_shot' that learns from images."),
        ({"method": "linear_probe", "text_path": "fast"}, "The method 'linear_probe' has no text_path."),
    ):
        with pytest.raises(ParameterError) as refused:
            app.fit(photos, out=tmp_path / "out", backbone=clip, **options)
        assert message in str(refused.value)
    app.fit(photos, out=tmp_path / "out", backbone=clip, **SHORT)
    with pytest.raises(SavedFileError, match="Choose another folder with out, or add overwrite=True to replace it."):
        app.fit(photos, out=tmp_path / "out", backbone=clip, **SHORT, seed=2)
    with pytest.raises(SavedFileError, match="Choose a folder outside of it, such as out='"):
        app.fit(photos, out=photos / "x", backbone=clip)


def test_the_result_can_be_pickled_and_used(photos: Path, clip: str, tmp_path: Path) -> None:
    result = app.fit(photos, out=tmp_path / "out", backbone=clip, **SHORT)
    again = pickle.loads(pickle.dumps(result))
    assert again == result and again.to_dict() == result.to_dict()
    found = app.evaluate(tmp_path / "out", photos)
    assert result.measured is not None
    assert found.evaluation == result.measured.learned and found.accuracy == result.accuracy
    assert json.loads(json.dumps(found.to_dict())) == run_json("eval", tmp_path / "out", photos)


def test_warnings_are_in_the_result_and_each_is_said_once(clip: str, tmp_path: Path, photos: Path) -> None:
    copy = photos / "red car" / "7.png"
    copy.write_bytes((photos / "red car" / "0.png").read_bytes())
    (photos / "blue sky" / "bad.png").write_bytes(b"junk")
    with pytest.raises(DataError, match="is not an image"):
        app.fit(photos, out=tmp_path / "out", backbone=clip, **SHORT)
    heard: list[Event] = []
    with events.listening(heard.append):
        result = app.fit(photos, out=tmp_path / "out", backbone=clip, on_bad_image="skip", shots=50, **SHORT)
    kinds = [one.kind for one in result.warnings]
    assert "FewShotsWarning" in kinds and len(set(result.warnings)) == len(kinds)
    assert [event for event in heard if isinstance(event, events.Warned)] == list(result.warnings)
    with pytest.warns(coopt.errors.FewShotsWarning):  # where nobody listens, Python shows them
        app.fit(photos, out=tmp_path / "other", backbone=clip, on_bad_image="skip", shots=50, **SHORT)


def test_hand_made_prompts(photos: Path, clip: str, tmp_path: Path) -> None:
    found = app.zero_shot(photos, backbone=clip, templates=["a {}.", "the {}."], out=tmp_path / "out")
    assert [name for name, _ in found.templates] == ["a {}.", "the {}."]
    typed = ("--template", "a {}.", "--template", "the {}.", "--out", tmp_path / "out")
    assert json.loads(json.dumps(found.to_dict())) == run_json("zero-shot", photos, "--backbone", clip, *typed)
    with pytest.raises(
        ParameterError, match=r"photos has no hand-made prompt of its own. Write one, such as templates="
    ):
        app.zero_shot(photos, backbone=clip, templates="dataset")


def test_two_writers_of_one_folder(photos: Path, clip: str, tmp_path: Path) -> None:
    from coopt.locks import writing_folder

    def second(event: Event) -> None:
        if isinstance(event, Progress) and event.doing == "learning":
            with writing_folder(tmp_path / "out"):  # this process may ask again
                raise KeyboardInterrupt

    with pytest.raises(Interrupted), events.listening(second):
        app.fit(photos, out=tmp_path / "out", backbone=clip, **SHORT)
    assert not (tmp_path / "out" / ".coopt.lock").exists()
    assert issubclass(InUseError, SavedFileError)


@pytest.mark.parametrize(
    ("images", "changes", "most"),
    [
        (99, {}, (16, "")),
        (100, {"least_classes": 3}, (16, "")),
        (100, {}, (46, "at most ")),
        (100, {"lbfgs": None}, (16, "")),
        (100, {"views": 0}, (16, "")),
        (100, {"steps": 20}, (20, "at most ")),
        (100, {"steps": 9}, (9, "")),
        (99, {"seconds": 60.0}, (16, "at most ")),
        (100_000, {}, (144, "at most ")),
    ],
)
def test_how_many_epochs_there_are_at_most(images: int, changes: dict[str, Any], most: tuple[int, str]) -> None:
    train = Split(tuple(Path(f"{i}.png") for i in range(images)), tuple("ab"[i % 2] for i in range(images)))
    assert most_epochs(replace(FAST, **{"least_classes": 2, **changes}), train) == most


def test_records_of_runs_from_before_learning_was_noted(tmp_path: Path) -> None:
    setting = Setting("few-shot", "CoOp", "coop", {}, "few-shot", "b", "p", "d", "h", {"test": "t"}, 1, 1)
    now = RunResult(
        setting, {"test": Score(50.0, 50.0, 50.0, 2)}, 14, 0.5, text_passes=46.5, stopped="the time is over"
    )
    document = now.to_dict()
    assert RunResult.from_dict(document) == now
    before = {name: value for name, value in document.items() if name not in ("text_passes", "stopped")}
    read = RunResult.from_dict(before)
    assert (read.text_passes, read.stopped, read.run) == (None, None, now.run) and read.to_dict() == before
