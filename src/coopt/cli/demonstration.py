"""What `coopt demo` does: a suite on bundled data sets, and everything that can be shown of it."""

from __future__ import annotations

import json
import platform
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch

from coopt.app.run_folder import refuse_foreign
from coopt.app.system import peak_memory, versions
from coopt.backbones import Backbone, load_backbone
from coopt.cli.demo_report import say_next, say_table, say_words, write_figures
from coopt.cli.output import Output
from coopt.data import FeatureCache, ImageDataset, display_name, encode_labels, few_shot
from coopt.data.bundled import BundledDataset, bundled_datasets, find_bundled
from coopt.errors import CooptError, Interrupted, SavedFileError
from coopt.evaluation.execution import Resources, execute
from coopt.evaluation.executors import SerialExecutor
from coopt.evaluation.job import Job
from coopt.evaluation.outcome import Outcome, Settled
from coopt.evaluation.run_files import Record
from coopt.evaluation.store import Store
from coopt.files import write_json
from coopt.locks import writing_folder
from coopt.methods.coop import CoOp
from coopt.methods.linear_probe import search_c
from coopt.methods.saving import save
from coopt.prompts.context import DEFAULT_INIT
from coopt.prompts.words import distance_scale, nearest_words
from coopt.runtime import Runtime
from coopt.suites.datasets import datasets_of
from coopt.suites.demo import DATASETS, demo_suite
from coopt.suites.grid import Grid, grid_of
from coopt.suites.papers import HAND_MADE, NAIVE
from coopt.suites.scores import Scores
from coopt.suites.tables import curve_points, table_of
from coopt.training.recipe import Recipe
from coopt.wording import counted

RESULTS, FORMAT = "results.json", 2
FIGURES = 4.0
"""Seconds for figures and tables, roughly, and a fifth of that for each data set."""


@dataclass(frozen=True)
class DemoSettings:
    """See `coopt demo --help`."""

    out: Path
    data: tuple[str, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]
    recipe: Recipe
    n_ctx: tuple[int, ...]
    cache: bool

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
        suite = demo_suite(names, self.shots, self.seeds, self.recipe.to_dict(), self.n_ctx)
        return grid_of(suite, datasets_of(suite))

    @property
    def results(self) -> Path:
        """The file with everything that came of it."""
        return self.out / RESULTS


def run_demo(settings: DemoSettings, output: Output, typed: Sequence[str]) -> None:
    """Runs the suite, shows and writes what came of it.

    Args:
        settings: the options.
        output: where to speak.
        typed: the command line, to say how to go on.

    Raises:
        CooptError: an unknown data set, or a folder that cannot be written.
        Interrupted: Ctrl-C; says what was kept.
    """
    started = time.monotonic()
    datasets, grid = settings.datasets(), settings.grid()
    jobs = grid.jobs()
    store = Store(settings.out / grid.suite.name, grid.suite.name)
    refuse_foreign(settings.out, (RESULTS, grid.suite.name))
    _refuse_other_results(settings.results)
    _say_plan(settings, datasets, len(jobs), output)
    click.get_current_context().with_resource(writing_folder(settings.out, "--out"))
    resources = Resources(cache=settings.cache)
    backbone = load_backbone("bundled")
    least = _seconds(settings, datasets, backbone, resources.cache)
    output.say(f"On this machine it takes {_span(least)}, less where results are there already.")
    shown, outcome = _Shown(grid, store, resources), Outcome()
    made = {"versions": versions(), "machine": _machine(backbone), "command": display_name(shlex.join(typed))}
    try:
        SerialExecutor(resources, made).run(jobs, store, outcome, shown.hear)
    except KeyboardInterrupt:
        kept = len(outcome.done) + len(outcome.complete)
        raise Interrupted(
            f"Interrupted. {kept} of {counted(len(jobs), 'result')} kept in '{display_name(store.folder)}'. "
            f"Run the same command to go on:\n  {display_name(shlex.join(typed))}"
        ) from None
    _refuse_incomplete(outcome, store)
    setup = _setup(settings, datasets, backbone, typed)
    records = [store.read(job.name) for job in jobs]
    _finish(settings, datasets, grid, records, shown, setup, output, started)


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


def _refuse_incomplete(outcome: Outcome, store: Store) -> None:
    for reason, count in outcome.reasons():
        raise CooptError(f"{counted(count, 'run')} failed ({next(iter(outcome.failed))}): {reason}")
    if outcome.elsewhere:
        raise CooptError(
            f"Another machine is at {counted(len(outcome.elsewhere), 'run')} in '{display_name(store.folder)}'. Wait for "
            "it, or choose another --out."
        )


