"""Executors: who does the jobs that a store lacks. Here: this process alone, job by job.

Any number of executors, in any number of processes and on several machines, may share one store: a job is claimed before it
is done, and what another one claims is left to it. `coopt.evaluation.processes` has the executor that starts processes.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from coopt.errors import CooptError, CooptWarning
from coopt.evaluation.execution import Resources, execute, setting_of
from coopt.evaluation.job import Job
from coopt.evaluation.outcome import Outcome, Settled
from coopt.evaluation.store import State, Store
from coopt.events import Tracker, tracked

WAIT = 0.5
"""Seconds between looks at a job that another process of this machine is doing."""

OnSettled = Callable[[Job, Settled], None]
"""Is told of every job when it is settled."""


@runtime_checkable
class Executor(Protocol):
    """Does jobs."""

    def run(
        self, jobs: Sequence[Job], store: Store, outcome: Outcome | None = None, listener: OnSettled | None = None
    ) -> Outcome:
        """Does all jobs that are not complete; one that fails is noted and does not stop the others.

        Args:
            jobs: what is asked for.
            store: where records are, and go to.
            outcome: filled while jobs are done, so that it is known after Ctrl-C too; returned in the end.
            listener: see `OnSettled`.

        Raises:
            SavedFileError: the store cannot be written.
            KeyboardInterrupt: Ctrl-C.
        """
        ...


class SerialExecutor:
    """One job after the other, in this process.

    Args:
        resources: what the jobs share.
        made: what stands in every record besides: versions, machine, command.
    """

    def __init__(self, resources: Resources, made: Mapping[str, Any] | None = None) -> None:
        self.resources, self.made = resources, made or {}

    def run(
        self, jobs: Sequence[Job], store: Store, outcome: Outcome | None = None, listener: OnSettled | None = None
    ) -> Outcome:
        """See `Executor`."""
        outcome = outcome if outcome is not None else Outcome()
        waiting = list(jobs)
        with tracked(store.suite, len(jobs)) as progress:
            while waiting:
                waiting = [job for job in waiting if not self._see_to(job, store, outcome, listener, progress)]
                if waiting:  # other processes of this machine are at them
                    time.sleep(WAIT)
        return outcome

    def _see_to(self, job: Job, store: Store, outcome: Outcome, listener: OnSettled | None, progress: Tracker) -> bool:
        settled = settle(job, store, self.resources, self.made)
        note(job, settled, outcome, listener, progress)
        return settled.how != "busy"


def note(job: Job, settled: Settled, outcome: Outcome, listener: OnSettled | None, progress: Tracker) -> None:
    """Tells of a job that was seen to."""
    outcome.add(settled)
    if listener is not None and settled.how != "busy":
        listener(job, settled)
    rate = f"{outcome.seconds / len(outcome.done):.1f} s a run" if outcome.done else ""
    progress.update(outcome.settled, f"{job.dataset.name} {rate}")


def states_of(jobs: Sequence[Job], store: Store, resources: Resources) -> Iterator[tuple[Job, State | CooptError]]:
    """How every job stands, without doing any; in the place of the state what keeps a job from being done."""
    for job in jobs:
        try:
            yield job, store.state(job.name, setting_of(job, resources).run)[0]
        except CooptError as error:
            yield job, error


def settle(job: Job, store: Store, resources: Resources, made: Mapping[str, Any]) -> Settled:
    """Sees to one job: does it, unless it is complete, or another process claims it.

    Raises:
        SavedFileError: the store cannot be written.
        KeyboardInterrupt: Ctrl-C; the job is let go of, and its checkpoint stays.
    """
    try:
        run = setting_of(job, resources).run
    except CooptError as error:
        return Settled(job.name, "failed", str(error))
    if store.state(job.name, run)[0] == "complete":
        if store.claims.dead(job.name):  # killed between writing and letting go
            store.claims.release(job.name)
        return Settled(job.name, "complete")
    standing = store.claims.take(job.name)
    if standing != "mine":
        return Settled(job.name, "elsewhere" if standing == "elsewhere" else "busy")
    with store.claims.released_at_the_end(job.name):
        state, reason = store.state(job.name, run)
        if state == "complete":  # by a process that let go of it just now
            return Settled(job.name, "complete")
        if state == "damaged":
            warnings.warn(f"{reason} It is done again.", CooptWarning, stacklevel=2)
        return replace(_do(job, run, store, resources, made), replaced=state == "stale")


def _do(job: Job, run: str, store: Store, resources: Resources, made: Mapping[str, Any]) -> Settled:
    began = time.perf_counter()
    checkpoint = store.checkpoint(job.name, run)
    try:
        record = execute(job, resources, checkpoint)
    except Exception as error:  # one method's trouble is not the others'
        kind = "" if isinstance(error, CooptError) else f"{type(error).__name__}: "
        checkpoint.unlink(missing_ok=True)
        return Settled(job.name, "failed", f"{kind}{error}")
    record = replace(record, made={**made, **record.made})
    store.write(record)
    checkpoint.unlink(missing_ok=True)
    return Settled(job.name, "done", seconds=time.perf_counter() - began, record=record)
