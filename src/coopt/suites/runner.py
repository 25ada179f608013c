"""Runs a suite: whatever is not done yet, one file per run, alone or beside other processes on the same folder."""

from __future__ import annotations

import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

from coopt.backbones import Backbone
from coopt.data import FeatureCache, display_name
from coopt.errors import CooptError, CooptWarning, SavedFileError
from coopt.evaluation.claims import Claims
from coopt.evaluation.run_files import Record, find_record, write_record
from coopt.evaluation.runs import Bench, RunResult
from coopt.events import Tracker, tracked
from coopt.prompts.words import distance_scale
from coopt.suites.plan import Plan, Task
from coopt.suites.suite import Model

WAIT = 0.5
"""Seconds between looks at a run that another process of this machine is doing."""

State = Literal["complete", "missing", "stale", "damaged"]


@dataclass
class Outcome:
    """What became of the runs that were asked for.

    Attributes:
        done: names of those done now.
        complete: of those that were complete, or that another process completed meanwhile.
        elsewhere: of those that another machine claims.
        failed: name to what went wrong.
        replaced: how many there were already, but with another model, data or parameters.
    """

    done: list[str] = field(default_factory=list)
    complete: list[str] = field(default_factory=list)
    elsewhere: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    replaced: int = 0

    @property
    def settled(self) -> int:
        """How many runs there is nothing more to do about."""
        return len(self.done) + len(self.complete) + len(self.elsewhere) + len(self.failed)


