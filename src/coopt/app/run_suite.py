"""Running a suite: whatever is not done yet, one record a run, alone or beside other processes on the same folder."""

from __future__ import annotations

import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from coopt import events
from coopt.app.requests import Request
from coopt.app.system import versions
from coopt.backbones import check_backbone_name
from coopt.backbones.loading import resolve_device
from coopt.data import display_name
from coopt.errors import CooptError, DataError, Interrupted, ParameterError
from coopt.evaluation.execution import Resources
from coopt.evaluation.executors import Executor, SerialExecutor, states_of
from coopt.evaluation.job import Job
from coopt.evaluation.outcome import Outcome
from coopt.evaluation.processes import ProcessExecutor, WorkerSettings
from coopt.evaluation.store import Store
from coopt.suites.checks import check_grid
from coopt.suites.datasets import datasets_of
from coopt.suites.from_file import is_suite_file
from coopt.suites.grid import Grid, estimated_time, grid_of
from coopt.suites.known import SUITES, find_suite
from coopt.suites.suite import Suite
from coopt.wording import called, counted


@dataclass(frozen=True)
class SuiteRequest(Request):
    """To do the runs of a suite that are not there yet.

    Attributes:
        name: of the suite, or a Python file that defines one.
        root: the folder that holds the papers' data sets; None: where COOPT_DATA_ROOT says.
        out: the folder of results, in which each suite has its own.
        only: backbones, data sets and methods of the suite; of each kind that is named, the others are left out.
        shots: in the place of the suite's own.
        seeds: likewise.
        backbones: other names for backbones of the suite, each as KEY=NAME.
        device: "auto", "cpu", "cuda", ...
        download: weights may be fetched from the network.
        cache: image features are kept on disk.
        take_over: hours after which runs are done that another machine claims; None: never.
        jobs: how many runs are done at a time, each in a process of its own.
    """

    name: str
    root: Path | None = None
    out: Path = Path("results")
    only: tuple[str, ...] = ()
    shots: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None
    backbones: tuple[str, ...] = ()
    device: str = "auto"
    download: bool = False
    cache: bool = True
    take_over: float | int | None = None
    jobs: int = 1


@dataclass(frozen=True)
class SuiteResult:
    """What became of a suite's runs.

    Attributes:
        suite: its name.
        folder: with its records.
        outcome: which runs were done, complete before, claimed by another machine, or failed.
        seconds: that it took.
        warnings: what was warned of.
    """

    suite: str
    folder: Path
    outcome: Outcome
    seconds: float
    warnings: tuple[events.Warned, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "suite": self.suite,
            "out": display_name(self.folder),
            "done": self.outcome.done,
            "complete": self.outcome.complete,
            "elsewhere": self.outcome.elsewhere,
            "failed": self.outcome.failed,
            "seconds": round(self.seconds, 1),
            "warnings": [one.to_record() for one in self.warnings],
        }


@dataclass(frozen=True)
class SuiteStatus:
    """How the runs of a suite stand.

    Attributes:
        suite: its name.
        cost: what the whole suite takes.
        to_do: names of runs that are to be done.
        complete: of those that are complete.
        blocked: name to what keeps a run from being done here.
        stale, damaged: how many of those to do are done again, since the setting is another now or the record is damaged.
        seconds: that those to do take, as far as runs of their kind are done.
        unknown: how many of them nothing is known about.
        warnings: what was warned of.
    """

    suite: str
    cost: str
    to_do: tuple[str, ...]
    complete: tuple[str, ...]
    blocked: dict[str, str]
    stale: int
    damaged: int
    seconds: float
    unknown: int
    warnings: tuple[events.Warned, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "suite": self.suite,
            "to_do": list(self.to_do),
            "complete": list(self.complete),
            "blocked": self.blocked,
            "seconds": round(self.seconds, 1),
            "of_unknown_time": self.unknown,
            "warnings": [one.to_record() for one in self.warnings],
        }


def run_suite(suite: SuiteRequest | str | Path, *, command: str | None = None, **options: Any) -> SuiteResult:
    """Does the runs of a suite that are not there yet; one that fails does not stop the others.

    Args:
        suite: its name, a file that defines one, or the whole request.
        command: how the run is started, for the records and for the message of an interrupted run; None: this call.
        options: fields of `SuiteRequest`.

    Raises:
        CooptError: a wrong name, parameters that its methods do not take, or a folder that cannot be written.
        Interrupted: Ctrl-C; says what was kept. The same call goes on.
    """
    request = _request(suite, options)
    with events.warnings_collected() as warned:
        return replace(_run(request, command or f"coopt.app.run_suite({request.name!r}, ...)"), warnings=tuple(warned))


def _run(request: SuiteRequest, command: str) -> SuiteResult:
    began = time.monotonic()
    grid, jobs, store = _asked_for(request)
    events.say(
        f"{grid.suite.name}: {grid.suite.title}. {counted(len(jobs), 'run')}; their files are in "
        f"'{display_name(store.folder)}'."
    )
    outcome = Outcome()
    with told_when_interrupted(outcome, jobs, "run", store, command):
        _executor(request, command).run(jobs, store, outcome)
    _warn_of(outcome)
    return SuiteResult(grid.suite.name, store.folder, outcome, time.monotonic() - began)


