"""The executor that starts processes of its own: each does one job at a time and says what became of it.

This process hands jobs out, so no two of its workers try the same one, and jobs on one data set go to one worker as far as
that keeps all busy. Workers claim a job before they do it, as every executor does; so other processes, started by hand or on
other machines, may share the store at the same time. A worker that is killed loses nothing: its job is done by another
from its last checkpoint on.
"""

from __future__ import annotations

import multiprocessing
import signal
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch

from coopt import errors
from coopt.errors import CooptError, CooptWarning, ParameterError
from coopt.evaluation.execution import Resources
from coopt.evaluation.executors import WAIT, OnSettled, note, settle
from coopt.evaluation.job import Job
from coopt.evaluation.outcome import Outcome, Settled
from coopt.evaluation.store import Store
from coopt.events import Tracker, tracked
from coopt.training.heap import keep_heap

TRIES = 2
"""How often a job is begun whose worker was killed at it: what fells one worker (memory) would fell them all."""
PATIENCE = 30.0
"""Seconds that workers have to let go of their jobs after Ctrl-C."""


@dataclass(frozen=True)
class WorkerSettings:
    """What a worker makes its `Resources` of, and the rest that it has to know.

    Attributes:
        device, download, cache: see `Resources`.
        made: what stands in every record besides: versions, machine, command.
        threads: how many compute in each worker; None: an equal share of this process's.
        prepare: called in every worker first, such as to make methods known; must be picklable.
    """

    device: str = "auto"
    download: bool = False
    cache: bool = True
    made: Mapping[str, Any] | None = None
    threads: int | None = None
    prepare: Callable[[], Any] | None = None


