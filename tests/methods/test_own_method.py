"""The method of docs/methods.md, exactly as it stands there, as another package that coopt finds by its entry point."""

from __future__ import annotations

import json
import os
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.cli.conftest import install, run
from tests.test_docs import Block, blocks, commands

PAGE = "docs/methods.md"


def _files() -> dict[str, str]:
    """The Python of the page by the name in its first line."""
    code: list[Block] = [block for block in blocks(PAGE) if block.language == "python"]
    return {block.text.split("\n")[0].removeprefix("# "): block.text for block in code}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the package as pip would leave it in site/, and with what the page's commands speak of."""
    folder = tmp_path_factory.mktemp("own")
    head, announced = next(block.text for block in blocks(PAGE) if block.language == "toml").splitlines()
    assert head == '[project.entry-points."coopt.methods"]'
    info = folder / "site" / "my_methods-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: my_methods\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[coopt.methods]\n{announced.replace(chr(34), '')}\n")
    files = _files()
    assert set(files) == {"my_methods.py", "use.py", "deep.py", "test_my_methods.py"}
    (folder / "site" / "my_methods.py").write_text(files["my_methods.py"])
    for name in ("deep.py", "test_my_methods.py"):
        (folder / name).write_text(files[name])
    random = np.random.default_rng(0)
    for k, name in enumerate(("cat", "dog")):
        for i in range(6):
            pixels = random.integers(0, 90, (48, 48, 3), dtype=np.uint8)
            pixels[..., k] += 150
            for file in (folder / "photos" / name / f"{i}.jpg", folder / "new" / f"{name}-{i}.jpg"):
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    return folder


@pytest.fixture(autouse=True)
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is found by its path alone, and the folder is the current one."""
    install(folder / "site", monkeypatch)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COOPT_CACHE", str(folder / "cache"))


def outside(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    """Python in a process of its own, in the folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    typed = [sys.executable, "-c", program]
    return subprocess.run(typed, capture_output=True, text=True, env=environment, cwd=folder, timeout=300)


def coopt(folder: Path, line: str, *more: Any) -> str:
    """What a command line of the page prints; wildcards are the shell's, and are expanded."""
    done = run(*(name for word in shlex.split(line, comments=True)[1:] for name in _expanded(folder, word)), *more)
    assert done.exit_code == 0, f"{line}\n{done.stderr}"
    return done.stdout


def _expanded(folder: Path, word: str) -> list[str]:
    return sorted(str(one.relative_to(folder)) for one in folder.glob(word)) if "*" in word else [word]


def line(beginning: str) -> str:
    """The command line of the page that begins so."""
    return next(one for one in commands(PAGE) if one.startswith(beginning))


def test_it_has_at_most_forty_lines() -> None:
    assert len(_files()["my_methods.py"].splitlines()) <= 40


def test_the_command_line_lists_it_learns_with_it_and_predicts(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "deep_words" in coopt(folder, line("coopt fit --help"))
    document = json.loads(
        coopt(folder, line("coopt fit photos --method deep_words"), "--set", "recipe.epochs=3", "--json")
    )
    assert document["method"] == "deep_words" and document["settings"]["pull"] == 0.5
    saved = json.loads((folder / "my-prompt" / "prompt.json").read_text())
    assert saved["method"] == "deep_words" and (saved["parameters"]["n_ctx"], saved["parameters"]["pull"]) == (2, 0.5)
    rows = [json.loads(row) for row in coopt(folder, line("coopt predict"), "--jsonl").splitlines()]
    assert len(rows) == 12 and all("cat" in str(row) for row in rows)
    refused = run("fit", "photos", "--method", "deep_words", "--set", "pull=-1")
    assert refused.exit_code == 1 and "--set pull must be a number >= 0. Got -1 instead." in refused.stderr
    # Where the package is not installed, this is what is said.
    monkeypatch.setattr(sys, "path", [one for one in sys.path if one != str(folder / "site")])
    missing = run("predict", "my-prompt", "new")
    assert missing.exit_code == 1 and "the method 'deep_words'" in missing.stderr


def test_it_is_compared(folder: Path) -> None:
    rows = json.loads(coopt(folder, line("coopt compare"), "--json"))["methods"]
    assert [row["error"] for row in rows] == [None] * 3
    assert {row["method"] for row in rows} == {"zero_shot", "deep_words", "coop"}


def test_another_process_loads_it_with_the_same_answers(folder: Path) -> None:
    prepared = "import glob\nimages = sorted(glob.glob('photos/*/*.jpg'))\nlabels = [i.split('/')[1] for i in images]\n"
    shown = "print(model.logits(images).tolist())\n"
    learned = outside(folder, prepared + _files()["use.py"] + "print(model.losses_)\n" + shown)
    assert learned.returncode == 0, learned.stderr
    losses, scores = map(json.loads, learned.stdout.splitlines())
    assert losses[-1] < losses[0] and np.shape(scores) == (12, 2)
    load = "import coopt\nmodel = coopt.load('deep-prompt')\nassert type(model).__name__ == 'DeepWords'\n"
    loaded = outside(folder, prepared + load + shown)
    assert loaded.returncode == 0, loaded.stderr
    assert json.loads(loaded.stdout) == scores


def test_it_runs_in_a_suite(folder: Path) -> None:
    typed = line("coopt suite run")
    assert "3 runs done in" in coopt(folder, typed, "--jobs", "2")
    (record,) = (folder / "my-results" / "deep").glob("*deep-words*.json")
    assert json.loads(record.read_text())["estimator"] == "deep_words"
    assert len(json.loads(coopt(folder, typed, "--dry-run", "--json"))["complete"]) == 3
    shown = coopt(folder, "coopt suite show ./deep.py --out my-results")
    assert "3 of 3 runs are there." in shown and "Deep words" in shown


def test_it_passes_the_pages_own_test(folder: Path) -> None:
    tests = runpy.run_path(str(folder / "test_my_methods.py"))
    (test,) = (made for name, made in tests.items() if name.startswith("test_"))
    test()
