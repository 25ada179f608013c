"""`coopt demo`: the whole of it on one small bundled data set, its files, its numbers, and how it is stopped."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from PIL import Image

import coopt
from coopt.cli import main
from coopt.cli.demo import IntList
from coopt.data import few_shot
from coopt.data.bundled import bundled_datasets, find_bundled, hard_datasets
from coopt.suites import demo as suites_demo
from coopt.training.recipe import RECIPES, Recipe

NAME = "wallpaper"
SMALL = ["--shots", "1,2", "--seeds", "1,2", "--n-ctx", "2"]


@pytest.fixture(scope="module", autouse=True)
def _short_recipe() -> Iterator[None]:
    """Names must be real recipes on the command line, so the real one is made short."""
    fast = RECIPES["fast"]
    RECIPES["fast"] = Recipe(name="fast", epochs=4, views=2)
    yield
    RECIPES["fast"] = fast


def demo(out: Path, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["demo", "--out", str(out), *SMALL, *arguments])


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("demo") / "out"
    return out, demo(out, "--data", NAME, "--data", "sizes", "--data", NAME)


def test_numbers_are_those_of_the_estimators(ran: tuple[Path, Result]) -> None:
    out, result = ran
    assert result.exit_code == 0, result.output
    document = json.loads((out / "results.json").read_text())
    found = {(r["dataset"], r["method"], r["shots"], r["seed"]): r["accuracy"] for r in document["results"]}
    assert len(found) == len(document["results"]) == 2 * (3 + 2 * 2 * 2)
    described = find_bundled(NAME)
    dataset = described.load()
    assert dataset.test is not None
    test = (list(dataset.test.paths), list(dataset.test.labels))
    hand = coopt.ZeroShot(templates=described.template).fit_classes(described.class_names)
    assert found[NAME, "hand-made prompt", 0, None] == pytest.approx(100 * hand.score(*test))
    sample = few_shot(dataset, 2, 1).train
    learned = coopt.CoOp(n_ctx=2, seed=1, class_names=described.class_names)
    learned.fit(list(sample.paths), list(sample.labels))
    assert found[NAME, "CoOp", 2, 1] == pytest.approx(100 * learned.score(*test))

    average = next(s for s in document["summary"] if (s["dataset"], s["method"], s["shots"]) == ("average", "CoOp", 2))
    per_seed = [sum(found[name, "CoOp", 2, seed] for name in (NAME, "sizes")) / 2 for seed in (1, 2)]
    assert average["mean"] == pytest.approx(sum(per_seed) / 2)
    assert f"{average['mean']:.1f}" in result.stdout


def test_everything_to_do_it_again_is_written(ran: tuple[Path, Result]) -> None:
    out, _ = ran
    document = json.loads((out / "results.json").read_text())
    setup = document["setup"]
    assert setup["versions"]["coopt"] == coopt.__version__ and "torch" in setup["versions"]
    assert setup["backbone"]["fingerprint"] == coopt.load_backbone("bundled").fingerprint
    assert setup["recipe"] == RECIPES["fast"].to_dict()
    assert (setup["shots"], setup["seeds"], setup["n_ctx"]) == ([1, 2], [1, 2], [2])
    assert [(d["name"], d["hash"]) for d in setup["datasets"]] == [
        (name, find_bundled(name).load().hash) for name in (NAME, "sizes")
    ]
    assert setup["datasets"][0]["template"] == find_bundled(NAME).template
    assert document["seconds"] > 0 and len(document["nearest_words"]) == 2
    assert set(document["nearest_words"][0][0]) == {"word", "token_id", "distance"}


def test_prompt_and_figures_are_usable(ran: tuple[Path, Result]) -> None:
    out, _ = ran
    document = json.loads((out / "results.json").read_text())
    prompt = coopt.load(out / "prompt")
    test = find_bundled(NAME).load().test
    assert test is not None
    assert 100 * prompt.score(list(test.paths), list(test.labels)) == pytest.approx(document["prompt"]["accuracy"])
    assert coopt.describe(out / "prompt")["learned_from"] == {"dataset": NAME, "images": 8, "shots": 2, "seed": 1}
    for name in ("accuracy.png", "examples.png"):
        with Image.open(out / name) as image:
            image.load()
            assert image.width > 800
    assert "</svg>" in (out / "accuracy.svg").read_text()


def test_what_is_said(ran: tuple[Path, Result]) -> None:
    out, result = ran
    said = result.stdout
    assert said.startswith(f"Learning prompts on 2 bundled data sets ({NAME}, sizes) from 1, 2 images per class")
    for expected in (
        "On this machine it takes ",
        "mean of 2 data sets",
        f"{NAME}: pattern of the background",
        "hand-made prompt",
        "nearest words (distance)",
        "For scale: words are",
        "coopt fit path/to/folder",
        f"In '{out}'",
    ):
        assert expected in said
    assert f"{NAME}: naive " in result.stderr and "learned from 2 images per class" in result.stderr


def test_json_is_one_document(ran: tuple[Path, Result]) -> None:
    out, _ = ran
    earlier = json.loads((out / "results.json").read_text())
    result = demo(out, "--data", NAME, "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    assert document["warnings"] == []
    del document["warnings"]
    assert document == json.loads((out / "results.json").read_text())
    # Nothing was computed again: even the times are those of the first run.
    assert document["results"] == [r for r in earlier["results"] if r["dataset"] == NAME]


def test_stopped_and_run_again(ran: tuple[Path, Result], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from coopt.evaluation import executors

    original, calls = executors.execute, []

    def stopped(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 7:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(executors, "execute", stopped)
        result = demo(tmp_path, "--data", NAME)
    assert result.exit_code == 130
    assert f"6 of 11 results kept in '{tmp_path / 'demo'}'" in result.stderr
    assert f"coopt demo --out {tmp_path} --shots 1,2" in result.stderr
    kept = {file.name: file.read_bytes() for file in (tmp_path / "demo").glob("*.json")}
    assert len(kept) == 6

    assert demo(tmp_path, "--data", NAME).exit_code == 0
    again = json.loads((tmp_path / "results.json").read_text())["results"]
    assert {name: (tmp_path / "demo" / name).read_bytes() for name in kept} == kept
    whole = [r for r in json.loads((ran[0] / "results.json").read_text())["results"] if r["dataset"] == NAME]
    assert [(r["run"], r["accuracy"]) for r in again] == [(r["run"], r["accuracy"]) for r in whole]


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--data", "wallpapers"], 1, "Did you mean 'wallpaper'"),
        (["--shots", "0,1"], 2, "expected different whole numbers >= 1 separated by commas. Got '0,1'"),
        (["--seeds", "1,1"], 2, "expected different whole numbers >= 0"),
        (["--n-ctx", "many"], 2, "Got 'many'"),
        (["--recipe", "slow"], 2, "must be one of fast, paper"),
    ],
)
def test_bad_options(tmp_path: Path, arguments: list[str], code: int, message: str) -> None:
    result = demo(tmp_path / "new", *arguments)
    assert result.exit_code == code
    assert message in " ".join(result.stderr.replace("│", " ").split())
    assert not (tmp_path / "new").exists()


def test_list(tmp_path: Path) -> None:
    result = demo(tmp_path / "new", "--list")
    assert result.exit_code == 0 and not (tmp_path / "new").exists()
    known = (*bundled_datasets(), *hard_datasets())
    assert all(f"\n{one.name} " in result.stdout and one.template in result.stdout for one in known)
    listed = json.loads(demo(tmp_path / "new", "--list", "--json").stdout)["datasets"]
    assert [tuple(one["class_names"]) for one in listed] == [one.class_names for one in known]


def test_hard_one_is_a_line_beside_the_mean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no data sets are named; here smaller ones, in the place of those that the demonstration takes."""
    app_demo = import_module("coopt.app.run_demo")
    monkeypatch.setattr(app_demo, "DATASETS", (NAME,))
    for module in (app_demo, suites_demo):
        monkeypatch.setattr(module, "HARD", "sizes")
    result = demo(tmp_path, "--shots", "1", "--seeds", "1")
    assert result.exit_code == 0, result.output
    document = json.loads((tmp_path / "results.json").read_text())
    hard, found = document["hard"], [r for r in document["results"] if r["dataset"] == "sizes"]
    assert [(r["method"], r["shots"], r["seed"]) for r in found] == [("naive prompt", 0, None), ("CoOp", 4, 1)]
    assert [hard["naive"], hard["learned"]] == [r["accuracy"] for r in found]
    assert {point["dataset"] for point in document["summary"]} == {NAME}
    assert document["setup"]["hard"]["hash"] == find_bundled("sizes").load().hash
    assert "Beside them a hard one, once, from 4 images per class: sizes" in result.stdout
    assert (
        f"Not in the mean: sizes, the hard one of 3 classes: naive {hard['naive']:.1f}, learned from 4 images per "
        f"class {hard['learned']:.1f}."
    ) in " ".join(result.stdout.split())


