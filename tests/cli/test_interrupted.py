"""A fit that is stopped: what is said, what is kept, and that going on ends in the same bits."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

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
@pytest.mark.parametrize(("signal_name", "every"), [("SIGINT", 5.0), ("SIGKILL", 0.0)])
def test_stopped_in_lbfgs_and_resumed_ends_in_the_same_bits(signal_name: str, every: float, tmp_path: Path) -> None:
    arguments = ["fit", "bundled:animals", "--shots", "8", "--set", "recipe.least_classes=2", "--out"]  # 112 images
    out = tmp_path / "stopped"
    process = subprocess.Popen(
        [sys.executable, "-c", STOPPING_LATE.format(signal=signal_name, every=every), *arguments, str(out)],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    _, said = process.communicate(timeout=120)
    if signal_name == "SIGINT":
        assert process.returncode == 130
        assert f" of at most 48 epochs saved in '{out}'. Run the same command to go on:" in said
    resumed = run(*arguments, out)
    going_on = re.search(r"Going on after epoch (\d+) of at most 48, where an earlier run stopped.", resumed.stdout)
    assert going_on and int(going_on[1]) > 16  # the epochs before L-BFGS
    assert signal_name == "SIGKILL" or f"Interrupted. {going_on[1]} of at most" in said
    undisturbed = run(*arguments, tmp_path / "undisturbed")
    files = [folder / "prompt.safetensors" for folder in (out, tmp_path / "undisturbed")]
    assert files[0].read_bytes() == files[1].read_bytes()
    took = [next(line for line in one.stdout.splitlines() if "Learned in" in line) for one in (resumed, undisturbed)]
    assert took[0] == took[1]


def test_stopped_before_the_first_epoch(
    photos: Path, short: Path, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coopt.methods.base.extract_features", stop)
    result = run("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out", "--json")
    assert result.exit_code == 130
    assert "No epoch was finished; image features computed so far are kept in the cache." in result.stderr
    assert json.loads(result.stdout)["error"]["type"] == "Interrupted"
    assert not (tmp_path / "out").exists()


def test_stopped_elsewhere(learned: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("coopt.app.prediction_input.iter_images", stop)
    result = run("predict", learned[0], "x.png")
    assert result.exit_code == 130
    assert "the same command goes on from there" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGHUP", 129)])
def test_other_signals_stop_as_ctrl_c_does(
    name: str, code: int, photos: Path, short: Path, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import coopt.training.loop as loop

    number, epoch = getattr(signal, name), loop._epoch

    def stopping(*arguments: Any) -> float:
        if arguments[-1] == 5:
            os.kill(os.getpid(), number)
        return epoch(*arguments)

    monkeypatch.setattr(loop, "_epoch", stopping)
    before = signal.signal(number, signal.SIG_DFL)  # as a command that is started has it
    try:
        result = run("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out")
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)
    assert result.exit_code == code
    assert f"Interrupted. 5 of 8 epochs saved in '{tmp_path / 'out'}'. Run the same command" in result.stderr
    assert (tmp_path / "out" / "checkpoint.safetensors").exists()

    command = next(line.strip() for line in result.stderr.splitlines() if line.startswith("  coopt fit"))
    for arguments in (("info",), ("words",), ("predict", "--from-list", "-"), ("eval", photos)):
        used = run(arguments[0], tmp_path / "out", *arguments[1:])
        assert used.exit_code == 1
        assert f"was interrupted, so there is no prompt yet. Run `{command}` again" in used.stderr
    monkeypatch.chdir(tmp_path)
    assert f"`{command}` in {Path(__file__).parents[2]} again" in run("info", tmp_path / "out").stderr


def test_overwrite_starts_afresh_over_an_unfinished_run(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "checkpoint.safetensors").write_bytes(b"of another run")
    arguments = ("fit", photos, "--backbone", clip, "--config", short, "--out", out)
    assert "an unfinished run with other settings (it has no readable checkpoint.json)" in run(*arguments).stderr
    result = run(*arguments, "--overwrite")
    assert result.exit_code == 0, result.stderr
    assert "Going on" not in result.stdout
