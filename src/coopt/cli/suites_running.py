"""What `coopt suite run` does."""

from __future__ import annotations

import platform
import shlex
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from coopt.app.system import versions
from coopt.backbones import check_backbone_name
from coopt.backbones.loading import resolve_device
from coopt.cli.output import Output
from coopt.data import display_name
from coopt.errors import CooptError, DataError, Interrupted, ParameterError
from coopt.evaluation.execution import Resources
from coopt.evaluation.executors import Executor, SerialExecutor, states_of
from coopt.evaluation.job import Job
from coopt.evaluation.outcome import Outcome
from coopt.evaluation.processes import ProcessExecutor, WorkerSettings
from coopt.evaluation.store import Store
from coopt.suites.datasets import datasets_of
from coopt.suites.grid import Grid, TimeEstimate, estimated_time, grid_of
from coopt.suites.known import find_suite
from coopt.suites.suite import Suite
from coopt.wording import counted

DOZEN = 12
"""Runs that a dry run names one by one."""


@dataclass(frozen=True)
class RunSettings:
    """See `coopt suite run --help`."""

    name: str
    root: Path | None
    out: Path
    only: tuple[str, ...]
    shots: tuple[int, ...] | None
    seeds: tuple[int, ...] | None
    dry_run: bool
    backbones: tuple[str, ...]
    device: str
    download: bool
    cache: bool
    take_over: float | None
    jobs: int

    def grid(self) -> Grid:
        """The runs that are asked for.

        Raises:
            ParameterError: there is no such suite, or it has nothing of such a name.
            DataError: the root is no folder.
        """
        suite = find_suite(self.name)
        if self.root is not None and not suite.bundled and not self.root.is_dir():
            raise DataError(
                f"The root '{display_name(self.root)}' is not a folder. Expected the folder that holds the folders of "
                "the papers' data sets."
            )
        return grid_of(suite, datasets_of(suite, self.root), self.only, self.shots, self.seeds)

    def names(self, suite: Suite) -> dict[str, str]:
        """Key to the name that loads the backbone.

        Raises:
            ParameterError: a `--backbone` is not KEY=NAME with a key of the suite.
            BackboneError: NAME is unknown, or not on this machine.
        """
        names = {model.key: model.name for model in suite.models}
        for given in self.backbones:
            key, equals, name = given.partition("=")
            if key not in names or not equals or not name:
                raise ParameterError(
                    f"--backbone takes KEY=NAME with one of the suite's backbones as KEY: {', '.join(names)}. "
                    f"Got {given!r}."
                )
            check_backbone_name(name, self.download)
            names[key] = name
        return names

    def store(self, suite: Suite) -> Store:
        """Where the suite's records are."""
        expire = None if self.take_over is None else 3600 * self.take_over
        return Store(self.out / suite.name, suite.name, expire)

    def resources(self) -> Resources:
        """What the jobs share that are done in this process."""
        return Resources(self.device, self.download, self.cache)

    def executor(self, command: str) -> Executor:
        """Who does the jobs.

        Args:
            command: the command line, for the records.
        """
        made = {
            "versions": versions(),
            "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
            "command": command,
        }
        if self.jobs == 1:
            return SerialExecutor(self.resources(), made)
        return ProcessExecutor(self.jobs, WorkerSettings(self.device, self.download, self.cache, made))


def run_suite(settings: RunSettings, output: Output, typed: Sequence[str]) -> int:
    """Does the runs that are not there yet; returns the exit code.

    Args:
        settings: the options.
        output: where to speak.
        typed: the command line, to say how to go on.

    Raises:
        CooptError: a wrong name, or a folder that cannot be written.
        Interrupted: Ctrl-C; says what was kept.
    """
    started = time.monotonic()
    grid = settings.grid()
    jobs = grid.jobs(settings.names(grid.suite))
    resolve_device(settings.device)  # refused before the first run
    store = settings.store(grid.suite)
    if settings.dry_run:
        _say_dry(grid, jobs, store, settings, output)
        return 0
    output.say(
        f"{grid.suite.name}: {grid.suite.title}. {counted(len(jobs), 'run')}; their files are in "
        f"'{display_name(store.folder)}'."
    )
    outcome = Outcome()
    try:
        settings.executor(display_name(shlex.join(typed))).run(jobs, store, outcome)
    except KeyboardInterrupt:
        kept = len(outcome.done) + len(outcome.complete)
        raise Interrupted(
            f"Interrupted. {kept} of {counted(len(jobs), 'run')} kept in '{display_name(store.folder)}'. "
            f"Run the same command to go on:\n  {display_name(shlex.join(typed))}"
        ) from None
    _say_outcome(outcome, settings, time.monotonic() - started, output)
    return 1 if outcome.failed else 0


