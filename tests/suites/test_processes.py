"""Running a suite in several processes: the same records, whatever happens to one of them."""

from __future__ import annotations

import os
import signal
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from coopt.errors import CooptWarning, ParameterError, SavedFileError
from coopt.evaluation import executors
from coopt.evaluation.claims import Claims
from coopt.evaluation.job import Job
from coopt.evaluation.processes import ProcessExecutor, WorkerSettings
from coopt.evaluation.run_files import Record

from .conftest import run_tiny, store_in
from .test_running import names, table
from .tiny import TOTAL, start, tiny_grid

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def fells(prefix: str, log: Path, times: int) -> None:
    """In a worker: jobs of that name kill it, the first times that they are begun."""
    original = executors.execute

    def felled(job: Job, *rest: Any) -> Record:
        if job.name.startswith(prefix):
            with log.open("a") as file:
                file.write(f"{job.name}\n")
            if len(log.read_text().splitlines()) <= times:
                os.kill(os.getpid(), signal.SIGKILL)
        return original(job, *rest)

    executors.execute = felled


def test_two_processes_do_what_one_does(undisturbed: Path, tmp_path: Path) -> None:
    heard: list[tuple[str, str]] = []
    damaged = tmp_path / "tiny" / f"{tiny_grid().jobs()[0].name}.json"
    damaged.parent.mkdir()
    damaged.write_text("{")
    with pytest.warns(CooptWarning, match="is not a whole run .* It is done again"):
        outcome = ProcessExecutor(2).run(
            tiny_grid().jobs(), store_in(tmp_path), listener=lambda job, settled: heard.append((job.name, settled.how))
        )
    assert sorted(outcome.done) == sorted(name for name, _ in heard) and {how for _, how in heard} == {"done"}
    assert (len(outcome.done), outcome.complete, outcome.failed) == (TOTAL, [], {})
    assert names(tmp_path) == names(undisturbed)
    assert table(tmp_path) == table(undisturbed)


def test_a_worker_that_is_killed_loses_nothing(undisturbed: Path, tmp_path: Path) -> None:
    jobs = tiny_grid().jobs()[:6]
    prepare = partial(fells, jobs[3].name, tmp_path / "log", 1)
    outcome = ProcessExecutor(2, WorkerSettings(prepare=prepare)).run(jobs, store_in(tmp_path))
    assert (tmp_path / "log").read_text().splitlines() == [jobs[3].name] * 2
    assert sorted(outcome.done) == sorted(job.name for job in jobs)
    scores = {one.name: one.result.scores for one in store_in(undisturbed).whole()}
    assert {one.name: one.result.scores for one in store_in(tmp_path).whole()} == {n: scores[n] for n in outcome.done}
    assert len(names(tmp_path)) == 6  # no claim and no checkpoint is left


def test_a_job_that_kills_every_worker_is_named_and_the_others_are_done(tmp_path: Path) -> None:
    job = tiny_grid().jobs()[0]
    prepare = partial(fells, job.name, tmp_path / "log", 99)
    outcome = ProcessExecutor(1, WorkerSettings(prepare=prepare)).run(tiny_grid().jobs()[:3], store_in(tmp_path))
    assert outcome.failed == {
        job.name: "2 processes ended at it, the last by signal 9. Perhaps memory is short: use fewer processes."
    }
    assert len(outcome.done) == 2


def test_ctrl_c_lets_go_of_all_and_what_is_left_is_done_later(undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = start(out, tmp_path / "log", options=("--jobs", "2"))
    until = time.monotonic() + 240
    while len(list((out / "tiny").glob("*.json"))) < 2 and time.monotonic() < until:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)  # to the one that was started alone: its workers hear of it from there
    _, said = process.communicate(timeout=240)
    kept = {file.name: file.read_bytes() for file in (out / "tiny").glob("*.json")}
    if process.returncode != 0:  # else it was done before
        assert process.returncode == 130 and f"{len(kept)} of {TOTAL} runs kept" in said
    assert not list((out / "tiny").glob("*.claim*"))
    assert not run_tiny(out).failed
    assert {name: (out / "tiny" / name).read_bytes() for name in kept} == kept
    assert names(out) == names(undisturbed) and table(out) == table(undisturbed)


def test_a_run_that_another_process_is_at_is_waited_for(tmp_path: Path) -> None:
    jobs = tiny_grid().jobs()[:2]
    claims = Claims(tmp_path / "tiny")  # this process's: to the worker it is another one of this machine
    assert claims.take(jobs[0].name) == "mine"
    outcome = ProcessExecutor(2).run(
        jobs, store_in(tmp_path), listener=lambda job, settled: claims.release(jobs[0].name)
    )
    assert outcome.done == [jobs[1].name, jobs[0].name]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "tiny").write_text("")
    with pytest.raises(SavedFileError, match="Cannot write"):
        ProcessExecutor(1).run(tiny_grid().jobs(), store_in(tmp_path))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("n", [0, True, "2"])
def test_how_many_processes(n: Any) -> None:
    with pytest.raises(ParameterError, match="The number of processes must be an int >= 1"):
        ProcessExecutor(n)
