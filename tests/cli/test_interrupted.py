"""A fit that is stopped: what is said, what is kept, and that going on ends in the same bits."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import run

# The process stops itself in the middle of its sixth epoch, by a real signal.
STOPPING = """
import os, signal
import coopt.training.loop as loop
from coopt.cli import main

epoch = loop._epoch
loop.SAVE_EVERY = {every}

def stopping(*arguments):
    if arguments[-1] == 5:
        os.kill(os.getpid(), signal.{signal})
    return epoch(*arguments)

loop._epoch = stopping
main()
"""


def stopping(signal_name: str, every: float, arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STOPPING.format(signal=signal_name, every=every), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A test run in the background ignores SIGINT, and would hand that down.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_stopped_and_resumed_ends_in_the_same_bits(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    arguments = ["fit", str(photos), "--backbone", clip, "--config", str(short), "--out"]
    out, killed = tmp_path / "interrupted", tmp_path / "killed"
    by_user = stopping("SIGINT", 5.0, [*arguments, str(out)])
    by_force = stopping("SIGKILL", 0.0, [*arguments, str(killed)])
    undisturbed = run(*arguments, tmp_path / "undisturbed")
    assert undisturbed.exit_code == 0
    expected = (tmp_path / "undisturbed" / "prompt.safetensors").read_bytes()

    _, said = by_user.communicate(timeout=120)
    assert by_user.returncode == 130
    assert f"Interrupted. 5 of 8 epochs saved in '{out}'. Run the same command to go on:" in said
    assert f"\n  coopt fit {photos} --backbone" in said and "Traceback" not in said
    assert sorted(file.name for file in out.iterdir()) == ["checkpoint.json", "checkpoint.safetensors"]

    refused = run(*arguments, out, "--seed", 2)
    assert refused.exit_code == 1
    assert "holds an unfinished run with other settings (seed 1 there, 2 now, other images)" in refused.stderr

    resumed = run(*arguments, out)
    assert resumed.exit_code == 0
    assert "Going on after epoch 5 of 8, where an earlier run stopped." in resumed.stdout
    assert (out / "prompt.safetensors").read_bytes() == expected
    assert not list(out.glob("checkpoint*"))

    by_force.communicate(timeout=120)
    assert by_force.returncode == -signal.SIGKILL
    resumed = run(*arguments, killed)
    assert "Going on after epoch 5 of 8" in resumed.stdout
    assert (killed / "prompt.safetensors").read_bytes() == expected


# The process stops itself in the middle of a step of L-BFGS, after the parameters were moved.
STOPPING_LATE = """
import os, signal
import coopt.training.refine as refine
from coopt.cli import main

move, steps = refine._Work._move, []
refine.SAVE_EVERY = {every}

def stopping(*arguments):
    move(*arguments)
    steps.append(1)
    if len(steps) == 6:
        os.kill(os.getpid(), signal.{signal})

refine._Work._move = stopping
main()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_stopped_in_lbfgs_and_resumed_ends_in_the_same_bits(tmp_path: Path) -> None:
    arguments = ["fit", "bundled:animals", "--shots", "8", "--set", "recipe.least_classes=2", "--out"]  # 112 images
    stopped = {name: (_stopping_late(name, every, [*arguments, str(tmp_path / name)])) for name, every in LATE.items()}
    assert run(*arguments, tmp_path / "undisturbed").exit_code == 0
    expected = (tmp_path / "undisturbed" / "prompt.safetensors").read_bytes()
    for name, process in stopped.items():
        out = tmp_path / name
        _, said = process.communicate(timeout=120)
        if name == "SIGINT":
            assert process.returncode == 130
            assert f" of at most 48 epochs saved in '{out}'. Run the same command to go on:" in said
        resumed = run(*arguments, out)
        going_on = re.search(r"Going on after epoch (\d+) of at most 48, where an earlier run stopped.", resumed.stdout)
        assert going_on and int(going_on[1]) > 16  # the epochs before L-BFGS
        assert name == "SIGKILL" or f"Interrupted. {going_on[1]} of at most" in said
        assert (out / "prompt.safetensors").read_bytes() == expected


LATE = {"SIGINT": 5.0, "SIGKILL": 0.0}
"""How a run is stopped, to the seconds between its checkpoints."""


def _stopping_late(signal_name: str, every: float, arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", STOPPING_LATE.format(signal=signal_name, every=every), *arguments],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
