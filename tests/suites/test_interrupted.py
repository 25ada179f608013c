"""What Ctrl-C in the middle of a suite says."""

from __future__ import annotations

from pathlib import Path

import pytest

from coopt.app.run_suite import told_when_interrupted
from coopt.errors import Interrupted
from coopt.evaluation.outcome import Outcome

from .conftest import store_in
from .tiny import tiny_grid


def test_what_was_written_last_counts_though_nobody_was_told_of_it(undisturbed: Path, tmp_path: Path) -> None:
    there, here = store_in(undisturbed), store_in(tmp_path)
    jobs = tiny_grid().jobs()[:4]
    for job in jobs[:2]:
        here.write(there.read(job.name))
    outcome = Outcome(
        complete=[jobs[0].name]
    )  # the second is of another setting, so it does not count until it is done again
    with (
        pytest.raises(Interrupted, match="Interrupted. 3 of 4 runs kept in '.*tiny'"),
        told_when_interrupted(outcome, jobs, "run", here, "go on"),
    ):
        here.write(there.read(jobs[1].name))
        outcome.done.append(jobs[1].name)
        here.write(there.read(jobs[2].name))  # stopped before it was noted
        raise KeyboardInterrupt