def test_demonstration_shows_the_hard_problem() -> None:
    from coopt.app.run_demo import DemoRequest

    grid = DemoRequest().hard_grid()
    assert grid is not None and [one.name for one in grid.datasets] == ["mixed"] and len(grid.jobs()) == 2
    assert DemoRequest(data=(NAME,)).hard_grid() is None


def test_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "results.json").write_text("[1]")
    result = demo(tmp_path, "--data", NAME)
    assert result.exit_code == 1 and "is not a file of results" in result.stderr
    assert (tmp_path / "results.json").read_text() == "[1]"


def test_folder_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "accuracy.png").write_text("mine")
    result = demo(tmp_path, "--data", NAME)
    assert result.exit_code == 1 and "holds other files (accuracy.png) and nothing that coopt wrote" in result.stderr
    assert [file.name for file in tmp_path.iterdir()] == ["accuracy.png"]


def test_help_imports_nothing_heavy() -> None:
    import subprocess
    import sys

    code = (
        "import sys\nfrom coopt.cli import main\n"
        "try:\n    main(['demo', '--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        "assert not {'torch', 'sklearn', 'matplotlib', 'open_clip'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "--n-ctx" in done.stdout and "coopt demo --data all" in done.stdout


@pytest.mark.parametrize(
    ("least", "shown"),
    [(2.0, "10 to 20 seconds"), (38.0, "40 to 80 seconds"), (50.0, "1 to 2 minutes"), (9000.0, "2 to 4 hours")],
)
def test_the_estimate_is_a_range(least: float, shown: str) -> None:
    from coopt.app.demo_time import span

    assert span(least) == shown


def test_one_is_no_plural(tmp_path: Path) -> None:
    result = demo(tmp_path / "out", "--data", NAME, "--shots", "1", "--seeds", "1")
    said = " ".join((result.stdout + result.stderr).split())
    assert "from 1 image per class, 1 seed each" in said and "learned from 1 image per class" in said
    assert not re.search(r"\b1 (images|seeds|shots|results|classes|data sets|vectors|seconds)\b", said)


def test_numbers_are_sorted() -> None:
    assert IntList(1).convert("16, 1,4", None, None) == (1, 4, 16)