def _say_plan(settings: DemoSettings, datasets: Sequence[BundledDataset], total: int, output: Output) -> None:
    names = ", ".join(one.name for one in datasets)
    output.say(
        f"Learning prompts on {counted(len(datasets), 'bundled data set')} ({names}) from "
        f"{', '.join(map(str, settings.shots))} image{'s' * (settings.shots != (1,))} per class, "
        f"{counted(len(settings.seeds), 'seed')} each, and comparing with prompts made by hand and with a linear probe."
    )
    output.say(
        f"The {counted(total, 'result')} go to '{display_name(settings.out)}' as they come: Ctrl-C loses nothing."
    )


def _seconds(
    settings: DemoSettings, datasets: Sequence[BundledDataset], backbone: Backbone, cache: bool | FeatureCache
) -> float:
    """How long it takes on this machine at least: some images are encoded, a probe is fitted, a few steps learned."""
    data = datasets[0].load()
    one_each = few_shot(data, 1, settings.seeds[0]).train
    epochs = 5 if settings.recipe.views else 1
    estimator = CoOp(
        backbone,
        n_ctx=max(settings.n_ctx, default=None),
        recipe=replace(settings.recipe, epochs=epochs),
        runtime=Runtime(cache=cache),
    )
    estimator.set_params(class_names=datasets[0].class_names)
    images = torch.ones(len(one_each), backbone.embed_dim) if settings.recipe.views else list(one_each.paths)
    for _ in range(2):  # the first time, libraries set themselves up
        began = time.perf_counter()
        estimator.fit(images, list(one_each.labels))
        epoch = (time.perf_counter() - began) / epochs
    estimator.image_features(list(one_each.paths))  # likewise
    sample = few_shot(data, min(max(settings.shots), 4), settings.seeds[0]).train
    began = time.perf_counter()
    features = estimator.image_features(list(sample.paths)).features[0].cpu().numpy()
    image = (time.perf_counter() - began) / len(sample)
    targets, _ = encode_labels(sample.labels, datasets[0].class_names)
    began = time.perf_counter()
    search_c(features, targets, features, targets)
    probe = time.perf_counter() - began
    # Fresh views cost in proportion to the images; a step on cached features costs much the same with any number.
    fits = [settings.recipe.epochs_for(k) * epoch * (1 if settings.recipe.views else k) for k in settings.shots]
    curves = max(1, len(settings.n_ctx)) * sum(fits) + len(settings.shots) * probe
    images_of_all = sum(_images_used(settings, described.load()) for described in datasets)
    return len(datasets) * len(settings.seeds) * curves + images_of_all * image + FIGURES * (1 + len(datasets) / 5)


def _images_used(settings: DemoSettings, data: ImageDataset) -> int:
    """How many different images are encoded, roughly."""
    drawn = max(settings.shots) * len(data.class_names) * len(settings.seeds)
    return min(drawn, len(data.train)) + sum(0 if part is None else len(part) for part in (data.val, data.test))


def _figure_note(settings: DemoSettings) -> str:
    """What the numbers in the figure are."""
    seeds = "one seed" if len(settings.seeds) == 1 else f"mean and standard deviation of {len(settings.seeds)} seeds"
    return (
        f"accuracy on the test pictures, {seeds} · bundled model · recipe {settings.recipe.name} · "
        f"{_context(settings.n_ctx)}"
    )


def _context(n_ctx: Sequence[int]) -> str:
    if not n_ctx:
        return f'the context begins as "{DEFAULT_INIT}"'
    if tuple(n_ctx) == (1,):
        return "1 context vector that begins at random"
    return f"{' and '.join(map(str, n_ctx))} context vectors that begin at random"


