"""Run hashes: what was run with earlier versions stays done."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest

from coopt.evaluation.execution import Resources, setting_of
from coopt.evaluation.runs import Setting
from coopt.evaluation.store import Store
from coopt.suites.datasets import datasets_of
from coopt.suites.grid import Grid, grid_of
from coopt.suites.known import MINIATURES, PAPERS, find_suite

RESULTS = Path(__file__).parents[2] / "results"
GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "run_hashes.json").read_text())
"""By suite and method: a digest of "NAME HASH" of all runs, recorded before jobs were jobs.

"runs": of the miniatures, with the bundled model and the bundled data. "settings": of all suites, with nothing in the place of
the fingerprint of the model and of the hashes of the data, which the papers' suites have not got here.
"""


def digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


def whole(name: str) -> Grid:
    suite = find_suite(name)
    return grid_of(suite, datasets_of(suite))


@pytest.mark.parametrize("name", MINIATURES)
def test_runs_of_the_miniatures_are_what_they_were_and_the_committed_ones_complete(name: str) -> None:
    resources, runs = Resources(cache=False), defaultdict(list)
    committed, states = Store(RESULTS / name, name), set()
    for job in whole(name).jobs():
        run = setting_of(job, resources).run
        runs[job.method].append(f"{job.name} {run}")
        states.add(committed.state(job.name, run))
    assert {method: digest(lines) for method, lines in runs.items()} == GOLDEN["runs"][name]
    assert states == {("complete", "")}


@pytest.mark.parametrize("name", [*MINIATURES, *PAPERS])
def test_settings_are_what_they_were(name: str) -> None:
    grid = whole(name)
    entries = {entry.name: entry for entry in grid.entries}
    parameters = {(d.name, e.name): d.distinguishing(e) for d in grid.datasets for e in grid.entries}
    targets = {dataset.name: dict.fromkeys(dataset.targets(grid.suite), "") for dataset in grid.datasets}
    runs = defaultdict(list)
    blank = Setting(grid.suite.protocol, "", "", {}, "none", "", "", "", "", {}, 0, None)
    for job in grid.jobs():
        setting = replace(
            blank,
            method=job.method,
            estimator=entries[job.method].method,
            parameters=parameters[job.dataset.name, job.method],
            sampling=job.sampling,
            dataset=job.dataset.name,
            targets=targets[job.dataset.name],
            shots=job.shots,
            seed=job.seed,
        )
        runs[job.method].append(f"{job.name} {setting.run}")
    assert {method: digest(lines) for method, lines in runs.items()} == GOLDEN["settings"][name]
