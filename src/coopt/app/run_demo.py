"""The demonstration: a suite on bundled data sets, and everything that can be shown of it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from coopt import events
from coopt.app.demo_hard import HardResult, hard_result
from coopt.app.demo_time import least_seconds, span
from coopt.app.requests import Request
from coopt.app.run_folder import refuse_foreign
from coopt.app.run_suite import told_when_interrupted
from coopt.app.system import machine, peak_memory, versions
from coopt.backbones import Backbone, load_backbone
from coopt.data import display_name
from coopt.data.bundled import BundledDataset, bundled_datasets, find_bundled
from coopt.errors import CooptError, SavedFileError
from coopt.evaluation.execution import Resources, execute
from coopt.evaluation.executors import SerialExecutor
from coopt.evaluation.job import Job
from coopt.evaluation.outcome import Outcome, Settled
from coopt.evaluation.run_files import Record
from coopt.evaluation.runs import RunResult
from coopt.evaluation.store import Store
from coopt.files import write_json
from coopt.locks import writing_folder
from coopt.methods.coop import CoOp
from coopt.methods.saving import save
from coopt.prompts.words import NearestWord, distance_scale, nearest_words
from coopt.report.demo_figures import figure_note, write_figures
from coopt.suites.datasets import datasets_of
from coopt.suites.demo import DATASETS, HARD, HARD_SHOTS, demo_suite, hard_suite
from coopt.suites.grid import Grid, grid_of
from coopt.suites.papers import HAND_MADE, NAIVE
from coopt.suites.scores import Scores
from coopt.suites.tables import Table, curve_points, table_of
from coopt.training.recipe import Recipe
from coopt.wording import called, counted

RESULTS, FORMAT = "results.json", 2


@dataclass(frozen=True)
class DemoRequest(Request):
    """To see the whole of coopt at work on bundled data sets.

    Attributes:
        out: where results, figures and the prompt go.
        data: names of bundled data sets, or "all"; none: five of different kinds, and a hard one beside them.
        shots: labelled images per class.
        seeds: of samples and learning.
        recipe: how CoOp is trained.
        n_ctx: lengths of contexts that begin at random, a curve each; none: one of "a photo of a".
        cache: image features are kept on disk.
    """

    out: Path = Path("coopt-demo")
    data: tuple[str, ...] = ()
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: tuple[int, ...] = (1, 2, 3)
    recipe: str | dict[str, Any] = "fast"
    n_ctx: tuple[int, ...] = ()
    cache: bool = True

    def datasets(self) -> tuple[BundledDataset, ...]:
        """The data sets asked for, each once.

        Raises:
            DataError: there is no data set of that name.
        """
        if "all" in self.data:
            return bundled_datasets()
        return tuple(dict.fromkeys(find_bundled(name) for name in self.data or DATASETS))

    def grid(self) -> Grid:
        """What is run."""
        names = [one.name for one in self.datasets()]
        suite = demo_suite(names, self.shots, self.seeds, Recipe.of(self.recipe).to_dict(), self.n_ctx)
        return grid_of(suite, datasets_of(suite))

    def hard_grid(self) -> Grid | None:
        """What is run on the hard problem beside them; None where data sets were named."""
        if self.data:
            return None
        suite = hard_suite(self.seeds[0], Recipe.of(self.recipe).to_dict(), next(iter(self.n_ctx), None))
        return grid_of(suite, datasets_of(suite))


@dataclass(frozen=True)
class DatasetDone(events.Event):
    """All runs on a data set are there: mean accuracies of the naive, the hand-made and the learned prompt, in percent."""

    dataset: str
    naive: float
    hand_made: float
    learned: float
    shots: int

    def __str__(self) -> str:
        return (
            f"{self.dataset}: naive {self.naive:.1f}, hand-made {self.hand_made:.1f}, learned from "
            f"{counted(self.shots, 'image')} per class {self.learned:.1f}"
        )


@dataclass(frozen=True)
class DemoResult:
    """What came of the demonstration.

    Attributes:
        out: the folder that was written.
        setup: everything needed to do it again.
        datasets: what was learned from.
        records: all runs.
        table: their table, without the hard problem.
        hard: what came of the hard problem beside them; None where data sets were named.
        shown: the run whose prompt was saved, of the first data set.
        words: the words nearest to each vector of that prompt.
        scale: what their distances mean.
        figures: files that were written.
        seconds: that it took.
        memory: the most bytes that the process held; None: not known.
        warnings: what was warned of.
    """

    out: Path
    setup: dict[str, Any]
    datasets: tuple[BundledDataset, ...]
    records: tuple[Record, ...]
    table: Table
    shown: RunResult
    words: tuple[tuple[NearestWord, ...], ...]
    scale: dict[str, float]
    figures: tuple[Path, ...]
    seconds: float
    memory: int | None
    hard: HardResult | None = None
    warnings: tuple[events.Warned, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        shown = self.shown
        return {
            "format": FORMAT,
            "kind": "few-shot",
            "setup": self.setup,
            "results": [record.result.to_dict() for record in self.records],
            "summary": [one.to_dict() for one in curve_points(self.table)],
            "hard": None if self.hard is None else asdict(self.hard),
            "prompt": {"dataset": shown.dataset, "shots": shown.shots, "seed": shown.seed, "accuracy": shown.accuracy},
            "nearest_words": [[word._asdict() for word in near] for near in self.words],
            "distance_scale": self.scale,
            "files": {"prompt": str(self.out / "prompt"), **{path.name: str(path) for path in self.figures}},
            "seconds": round(self.seconds, 1),
            "peak_memory_bytes": self.memory,
        }


def run_demo(request: DemoRequest | None = None, *, command: str | None = None, **options: Any) -> DemoResult:
    """Runs the suite of the demonstration, and writes tables, figures and a prompt.

    Args:
        request: what is asked for.
        command: how it is started, for the record and for the message of an interrupted one; None: this call.
        options: fields of `DemoRequest`.

    Raises:
        CooptError: an unknown data set, a folder that cannot be written, or a run that failed.
        Interrupted: Ctrl-C; says what was kept. The same call goes on.
    """
    request = DemoRequest.of(request, **options)
    began = time.monotonic()
    with events.warnings_collected() as warned:
        grid = request.grid()
        refuse_foreign(request.out, (RESULTS, grid.suite.name))
        _refuse_other_results(request.out / RESULTS)
        _say_plan(request, grid)
        with writing_folder(request.out, called("out")):
            demonstration = _Demonstration(request, grid, command or "coopt.app.run_demo(...)")
            demonstration.run()
            result = demonstration.result()
            result = replace(result, seconds=time.monotonic() - began, warnings=tuple(warned))
            write_json(request.out / RESULTS, result.to_dict())
            return result


def _refuse_other_results(path: Path) -> None:
    """Refuses to replace a file that is not of a demonstration."""
    try:
        kind = json.loads(path.read_text(encoding="utf-8"))["kind"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        kind = f"no kind: {error}"
    if kind != "few-shot":
        raise SavedFileError(
            f"{path} is not a file of results that this coopt can go on from ({kind}). Move it away, or choose another "
            "folder."
        )


def _say_plan(request: DemoRequest, grid: Grid) -> None:
    names = ", ".join(one.name for one in grid.datasets)
    events.say(
        f"Learning prompts on {counted(len(grid.datasets), 'bundled data set')} ({names}) from "
        f"{', '.join(map(str, request.shots))} image{'s' * (request.shots != (1,))} per class, "
        f"{counted(len(request.seeds), 'seed')} each, and comparing with prompts made by hand and with a linear probe."
    )
    hard = request.hard_grid()
    if hard is not None:
        events.say(
            f"Beside them a hard one, once, from {counted(HARD_SHOTS, 'image')} per class: {HARD}, all bundled data sets "
            "at once."
        )
    n_jobs = counted(len(grid.jobs()) + (0 if hard is None else len(hard.jobs())), "result")
    events.say(f"The {n_jobs} go to '{display_name(request.out)}' as they come: Ctrl-C loses nothing.")


class _Demonstration:
    """The runs, and the fitted methods of the largest sample of the first seed, which are saved and shown."""

    def __init__(self, request: DemoRequest, grid: Grid, command: str) -> None:
        self.request, self.grid, self.command = request, grid, command
        self.jobs, self.datasets = grid.jobs(), request.datasets()
        self.hard = request.hard_grid()
        self.hard_jobs = [] if self.hard is None else self.hard.jobs()
        self.store = Store(request.out / grid.suite.name, grid.suite.name)
        self.resources = Resources(cache=request.cache)
        self.backbone = load_backbone("bundled")
        self.method = next(entry.name for entry in grid.entries if entry.method == CoOp.method)
        self.shown = {job.dataset.name: job for job in self.jobs if self._is_shown(job)}
        self.learned: dict[str, CoOp] = {}
        self._left = [job.dataset.name for job in (*self.jobs, *self.hard_jobs)]
        self._accuracies: dict[str, list[float]] = {}

    def run(self) -> None:
        """All runs that are not there yet."""
        recipe = Recipe.of(self.request.recipe)
        least = least_seconds(
            self.grid, self.datasets, recipe, self.request.n_ctx, self.backbone, self.resources.cache, self.hard
        )
        events.say(f"On this machine it takes {span(least)}, less where results are there already.")
        made = {"versions": versions(), "machine": machine(self.backbone.device), "command": self.command}
        outcome, jobs = Outcome(), [*self.jobs, *self.hard_jobs]
        with told_when_interrupted(outcome, jobs, "result", self.store, self.command):
            SerialExecutor(self.resources, made).run(jobs, self.store, outcome, self._hear)
        _refuse_incomplete(outcome, self.store)

    def _is_shown(self, job: Job) -> bool:
        return (job.method, job.shots, job.seed) == (self.method, max(self.grid.shots), self.grid.seeds[0])

    def _hear(self, job: Job, settled: Settled) -> None:
        """Keeps what is to be shown of a job, and tells how a data set came out when its last one is settled."""
        self._left.remove(job.dataset.name)
        if settled.how in ("done", "complete"):
            record = settled.record or self.store.read(job.name)
            if self._is_shown(job) and isinstance(record.result.estimator, CoOp):
                self.learned[job.dataset.name] = record.result.estimator
            if job.shots in (0, max(self.grid.shots)):
                self._accuracies.setdefault(job.method, []).append(record.result.accuracy)
        if job.dataset.name not in self._left:
            self._tell(job.dataset.name)

    def _tell(self, dataset: str) -> None:
        means = {method: sum(values) / len(values) for method, values in self._accuracies.items()}
        self._accuracies = {}
        told = [means.get(method) for method in (NAIVE.name, HAND_MADE.name, self.method)]
        naive, hand_made, learned = told
        if naive is not None and hand_made is not None and learned is not None:  # none of them failed
            events.emit(DatasetDone(dataset, naive, hand_made, learned, max(self.grid.shots)))

    def coop(self, dataset: BundledDataset) -> CoOp:
        """The learned prompt of a data set."""
        if dataset.name not in self.learned:  # its record was there already
            estimator = execute(self.shown[dataset.name], self.resources).result.estimator
            assert isinstance(estimator, CoOp)
            self.learned[dataset.name] = estimator
        return self.learned[dataset.name]

    def result(self) -> DemoResult:
        """Saves the prompt and draws the figures."""
        out, first = self.request.out, self.datasets[0]
        records = tuple(self.store.read(job.name) for job in (*self.jobs, *self.hard_jobs))
        shown = next(one.result for one in records if one.name == self.shown[first.name].name)
        prompt = self.coop(first)
        extra = {
            "learned_from": {"dataset": first.name, "images": shown.n_train, "shots": shown.shots, "seed": shown.seed},
            "accuracy": {"images": shown.n_test, "learned": shown.accuracy},
        }
        save(prompt, out / "prompt", extra)
        table = table_of(Scores(self.grid, records))
        note = figure_note(len(self.request.seeds), Recipe.of(self.request.recipe).name, self.request.n_ctx)
        figures = write_figures(out, note, self.datasets, curve_points(table), self.coop)
        return DemoResult(
            out=out,
            setup=_setup(self.request, self.datasets, self.backbone, self.command),
            datasets=self.datasets,
            records=records,
            table=table,
            shown=shown,
            words=tuple(tuple(near) for near in nearest_words(prompt.backbone_, prompt.context_, 3)),
            scale=distance_scale(prompt.backbone_),
            figures=tuple(figures),
            seconds=0.0,
            memory=peak_memory(),
            hard=None if self.hard is None else hard_result(self.hard_jobs, self.store),
        )


def _refuse_incomplete(outcome: Outcome, store: Store) -> None:
    for reason, count in outcome.reasons():
        raise CooptError(f"{counted(count, 'run')} failed ({next(iter(outcome.failed))}): {reason}")
    if outcome.elsewhere:
        raise CooptError(
            f"Another machine is at {counted(len(outcome.elsewhere), 'run')} in '{display_name(store.folder)}'. Wait for "
            f"it, or choose another {called('out')}."
        )


def _setup(
    request: DemoRequest, datasets: Sequence[BundledDataset], backbone: Backbone, command: str
) -> dict[str, Any]:
    """Everything needed to do it again."""
    return {
        "command": command,
        "versions": versions(),
        "machine": machine(backbone.device),
        "backbone": {
            "name": backbone.name,
            "fingerprint": backbone.fingerprint,
            "preprocessing": backbone.preprocessing.id,
        },
        "recipe": Recipe.of(request.recipe).to_dict(),
        "n_ctx": list(request.n_ctx),
        "shots": list(request.shots),
        "seeds": list(request.seeds),
        "datasets": [_described(one) for one in datasets],
        "hard": None if request.data else _described(find_bundled(HARD)),
    }


def _described(dataset: BundledDataset) -> dict[str, Any]:
    loaded = dataset.load()
    return {
        "name": dataset.name,
        "description": dataset.description,
        "hash": loaded.hash,
        "class_names": list(dataset.class_names),
        "template": dataset.template,
        "train": len(loaded.train),
        "val": 0 if loaded.val is None else len(loaded.val),
        "test": 0 if loaded.test is None else len(loaded.test),
    }