class ProcessExecutor:
    """Several jobs at a time, each in a process of its own.

    Args:
        n: how many processes.
        settings: of each.

    Raises:
        ParameterError: `n` is no int >= 1.
    """

    def __init__(self, n: int, settings: WorkerSettings | None = None) -> None:
        if not isinstance(n, int) or isinstance(n, bool) or n < 1:
            raise ParameterError(f"The number of processes must be an int >= 1. Got {n!r} instead.")
        self.n, self.settings = n, settings or WorkerSettings()

    def run(
        self, jobs: Sequence[Job], store: Store, outcome: Outcome | None = None, listener: OnSettled | None = None
    ) -> Outcome:
        """See `Executor`; the listener is not given the fitted methods, which stay in the workers."""
        outcome = outcome if outcome is not None else Outcome()
        with tracked(store.suite, len(jobs)) as progress:
            run = _Run(self, list(jobs), store, outcome, listener, progress)
            with run.workers_ended():
                run.to_the_end()
        return outcome

    def start(self, store: Store, share: int) -> _Worker:
        """A worker, one of `share`."""
        threads = self.settings.threads or max(1, torch.get_num_threads() // share)
        context = multiprocessing.get_context("spawn")  # a forked torch may hang
        here, there = context.Pipe()
        arguments = (there, store, replace(self.settings, threads=threads))
        process = context.Process(target=_work, args=arguments, name="coopt worker", daemon=True)
        process.start()
        there.close()  # so that the end of the process is the end of the connection
        return _Worker(process, here)


@dataclass
class _Worker:
    """A process, and what it is at."""

    process: BaseProcess
    connection: Connection
    job: Job | None = None
    latest: tuple[Any, ...] | None = None

    def give(self, job: Job) -> None:
        self.job, self.latest = job, job.shared
        self.connection.send(job.to_dict())


@dataclass
class _Run:
    """The jobs that are left, and who is at which."""

    executor: ProcessExecutor
    pending: list[Job]
    store: Store
    outcome: Outcome
    listener: OnSettled | None
    progress: Tracker

    def __post_init__(self) -> None:
        self.workers: list[_Worker] = []
        self.begun: Counter[str] = Counter()
        self.later: dict[str, float] = {}
        self.share = min(self.executor.n, len(self.pending))

    def to_the_end(self) -> None:
        """Hands out jobs until none is left."""
        while self.pending or any(worker.job for worker in self.workers):
            self._hand_out()
            at_work = {worker.connection: worker for worker in self.workers if worker.job}
            if not at_work:  # whatever is left, processes that are none of ours are at
                time.sleep(WAIT)
            for ready in wait([*at_work], WAIT):
                self._hear(at_work[ready])  # type: ignore[index]

    def _hand_out(self) -> None:
        while len(self.workers) < min(self.share, len(self.pending) + sum(bool(one.job) for one in self.workers)):
            self.workers.append(self.executor.start(self.store, self.share))
        for worker in [one for one in self.workers if not one.job]:
            job = self._next(worker)
            if job is None:
                continue
            self.pending.remove(job)
            try:
                worker.give(job)
            except OSError:  # it ended while it had nothing to do
                self.pending.insert(0, job)
                self._bury(worker)

    def _next(self, worker: _Worker) -> Job | None:
        """Of what the worker has in memory, then of what nobody else is at, then whatever is left."""
        now = time.monotonic()
        ready = [job for job in self.pending if self.later.get(job.name, 0.0) <= now]
        elsewhere = {one.latest for one in self.workers if one is not worker}
        alike = (job for job in ready if job.shared == worker.latest)
        untouched = (job for job in ready if job.shared not in elsewhere)
        return next(alike, None) or next(untouched, None) or next(iter(ready), None)

    def _hear(self, worker: _Worker) -> None:
        job = worker.job
        assert job is not None
        try:
            kind, *said = worker.connection.recv()
        except (EOFError, OSError):
            self._bury(worker)
            self._lost(job, worker.process.exitcode)
            return
        if kind == "warning":
            name, message = said
            warnings.warn(message, getattr(errors, name, CooptWarning), stacklevel=2)
            return
        worker.job = None
        if kind == "error":
            name, message = said
            raise getattr(errors, name, CooptError)(message)
        (settled,) = said
        if settled.how == "busy":  # with a process that is none of these
            self.later[job.name] = time.monotonic() + WAIT
            self.pending.append(job)
        note(job, settled, self.outcome, self.listener, self.progress)

    def _bury(self, worker: _Worker) -> None:
        worker.connection.close()
        worker.process.join()
        self.workers.remove(worker)

    def _lost(self, job: Job, exit_code: int | None) -> None:
        """A worker ended at a job: another one goes on with it, unless that happened before."""
        self.begun[job.name] += 1
        if self.begun[job.name] < TRIES:
            self.pending.insert(0, job)
            return
        how = f"by signal {-exit_code}" if exit_code is not None and exit_code < 0 else f"with exit code {exit_code}"
        reason = f"{TRIES} processes ended at it, the last {how}. Perhaps memory is short: use fewer processes."
        note(job, Settled(job.name, "failed", reason), self.outcome, self.listener, self.progress)

    @contextmanager
    def workers_ended(self) -> Iterator[None]:
        """Sees to it that no worker is left: at the end they leave, after Ctrl-C they let go of their jobs first."""
        try:
            yield
        except BaseException:
            for worker in self.workers:
                worker.process.terminate()
            raise
        finally:
            for worker in self.workers:
                worker.connection.close()
            until = time.monotonic() + PATIENCE
            for worker in self.workers:
                worker.process.join(max(0.0, until - time.monotonic()))
                if worker.process.is_alive():
                    worker.process.kill()
                    worker.process.join()


def _work(connection: Connection, store: Store, settings: WorkerSettings) -> None:
    """A worker's life: jobs come in as documents, and what became of them goes out, until the other side closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all processes of a terminal; the first one tells us
    signal.signal(signal.SIGTERM, _stop)

    def tell(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        connection.send(("warning", category.__name__, str(message)))

    with suppress(KeyboardInterrupt, EOFError, BrokenPipeError, ConnectionResetError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", CooptWarning)
        warnings.showwarning = tell
        try:
            _serve(connection, Store(store.folder, store.suite, store.expire), settings)
        except CooptError as error:  # the store cannot be written
            connection.send(("error", type(error).__name__, str(error)))


def _serve(connection: Connection, store: Store, settings: WorkerSettings) -> None:
    torch.set_num_threads(settings.threads or 1)
    keep_heap()  # this process does nothing else
    if settings.prepare is not None:
        settings.prepare()
    resources = Resources(settings.device, settings.download, settings.cache)
    made = {**(settings.made or {})}
    if "machine" in made:
        made["machine"] = {**made["machine"], "threads": settings.threads}
    while True:
        job = Job.from_dict(connection.recv())
        connection.send(("settled", replace(settle(job, store, resources, made), record=None)))


def _stop(number: int, frame: Any) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # another one must not stop the letting go
    raise KeyboardInterrupt