def _say_outcome(outcome: Outcome, settings: RunSettings, seconds: float, output: Output) -> None:
    done = f"{counted(len(outcome.done), 'run')} done in {duration(seconds)}"
    output.say(f"{done}, {counted(len(outcome.complete), 'run')} complete before.")
    if outcome.replaced:
        replaced = counted(outcome.replaced, "result")
        output.say(f"Replaced {replaced} of another model, other data or other parameters.")
    for reason, count in outcome.reasons():
        which = [name for name, said in outcome.failed.items() if said == reason]
        output.warn(
            f"{counted(count, 'run')} failed ({which[0]}{', ...' if count > 1 else ''}): {reason}", "FailedRuns"
        )
    if outcome.elsewhere:
        output.warn(
            f"Another machine claims {counted(len(outcome.elsewhere), 'run')} ({outcome.elsewhere[0]} ...). Run the suite "
            "again when it is done, or with --take-over HOURS if it is not at them any more.",
            "ClaimedRuns",
        )
    if not outcome.failed and not outcome.elsewhere:
        output.say("Next:")
        output.command(f"coopt suite show {settings.name} --out {shlex.quote(display_name(settings.out))}")
    output.result(
        {
            "suite": settings.name,
            "out": display_name(settings.out / settings.name),
            "done": outcome.done,
            "complete": outcome.complete,
            "elsewhere": outcome.elsewhere,
            "failed": outcome.failed,
            "seconds": round(seconds, 1),
        }
    )


def _say_dry(grid: Grid, jobs: Sequence[Job], store: Store, settings: RunSettings, output: Output) -> None:
    """What would be done, what is complete, what cannot be done, and how long it takes."""
    states = list(states_of(jobs, store, settings.resources()))
    to_do = [job for job, state in states if not isinstance(state, CooptError) and state != "complete"]
    complete = [job.name for job, state in states if state == "complete"]
    blocked = {job.name: str(state) for job, state in states if isinstance(state, CooptError)}
    output.say(
        f"{counted(len(states), 'run')}: {len(complete)} complete, {len(to_do)} to do"
        f"{f', {len(blocked)} that cannot be done here' if blocked else ''}."
    )
    redone = Counter(state for _, state in states if state in ("stale", "damaged"))
    if redone["stale"]:
        output.say(f"To be done again, since model, data or parameters are others now: {redone['stale']}.")
    if redone["damaged"]:
        output.say(f"To be done again, since the files are damaged: {redone['damaged']}.")
    for job in to_do[:DOZEN]:
        output.say(f"  {job.name}")
    if len(to_do) > DOZEN:
        output.say(f"  ... and {len(to_do) - DOZEN} more")
    for reason, count in Counter(blocked.values()).items():
        output.warn(f"{counted(count, 'run')} cannot be done here: {reason}", "BlockedRuns")
    time_left = estimated_time(to_do, store.whole())
    _say_time(time_left, len(to_do), grid.suite, output)
    output.result(
        {
            "suite": settings.name,
            "to_do": [job.name for job in to_do],
            "complete": complete,
            "blocked": blocked,
            "seconds": round(time_left.seconds, 1),
            "of_unknown_time": time_left.unknown,
        }
    )


def _say_time(time_left: TimeEstimate, n_jobs: int, suite: Suite, output: Output) -> None:
    known = n_jobs - time_left.unknown
    if known:
        output.say(
            f"Time for {counted(known, 'run')}: about {duration(round(time_left.seconds, 1))} in one process, as those "
            "that are done took."
        )
    if time_left.unknown:
        output.say(
            f"Time for {counted(time_left.unknown, 'run')}: not known, since no such run is done. The whole suite: "
            f"{suite.cost}."
        )


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return counted(round(seconds), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
