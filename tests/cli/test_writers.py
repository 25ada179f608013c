"""Every command that writes over a while: a second process is refused, and what a killed one leaves is gone on with."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import coopt
from coopt.errors import InUseError
from coopt.runtime import Runtime
from tests.test_locks import Holder, hold  # noqa: F401 - a fixture

from .conftest import run

# The process stands still before the images that begin with the one of this name.
STANDING = """
import time
import coopt.app.classifying as predicting
from coopt.cli import main

chunk = predicting._chunk
predicting.CHUNK = 2

def standing(estimator, paths, *others):
    if paths[0].name == "{name}":
        print("standing", flush=True)
        time.sleep(600)
    return chunk(estimator, paths, *others)

predicting._chunk = standing
main()
"""

# Says at its end whether torch was imported.
LIGHT = """
import sys
from coopt.cli import main
try:
    main()
finally:
    print("torch" in sys.modules)
"""


def python(script: str, *arguments: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_two_predictions_into_one_file(learned: tuple[Path, Path], tmp_path: Path) -> None:
    arguments = ("predict", learned[0], learned[1] / "red car", "--out", tmp_path / "rows.csv")
    first = python(STANDING.format(name="4.png"), *arguments)
    assert first.stdout is not None and first.stdout.readline() == "standing\n"
    second = run(*arguments)
    assert second.exit_code == 1
    assert f"Process {first.pid} on " in second.stderr and "wait for it, or choose another --out." in second.stderr
    assert "Process" in run(*arguments, "--overwrite").stderr
    first.kill()
    first.communicate(timeout=60)
    assert first.returncode == -signal.SIGKILL
    third = run(*arguments)
    assert third.exit_code == 0, third.stderr
    assert "Going on after 4 images" in third.stdout
    run(*arguments[:-1], tmp_path / "whole.csv")
    assert (tmp_path / "rows.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        ".rows.csv.json",
        ".whole.csv.json",
        "rows.csv",
        "whole.csv",
    ]

    repeated = python(LIGHT, *arguments)  # with torch it would take seconds
    out, error = repeated.communicate(timeout=60)
    assert repeated.returncode == 0, error
    assert out.splitlines() == [f"'{tmp_path / 'rows.csv'}' is complete: 6 images classified, 0 left out.", "False"]


def test_every_command_refuses_what_another_process_writes(
    hold: Holder,  # noqa: F811
    learned: tuple[Path, Path],
    short: Path,
    clip: str,
    tmp_path: Path,
) -> None:
    prompt, photos = learned
    folder, file, page = tmp_path / "folder", tmp_path / "rows.jsonl", tmp_path / "page.html"
    writer = hold(folder, file, page)
    for option, arguments in (
        ("--out", ("fit", photos, "--backbone", clip, "--config", short, "--out", folder)),
        ("--out", ("fit", photos, "--backbone", clip, "--config", short, "--out", folder, "--overwrite")),
        ("--out", ("zero-shot", photos, "--backbone", clip, "--out", folder)),
        ("--out", ("eval", prompt, photos, "--out", folder)),
        ("--out", ("demo", "--out", folder)),
        ("--out", ("predict", prompt, photos, "--out", file)),
        ("--copy-to", ("predict", prompt, photos, "--copy-to", folder)),
        ("--move-to", ("predict", prompt, photos, "--move-to", folder)),
        ("--contact-sheet", ("predict", prompt, photos, "--contact-sheet", page)),
    ):
        result = run(*arguments)
        assert result.exit_code == 1
        assert f"Process {writer.pid} on " in result.stderr, result.stderr
        assert f"choose another {option}." in result.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == [
        ".page.html.lock",
        ".rows.jsonl.lock",
        "folder",
        "short.yaml",
    ]


def test_python_refuses_too(
    hold: Holder,  # noqa: F811
    learned: tuple[Path, Path],
    clip: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, file = tmp_path / "folder", tmp_path / "run.checkpoint"
    writer = hold(folder, file)
    monkeypatch.setattr("coopt.methods.saving.PATIENCE", 0.0)
    with pytest.raises(InUseError, match=f"Process {writer.pid} on .* choose another folder."):
        coopt.load(learned[0]).save(folder)
    images = sorted(learned[1].rglob("*.png"))
    model = coopt.CoOp(clip, n_ctx=2, recipe={"epochs": 1}, runtime=Runtime(checkpoint=file, cache=False))
    with pytest.raises(InUseError, match=f"Process {writer.pid} on .* choose another checkpoint."):
        model.fit(images, [path.parent.name for path in images])
    assert not file.exists()
