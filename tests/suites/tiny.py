"""A suite that takes seconds, and a process that runs it and logs every run it does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from coopt.suites.datasets import datasets_of
from coopt.suites.grid import Grid, grid_of
from coopt.suites.papers import BUNDLED_MODEL, HAND_MADE, LINEAR_PROBE
from coopt.suites.suite import AVERAGE, Bundled, Entry, Published, Suite

ROOT = Path(__file__).parents[2]
TINY = Suite(
    name="tiny",
    title="Tiny",
    paper="no paper",
    protocol="few-shot",
    models=BUNDLED_MODEL,
    datasets=Bundled(first=2, max_classes=5),
    entries=(
        HAND_MADE,
        LINEAR_PROBE,
        Entry("CoOp", "coop", {"n_ctx": 2, "recipe": {"name": "fast", "epochs": 3}}),
    ),
    columns="shots",
    shots=(1, 2),
    seeds=(1, 2),
    published=(Published(50.0, "bundled", AVERAGE, "CoOp", 2, "test"),),
    published_note="by nobody",
    cost="seconds",
)
TOTAL = 2 * (1 + 2 * 2 * 2)


def tiny_grid() -> Grid:
    """The whole of it."""
    return grid_of(TINY, datasets_of(TINY))


_SCRIPT = """
import os, signal, sys, time
from coopt.cli import main
from coopt.evaluation import executors
from coopt.suites.known import SUITES
from tests.suites.tiny import TINY

original, done = executors.execute, []

def logged(job, *rest):
    done.append(1)
    if len(done) == {killed_at}:
        os.kill(os.getpid(), signal.SIGKILL)
    with open({log!r}, "a") as file:
        file.write(f"{{job.name}}\\n")
    time.sleep({pause})
    return original(job, *rest)

executors.execute = logged
SUITES.register("tiny", TINY)
main(sys.argv[1:])
"""


def start(
    out: Path, log: Path, killed_at: int = 0, pause: float = 0.0, options: tuple[str, ...] = ()
) -> subprocess.Popen[str]:
    """`coopt suite run tiny` in a process of its own, which kills itself when it comes to its run number `killed_at`."""
    script = _SCRIPT.format(killed_at=killed_at, log=str(log), pause=pause)
    return subprocess.Popen(
        [sys.executable, "-c", script, "suite", "run", "tiny", "--out", str(out), "--json", *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
    )
