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

from coopt.backbones import Backbone, check_backbone_name, load_backbone
from coopt.backbones.loading import resolve_device
from coopt.cli.fit_report import versions
from coopt.cli.output import Output
from coopt.cli.suites_showing import records_of
from coopt.data import display_name
from coopt.errors import CooptError, DataError, Interrupted, ParameterError
from coopt.suites.catalogue import find_suite
from coopt.suites.places import places_of
from coopt.suites.plan import Plan, Task, estimate, plan_of
from coopt.suites.runner import Outcome, Runner, reasons
from coopt.suites.suite import Model, Suite
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

    def plan(self) -> Plan:
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
        return plan_of(suite, places_of(suite, self.root), self.only, self.shots, self.seeds)

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
    plan = settings.plan()
    names = settings.names(plan.suite)
    resolve_device(settings.device)  # refused before the first run

    def load(model: Model) -> Backbone:
        return load_backbone(names[model.key], settings.device, settings.download)

    runner = Runner(
        plan=plan,
        folder=settings.out / plan.suite.name,
        load=load,
        cache=settings.cache,
        made={
            "versions": versions(),
            "machine": {"platform": platform.platform(), "threads": torch.get_num_threads()},
            "command": display_name(shlex.join(typed)),
        },
        expire=None if settings.take_over is None else 3600 * settings.take_over,
    )
    if settings.dry_run:
        _say_dry(runner, settings, output)
        return 0
    total = len(plan.tasks())
    output.say(
        f"{plan.suite.name}: {plan.suite.title}. {counted(total, 'run')}; their files are in '{display_name(runner.folder)}'."
    )
    try:
        outcome = runner.run()
    except KeyboardInterrupt:
        kept = len(runner.outcome.done) + len(runner.outcome.complete)
        raise Interrupted(
            f"Interrupted. {kept} of {counted(total, 'run')} kept in '{display_name(runner.folder)}'. "
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
    for reason, count in reasons(outcome.failed):
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


def _say_dry(runner: Runner, settings: RunSettings, output: Output) -> None:
    """What would be done, what is complete, what cannot be done, and how long it takes."""
    states = list(runner.states())
    to_do = [task for task, state in states if not isinstance(state, CooptError) and state != "complete"]
    complete = sum(state == "complete" for _, state in states)
    blocked = {task.name: str(state) for task, state in states if isinstance(state, CooptError)}
    output.say(
        f"{counted(len(states), 'run')}: {complete} complete, {len(to_do)} to do"
        f"{f', {len(blocked)} that cannot be done here' if blocked else ''}."
    )
    redone = Counter(state for _, state in states if state in ("stale", "damaged"))
    if redone["stale"]:
        output.say(f"To be done again, since model, data or parameters are others now: {redone['stale']}.")
    if redone["damaged"]:
        output.say(f"To be done again, since the files are damaged: {redone['damaged']}.")
    for task in to_do[:DOZEN]:
        output.say(f"  {task.name}")
    if len(to_do) > DOZEN:
        output.say(f"  ... and {len(to_do) - DOZEN} more")
    for reason, count in reasons(blocked):
        output.warn(f"{counted(count, 'run')} cannot be done here: {reason}", "BlockedRuns")
    _say_time(runner, to_do, output)
    output.result(
        {
            "suite": settings.name,
            "to_do": [task.name for task in to_do],
            "complete": [task.name for task, state in states if state == "complete"],
            "blocked": blocked,
            **_time(runner, to_do, output),
        }
    )


def _time(runner: Runner, to_do: Sequence[Task], output: Output) -> dict[str, float | int]:
    records = records_of(runner.plan.suite, runner.folder.parent, output)
    found = estimate(to_do, records)
    return {"seconds": round(found.seconds, 1), "of_unknown_time": found.unknown}


def _say_time(runner: Runner, to_do: Sequence[Task], output: Output) -> None:
    found = _time(runner, to_do, output)
    known, unknown = len(to_do) - int(found["of_unknown_time"]), found["of_unknown_time"]
    if known:
        output.say(
            f"Time for {counted(known, 'run')}: about {duration(found['seconds'])} in one process, as those that are done "
            "took."
        )
    if unknown:
        output.say(
            f"Time for {counted(int(unknown), 'run')}: not known, since no such run is done. The whole suite: "
            f"{runner.plan.suite.cost}."
        )


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return counted(round(seconds), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