def _span(least: float) -> str:
    """From so many seconds to twice as many, for people: nobody knows what else the machine will do."""
    for unit, seconds in (("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0)):
        step = 10 if unit == "seconds" else 1
        low = max(step, step * round(least / seconds / step))
        if low < 45 or unit == "hours":
            break
    return f"{low} to {2 * low} {unit}"


class _Shown:
    """The fitted methods of the largest sample of the first seed, which are saved and shown; made again if need be."""

    def __init__(self, grid: Grid, store: Store, resources: Resources) -> None:
        self.grid, self.store, self.resources = grid, store, resources
        self.method = next(entry.name for entry in grid.entries if entry.method == CoOp.method)
        self.jobs = {job.dataset.name: job for job in grid.jobs() if self._is_shown(job)}
        self.learned: dict[str, CoOp] = {}
        self._left = [job.name for job in grid.jobs()]
        self._accuracies: dict[str, list[float]] = {}

    def _is_shown(self, job: Job) -> bool:
        return (job.method, job.shots, job.seed) == (self.method, max(self.grid.shots), self.grid.seeds[0])

    def hear(self, job: Job, settled: Settled) -> None:
        """Keeps what is to be shown of a job, and says how a data set came out when its last one is settled."""
        self._left.remove(job.name)
        if settled.how not in ("done", "complete"):
            return
        record = settled.record or self.store.read(job.name)
        if self._is_shown(job) and isinstance(record.result.estimator, CoOp):
            self.learned[job.dataset.name] = record.result.estimator
        if job.shots in (0, max(self.grid.shots)):
            self._accuracies.setdefault(job.method, []).append(record.result.accuracy)
        if not any(name.startswith(f"{job.backbone_key}.{job.dataset.name}.") for name in self._left):
            self._say(job.dataset.name)

    def _say(self, dataset: str) -> None:
        means = {method: sum(values) / len(values) for method, values in self._accuracies.items()}
        self._accuracies = {}
        if {NAIVE.name, HAND_MADE.name, self.method} <= set(means):  # none of them failed
            click.echo(
                f"{dataset}: naive {means[NAIVE.name]:.1f}, hand-made {means[HAND_MADE.name]:.1f}, learned from "
                f"{counted(max(self.grid.shots), 'image')} per class {means[self.method]:.1f}",
                err=True,
            )

    def coop(self, dataset: BundledDataset) -> CoOp:
        """The learned prompt of a data set."""
        if dataset.name not in self.learned:  # its record was there already
            estimator = execute(self.jobs[dataset.name], self.resources).result.estimator
            assert isinstance(estimator, CoOp)
            self.learned[dataset.name] = estimator
        return self.learned[dataset.name]


def _setup(
    settings: DemoSettings, datasets: Sequence[BundledDataset], backbone: Backbone, typed: Sequence[str]
) -> dict[str, Any]:
    """Everything needed to do it again."""
    return {
        "command": shlex.join(typed),
        "versions": versions(),
        "machine": _machine(backbone),
        "backbone": {
            "name": backbone.name,
            "fingerprint": backbone.fingerprint,
            "preprocessing": backbone.preprocessing.id,
        },
        "recipe": settings.recipe.to_dict(),
        "n_ctx": list(settings.n_ctx),
        "shots": list(settings.shots),
        "seeds": list(settings.seeds),
        "datasets": [_described(one) for one in datasets],
    }


def _machine(backbone: Backbone) -> dict[str, Any]:
    return {"device": str(backbone.device), "platform": platform.platform(), "threads": torch.get_num_threads()}


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


def _finish(
    settings: DemoSettings,
    datasets: Sequence[BundledDataset],
    grid: Grid,
    records: Sequence[Record],
    shown: _Shown,
    setup: dict[str, Any],
    output: Output,
    started: float,
) -> None:
    """Tables, figures, the saved prompt, and what to do next."""
    first = datasets[0]
    prompt = shown.coop(first)
    result = next(one.result for one in records if one.name == shown.jobs[first.name].name)
    extra = {
        "learned_from": {"dataset": first.name, "images": result.n_train, "shots": result.shots, "seed": result.seed},
        "accuracy": {"images": result.n_test, "learned": result.accuracy},
    }
    save(prompt, settings.out / "prompt", extra)
    table = table_of(Scores(grid, records))
    points = curve_points(table)
    words, scale = nearest_words(prompt.backbone_, prompt.context_, 3), distance_scale(prompt.backbone_)
    figures = write_figures(settings.out, _figure_note(settings), datasets, points, shown.coop)
    seconds = round(time.monotonic() - started, 1)
    document = {
        "format": FORMAT,
        "kind": "few-shot",
        "setup": setup,
        "results": [record.result.to_dict() for record in records],
        "summary": [one.to_dict() for one in points],
        "prompt": {"dataset": first.name, "shots": result.shots, "seed": result.seed, "accuracy": result.accuracy},
        "nearest_words": [[word._asdict() for word in near] for near in words],
        "distance_scale": scale,
        "files": {"prompt": str(settings.out / "prompt"), **{path.name: str(path) for path in figures}},
        "seconds": seconds,
        "peak_memory_bytes": peak_memory(),
    }
    write_json(settings.results, document)
    say_table(output, datasets, table)
    say_words(output, first, words, scale)
    say_next(output, settings.out, first, figures, seconds)
    output.result(document)