@contextmanager
def told_when_interrupted(
    outcome: Outcome, jobs: Sequence[Job], what: str, store: Store, command: str
) -> Iterator[None]:
    """Makes Ctrl-C an `Interrupted` that says how many jobs are kept, and how to go on.

    Args:
        outcome: is filled within this context.
        jobs: all that are asked for.
        what: a word for one.
        store: where they are kept. What was written last, and not told of any more, counts as well.
        command: goes on.
    """
    names = [job.name for job in jobs]
    before = store.written(names)
    try:
        yield
    except KeyboardInterrupt:
        new = [name for name, when in store.written(names).items() if before.get(name) != when]
        kept = len({*outcome.done, *outcome.complete, *new})
        raise Interrupted(
            f"Interrupted. {kept} of {counted(len(jobs), what)} kept in '{display_name(store.folder)}'. "
            f"Run the same command to go on:\n  {command}"
        ) from None


def suite_status(suite: SuiteRequest | str | Path, **options: Any) -> SuiteStatus:
    """How the runs of a suite stand, and how long those that are left take; does none.

    Args:
        suite: its name, a file that defines one, or the whole request.
        options: fields of `SuiteRequest`.

    Raises:
        CooptError: a wrong name, or parameters that its methods do not take.
    """
    request = _request(suite, options)
    with events.warnings_collected() as warned:
        return replace(_status(request), warnings=tuple(warned))


def _status(request: SuiteRequest) -> SuiteStatus:
    grid, jobs, store = _asked_for(request)
    states = list(states_of(jobs, store, _resources(request)))
    to_do = [job for job, state in states if not isinstance(state, CooptError) and state != "complete"]
    blocked = {job.name: str(state) for job, state in states if isinstance(state, CooptError)}
    for reason, count in Counter(blocked.values()).items():
        events.emit(events.Warned(f"{counted(count, 'run')} cannot be done here: {reason}", "BlockedRuns"))
    again = Counter(state for _, state in states if state in ("stale", "damaged"))
    time_left = estimated_time(to_do, store.whole())
    return SuiteStatus(
        suite=grid.suite.name,
        cost=grid.suite.cost,
        to_do=tuple(job.name for job in to_do),
        complete=tuple(job.name for job, state in states if state == "complete"),
        blocked=blocked,
        stale=again["stale"],
        damaged=again["damaged"],
        seconds=time_left.seconds,
        unknown=time_left.unknown,
    )


def _request(suite: SuiteRequest | str | Path, options: dict[str, Any]) -> SuiteRequest:
    if isinstance(suite, SuiteRequest):
        return SuiteRequest.of(suite, **options)
    return SuiteRequest.of(name=str(suite), **options)


def _asked_for(request: SuiteRequest) -> tuple[Grid, list[Job], Store]:
    """What is to be done and where; whatever can be known to be wrong with it is found here, before anything is run."""
    suite = find_suite(request.name)
    if request.root is not None and not suite.bundled and not request.root.is_dir():
        raise DataError(
            f"The root '{display_name(request.root)}' is not a folder. Expected the folder that holds the folders of "
            "the papers' data sets."
        )
    grid = grid_of(suite, datasets_of(suite, request.root), request.only, request.shots, request.seeds)
    check_grid(grid)
    names = _backbone_names(suite, request)
    resolve_device(request.device)
    expire = None if request.take_over is None else 3600 * request.take_over
    return grid, grid.jobs(names), Store(request.out / suite.name, suite.name, expire)


def _backbone_names(suite: Suite, request: SuiteRequest) -> dict[str, str]:
    """Key to the name that loads the backbone."""
    names = {model.key: model.name for model in suite.models}
    for given in request.backbones:
        key, equals, name = given.partition("=")
        if key not in names or not equals or not name:
            raise ParameterError(
                f"{called('backbones')} takes KEY=NAME with one of the suite's backbones as KEY: {', '.join(names)}. "
                f"Got {given!r}."
            )
        check_backbone_name(name, request.download)
        names[key] = name
    return names


def _resources(request: SuiteRequest) -> Resources:
    return Resources(request.device, request.download, request.cache)


def _executor(request: SuiteRequest, command: str) -> Executor:
    made = {
        "versions": versions(),
        "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
        "command": command,
    }
    if request.jobs == 1:
        return SerialExecutor(_resources(request), made)
    others = is_suite_file(request.name) or SUITES.origin(request.name) is not None
    prepare = partial(find_suite, request.name) if others else None  # its file or package may make methods known
    settings = WorkerSettings(request.device, request.download, request.cache, made, prepare=prepare)
    return ProcessExecutor(request.jobs, settings)


def _warn_of(outcome: Outcome) -> None:
    for reason, count in outcome.reasons():
        which = [name for name, why in outcome.failed.items() if why == reason]
        named = f"{which[0]}{', ...' if count > 1 else ''}"
        events.emit(events.Warned(f"{counted(count, 'run')} failed ({named}): {reason}", "FailedRuns"))
    if outcome.elsewhere:
        message = (
            f"Another machine claims {counted(len(outcome.elsewhere), 'run')} ({outcome.elsewhere[0]} ...). Run the suite "
            f"again when it is done, or with {called('take_over')} HOURS if it is not at them any more."
        )
        events.emit(events.Warned(message, "ClaimedRuns"))