@dataclass
class Runner:
    """Does a plan's runs.

    Args:
        plan: what is asked for.
        folder: of the suite's files.
        load: a backbone from a model of the suite.
        cache: of image features.
        made: what stands in every file: versions, machine, command.
        expire: seconds after which claims of other machines count no more; None: never.

    Attributes:
        outcome: what became of the runs so far.
    """

    plan: Plan
    folder: Path
    load: Callable[[Model], Backbone]
    cache: bool | FeatureCache = True
    made: dict[str, Any] = field(default_factory=dict)
    expire: float | None = None
    outcome: Outcome = field(default_factory=Outcome)
    _seconds: float = field(default=0.0, init=False)
    _latest: tuple[tuple[str, str], Bench] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._claims = Claims(self.folder, self.expire)

    def run(self) -> Outcome:
        """All runs that are not complete; one that fails is noted and does not stop the others.

        Raises:
            SavedFileError: the folder cannot be written.
            KeyboardInterrupt: Ctrl-C; `outcome` says what was done until then.
        """
        tasks = self.plan.tasks()
        with tracked(self.plan.suite.name, len(tasks)) as progress:
            while tasks:
                tasks = self._pass(tasks, progress)
                if tasks:  # other processes of this machine are at them
                    time.sleep(WAIT)
        return self.outcome

    def states(self) -> Iterable[tuple[Task, State | CooptError]]:
        """How every run stands, without doing any; in the place of the state what keeps a run from being done."""
        for tasks in _by_bench(self.plan.tasks()):
            bench = self._bench(tasks[0])
            for task in tasks:
                if isinstance(bench, CooptError):
                    yield task, bench
                    continue
                try:
                    yield task, self._state(task, bench)[0]
                except CooptError as error:
                    yield task, error

    def _pass(self, tasks: Sequence[Task], progress: Tracker) -> list[Task]:
        """Goes through runs once; returns those that other processes of this machine are at."""
        waiting: list[Task] = []
        for some in _by_bench(tasks):
            bench = self._bench(some[0])
            if isinstance(bench, CooptError):
                self.outcome.failed |= {task.name: str(bench) for task in some}
                continue
            for task in some:
                if not self._settle(task, bench):
                    waiting.append(task)
                rate = f"{self._seconds / len(self.outcome.done):.1f} s a run" if self.outcome.done else ""
                progress.update(self.outcome.settled, f"{task.place.name} {rate}")
        return waiting

    def _bench(self, task: Task) -> Bench | CooptError:
        key = (task.model.key, task.place.name)
        if self._latest is not None and self._latest[0] == key:
            return self._latest[1]
        try:
            bench = Bench(task.place.problem(self.plan.suite), self.load(task.model), self.cache)
            self._latest = key, bench
            return bench
        except CooptError as error:
            return error

    def _settle(self, task: Task, bench: Bench) -> bool:
        """Sees to one run; False when another process of this machine is at it."""
        try:
            state, _ = self._state(task, bench)
        except CooptError as error:
            self.outcome.failed[task.name] = str(error)
            return True
        if state == "complete":
            self._note_complete(task)
            return True
        standing = self._claims.take(task.name)
        if standing == "elsewhere":
            self.outcome.elsewhere.append(task.name)
        if standing != "mine":
            return standing == "elsewhere"
        with self._claims.released_at_the_end(task.name):
            state, reason = self._state(task, bench)
            if state == "complete":  # by a process that let go of it just now
                self.outcome.complete.append(task.name)
            else:
                if state == "damaged":
                    warnings.warn(f"{reason} It is done again.", CooptWarning, stacklevel=2)
                if state == "stale":
                    self.outcome.replaced += 1
                self._do(task, bench)
        return True

    def _note_complete(self, task: Task) -> None:
        if self._claims.dead(task.name):  # killed between writing and letting go
            self._claims.release(task.name)
        self.outcome.complete.append(task.name)

    def _state(self, task: Task, bench: Bench) -> tuple[State, str]:
        """How a run stands, and why. Another setting under the same name is stale: another model, data, parameters."""
        try:
            record = find_record(self.folder, task.name)
        except SavedFileError as error:
            return "damaged", str(error)
        if record is None:
            return "missing", ""
        setting = bench.setting(task.place.contender(task.entry), task.shots, task.seed)
        same = record.suite == self.plan.suite.name and record.result.run == setting.run
        return ("complete" if same else "stale"), ""

    def _do(self, task: Task, bench: Bench) -> None:
        began = time.perf_counter()
        contender = task.place.contender(task.entry)
        run = bench.setting(contender, task.shots, task.seed).run
        checkpoint = self.folder / f"{task.name}.{run[:12]}.checkpoint"
        try:
            result = bench.run(contender, task.shots, task.seed, checkpoint)
            record = Record(
                suite=self.plan.suite.name,
                backbone=task.model.key,
                result=result,
                words=_words(result, bench.backbone, self.plan.suite.words),
                made={
                    **self.made,
                    "backbone_name": display_name(bench.backbone.name),
                    "device": str(bench.backbone.device),
                },
            )
        except Exception as error:  # one method's trouble is not the others'
            kind = "" if isinstance(error, CooptError) else f"{type(error).__name__}: "
            self.outcome.failed[task.name] = f"{kind}{error}"
            checkpoint.unlink(missing_ok=True)
            return
        write_record(self.folder, record)
        checkpoint.unlink(missing_ok=True)
        self._seconds += time.perf_counter() - began
        self.outcome.done.append(task.name)


def _by_bench(tasks: Iterable[Task]) -> list[list[Task]]:
    """Runs of one backbone and data set together."""
    return [[*some] for _, some in groupby(tasks, key=lambda task: (task.model.key, task.place.name))]


def _words(result: RunResult, backbone: Backbone, top_k: int) -> dict[str, Any] | None:
    """The nearest words of each learned vector, for each class where the context is class-specific."""
    if not top_k or not hasattr(result.estimator, "nearest_words"):
        return None
    estimator: Any = result.estimator
    near = estimator.nearest_words(top_k)
    rows = (
        {name: [[one._asdict() for one in row] for row in some] for name, some in near.items()}
        if isinstance(near, dict)
        else [[one._asdict() for one in row] for row in near]
    )
    return {"vectors": rows, "scale": distance_scale(backbone)}


def reasons(failed: dict[str, str]) -> list[tuple[str, int]]:
    """What went wrong and how often, in the order in which it was met."""
    return list(Counter(failed.values()).items())
