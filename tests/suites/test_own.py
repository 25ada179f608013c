"""Suites of one's own: from a file, from another package, and what is found to be wrong with them before anything runs."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import coopt
from coopt import registry
from coopt.errors import CooptError, ParameterError
from coopt.evaluation.execution import Resources
from coopt.evaluation.executors import SerialExecutor
from coopt.evaluation.store import Store
from coopt.methods.registry import METHODS
from coopt.suites import BUNDLED_MODEL, HAND_MADE, Data, Entry, Suite, coop
from coopt.suites.checks import check_grid, check_suite
from coopt.suites.datasets import datasets_of
from coopt.suites.grid import grid_of
from coopt.suites.known import find_suite, known_suites
from tests.cli.conftest import run, run_json

OWN = """
from coopt.methods.registry import METHODS
from coopt.suites import BUNDLED_MODEL, HAND_MADE, Data, Entry, Suite

SUITE = Suite(
    name="mine",
    title="Mine",
    paper="nowhere",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=(Data("photos", title="My photos", template="a {} photo."), "bundled:wallpaper"),
    entries=(HAND_MADE, Entry("CoOp", "coop", {"n_ctx": 2, "recipe": {"name": "fast", "epochs": 2}})),
    columns="datasets",
    shots=(1,),
    seeds=(1,),
    cost="nothing",
)
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with mine.py and photos, as the current one."""
    for name, colour in (("red", 0), ("blue", 2)):
        for i in range(5):
            pixels = np.full((32, 32, 3), 10 * i, np.uint8)
            pixels[..., colour] = 200
            file = tmp_path / "photos" / name / f"{i}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_file_is_listed_planned_run_and_shown(here: Path) -> None:
    assert run_json("suite", "list", "./mine.py")["suites"][-1]["name"] == "mine"
    dry = run_json("suite", "run", "./mine.py", "--dry-run")
    assert dry["suite"] == "mine" and len(dry["to_do"]) == 4 and not (here / "results").exists()
    said = run("suite", "run", "./mine.py")
    assert said.exit_code == 0, said.stderr
    assert said.stdout.startswith("mine: Mine. 4 runs; their files are in 'results/mine'.")
    assert said.stdout.rstrip().endswith("coopt suite show ./mine.py --out results")
    assert sorted(file.name for file in (here / "results" / "mine").iterdir()) == [
        "bundled.photos.coop.1-shot.seed-1.json",
        "bundled.photos.hand-made-prompt.json",
        "bundled.wallpaper.coop.1-shot.seed-1.json",
        "bundled.wallpaper.hand-made-prompt.json",
    ]
    shown = run("suite", "show", "./mine.py").stdout
    assert "4 of 4 runs are there." in shown and "My photos" in shown and "wallpaper" in shown
    (table,) = run_json("suite", "show", "./mine.py")["suites"]
    assert table["columns"] == ["average", "photos", "wallpaper"]
    assert json.loads(run("suite", "run", "mine.py", "--json", "--only", "photos").stdout)["done"] == []
    packed = run_json("suite", "pack", "./mine.py")["suites"][0]
    assert packed["packed"] == 4 and len(run_json("suite", "run", "./mine.py", "--dry-run")["complete"]) == 4
    result = coopt.app.run_suite(here / "mine.py", out="results", jobs=2)
    assert len(result.outcome.complete) == 4 and result.to_dict()["done"] == []


def test_numbers_are_those_of_the_data_and_the_prompt_it_names(here: Path) -> None:
    suite = find_suite("mine.py")
    job = grid_of(suite, datasets_of(suite), ["photos", "hand-made prompt"]).jobs()[0]
    assert job.parameters == {"templates": "a {} photo."} and job.dataset.source == "photos"
    problem = Resources().problem(job)
    assert problem.class_names == ("blue", "red") and problem.dataset.name == "photos"


def test_methods_that_the_file_makes_known_are_there_in_every_process(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(METHODS, "_registered", {})
    (here / "mine.py").write_text(
        OWN.replace('"coop",', '"mine",')
        + "\nfrom coopt.methods.registry import METHODS\nfrom coopt.methods.coop import CoOp\n"
        + "@METHODS.register('mine')\nclass Mine(CoOp):\n    method = 'mine'\n"
    )
    result = run("suite", "run", "./mine.py", "--only", "wallpaper", "--jobs", "2")
    assert result.exit_code == 0, result.stderr
    assert "2 runs done in" in result.stdout


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "There is no file 'mine.py'. Expected a Python file that defines SUITE"),
        ("x = 1\ny = (", r"'mine.py' is not Python \(line 2\): '\(' was never closed"),
        ("x = 1\n\nunknown\n", "'mine.py' stopped at line 3: NameError: name 'unknown' is not defined"),
        ("import nowhere\n", "'mine.py' stopped at line 1: ModuleNotFoundError: No module named 'nowhere'"),
        ("suite = 1\n", r"'mine.py' defines no SUITE. Expected SUITE = coopt.suites.Suite\(...\)"),
        ("SUITE = {}\n", "The SUITE of 'mine.py' is a dict. Expected a coopt.suites.Suite"),
        (OWN.replace('name="mine"', 'name="../mine"'), "The name of a suite must be made of letters"),
        (OWN.replace('name="mine"', 'name="mini-words"'), "is called 'mini-words', as another one that is known"),
        (OWN.replace('"n_ctx": 2', '"n_ctx": 0'), r"The method 'CoOp' of the suite mine: .*n_ctx.* must be .* Got 0"),
        (OWN.replace('"n_ctx": 2', '"nctx": 2'), "The method 'CoOp' of the suite mine: .*nctx"),
        (OWN.replace('"coop"', '"coup"'), "The method 'CoOp' of the suite mine: This coopt has no method 'coup'"),
        (OWN.replace('"epochs": 2', '"epochs": 0'), "The method 'CoOp' of the suite mine: .*epochs"),
        (OWN.replace('"few-shot"', '"one-shot"'), "The protocol of the suite mine must be one of 'few-shot'"),
        (OWN.replace("bundled:wallpaper", "bundled:wallpapers"), "There is no bundled data set 'wallpapers'. Did you"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_with_a_file_is_said_before_anything_runs(here: Path, text: str | None, message: str) -> None:
    (here / "mine.py").unlink()
    if text is not None:
        (here / "mine.py").write_text(text)
    with pytest.raises(CooptError, match=message):
        coopt.app.run_suite("mine.py")
    assert not (here / "results").exists()
    assert run("suite", "run", "mine.py").exit_code == 1


def test_the_line_of_an_error_is_that_of_the_file(here: Path) -> None:
    """Also where the error arises in a function that it calls."""
    (here / "mine.py").write_text("import json\n\njson.loads('{')\n")
    with pytest.raises(ParameterError, match="'mine.py' stopped at line 3: JSONDecodeError"):
        find_suite("mine.py")


SOUND = Suite(
    name="sound",
    title="",
    paper="",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=("bundled:wallpaper",),
    entries=(HAND_MADE, coop("CoOp", "fast")),
    columns="shots",
    cost="",
)


ALL_OF_THEM = "all"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": "rows"}, "The columns of the suite sound must be one of 'shots', "),
        ({"derived": "harmonic"}, "'harmonic' of the suite sound is for the protocols base-to-new"),
        ({"entries": ()}, "has no methods"),
        ({"models": ()}, "has no backbones"),
        ({"entries": (HAND_MADE, coop("Hand made: prompt"))}, "Two methods of the suite sound .* 'hand-made-prompt'"),
        ({"entries": ALL_OF_THEM}, "The sampling of 'x' of the suite sound must be one of"),
        ({"entries": (Entry("x", "coop", {}, "none"),)}, "coop learns from images"),
        ({"datasets": ()}, "has no data sets"),
        ({"datasets": ("a/photos", Data("b/photos"))}, "Two data sets of the suite sound have the same name, 'photos'"),
    ],
)
@pytest.mark.usefixtures("unchecked")
def test_what_is_wrong_with_a_suite(change: dict[str, Any], message: str) -> None:
    if change.get("entries") == ALL_OF_THEM:
        change = {"entries": (Entry("x", "coop", {}, "all"),)}  # type: ignore[arg-type]
    suite = replace(SOUND, **change)
    with pytest.raises(ParameterError, match=message):
        check_suite(suite)
        check_grid(grid_of(suite, datasets_of(suite)))


@pytest.mark.parametrize("name", [suite.name for suite in known_suites()])
def test_known_suites_are_sound(name: str) -> None:
    suite = find_suite(name)
    check_suite(suite)
    check_grid(grid_of(suite, datasets_of(suite)))


class Theirs(coopt.CoOp):
    """A method of another package."""

    method = "theirs"


def test_methods_of_other_packages(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    points = {"theirs": [EntryPoint("theirs", "tests.suites.test_own:Theirs", "coopt.methods")]}
    monkeypatch.setattr(registry, "_announced", lambda group: points if group == "coopt.methods" else {})
    parameters = {"n_ctx": 2, "recipe": {"name": "fast", "epochs": 2}}
    suite = replace(SOUND, entries=(Entry("Theirs", "theirs", parameters), Entry("CoOp", "coop", parameters)))
    jobs = grid_of(suite, datasets_of(suite), shots=[1], seeds=[1]).jobs()
    outcome = SerialExecutor(Resources()).run(jobs, Store(tmp_path, "sound"))
    assert outcome.done == [job.name for job in jobs]
    theirs, ours = (Store(tmp_path, "sound").read(job.name).result for job in jobs)
    assert (theirs.setting.estimator, ours.setting.estimator) == ("theirs", "coop")
    assert theirs.scores == ours.scores and theirs.setting.parameters == ours.setting.parameters
    with pytest.raises(ParameterError, match="The method 'Theirs' of the suite sound: .*n_ctx"):
        wrong = replace(suite, entries=(Entry("Theirs", "theirs", {"n_ctx": -1}),))
        check_grid(grid_of(wrong, datasets_of(wrong)))


def test_suites_of_other_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    def announced(name: str, value: str) -> None:
        points = {name: [EntryPoint(name, value, "coopt.suites")]}
        monkeypatch.setattr(registry, "_announced", lambda group: points if group == "coopt.suites" else {})

    announced("sound", "tests.suites.test_own:SOUND")
    assert find_suite("sound") == SOUND and known_suites()[-1] == SOUND
    assert "sound" in run("suite", "list").stdout
    announced("other", "tests.suites.test_own:SOUND")
    with pytest.raises(ParameterError, match="The suite 'other' calls itself 'sound'"):
        find_suite("other")
    announced("text", "tests.suites.test_own:OWN")
    with pytest.raises(ParameterError, match="The suite 'text' is a str"):
        find_suite("text")
    announced("broken", "tests.suites.nowhere:SUITE")
    with pytest.raises(CooptError, match="The suite 'broken' of the package .* cannot be loaded from"):
        find_suite("broken")
