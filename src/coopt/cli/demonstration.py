"""What `coopt demo` does: the few-shot protocol on bundled data sets, and everything that can be shown of it."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click
import torch

from coopt.backbones import Backbone, load_backbone
from coopt.cli.demo_report import say_next, say_table, say_words, write_figures
from coopt.cli.fit_report import peak_memory, versions
from coopt.cli.output import Output
from coopt.cli.run_folder import refuse_foreign
from coopt.data import FeatureCache, ImageDataset, display_name, encode_labels, few_shot
from coopt.data.bundled import BundledDataset, bundled_datasets, find_bundled
from coopt.errors import Interrupted
from coopt.evaluation.few_shot import (
    HAND_MADE,
    NAIVE,
    Contender,
    RunResult,
    count_runs,
    few_shot_runs,
    paper_contenders,
    summarise,
)
from coopt.evaluation.results import ResultFile
from coopt.events import Tracker, tracked
from coopt.locks import writing_folder
from coopt.methods.coop import CoOp
from coopt.methods.linear_probe import search_c
from coopt.methods.saving import save
from coopt.prompts.context import DEFAULT_INIT
from coopt.prompts.words import distance_scale, nearest_words
from coopt.training.recipe import Recipe
from coopt.wording import counted

RESULTS = "results.json"
FIGURES = 4.0
"""Seconds for figures and tables, roughly, and a fifth of that for each data set."""
DEFAULT_DATA = ("backgrounds", "left-food", "objects", "animals", "paint")
"""Of different kinds: the colours of backgrounds and of objects have the same names, and only one of them needs a context;
there much is to gain, some with the left one of two things, little or nothing here; with animals something is lost."""


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
        return tuple(dict.fromkeys(find_bundled(name) for name in self.data or DEFAULT_DATA))

    def contenders(self, dataset: BundledDataset) -> tuple[Contender, ...]:
        """The methods to compare on a data set."""
        return paper_contenders(dataset.template, self.recipe, self.n_ctx)

    @property
    def learned(self) -> str:
        """The method whose prompt is saved and shown: the first CoOp."""
        return next(c.name for c in paper_contenders("{}", self.recipe, self.n_ctx) if isinstance(c.estimator, CoOp))


def run_demo(settings: DemoSettings, output: Output, typed: Sequence[str]) -> None:
    """Runs the protocol, shows and writes what came of it.

    Args:
        settings: the options.
        output: where to speak.
        typed: the command line, to say how to go on.

    Raises:
        CooptError: an unknown data set, or a folder that cannot be written.
        Interrupted: Ctrl-C; says what was kept.
    """
    started = time.monotonic()
    datasets = settings.datasets()
    total = sum(count_runs(settings.contenders(one), settings.shots, settings.seeds) for one in datasets)
    refuse_foreign(settings.out, (RESULTS,))
    _say_plan(settings, datasets, total, output)
    click.get_current_context().with_resource(writing_folder(settings.out, "--out"))
    file = ResultFile(settings.out / RESULTS)
    backbone = load_backbone("bundled")
    file.begin(_setup(settings, datasets, backbone, typed))
    cache: bool | FeatureCache = FeatureCache() if settings.cache else False
    least = _seconds(settings, datasets, backbone, cache)
    output.say(f"On this machine it takes {_span(least)}, less where results are there already.")
    shown = _Shown(settings, backbone, cache)
    try:
        with tracked("results", total) as progress:
            for dataset in datasets:
                _run_dataset(settings, dataset, file, shown, progress)
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted. {len(file.results)} of {counted(total, 'result')} kept in '{display_name(file.path)}'. "
            f"Run the same command to go on:\n  {display_name(shlex.join(typed))}"
        ) from None
    finally:
        file.save()
    _finish(settings, datasets, shown, file, output, started)


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
        backbone, n_ctx=max(settings.n_ctx, default=None), recipe=replace(settings.recipe, epochs=epochs), cache=cache
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

    def __init__(self, settings: DemoSettings, backbone: Backbone, cache: bool | FeatureCache) -> None:
        self.settings, self.backbone, self.cache = settings, backbone, cache
        self.learned: dict[str, CoOp] = {}
        self.results: dict[str, RunResult] = {}

    def look_at(self, dataset: BundledDataset, result: RunResult) -> None:
        """Keeps the result if it is the one to show."""
        wanted = (self.settings.learned, max(self.settings.shots), self.settings.seeds[0])
        if (result.method, result.shots, result.seed) != wanted:
            return
        self.results[dataset.name] = result
        if isinstance(result.estimator, CoOp):
            self.learned[dataset.name] = result.estimator

    def coop(self, dataset: BundledDataset) -> CoOp:
        """The learned prompt of a data set."""
        if dataset.name not in self.learned:  # its result was read from the file
            contender = next(c for c in self.settings.contenders(dataset) if c.name == self.settings.learned)
            shots, seeds = max(self.settings.shots), self.settings.seeds[:1]
            runs = few_shot_runs(
                dataset.load(), [contender], self.backbone, shots=[shots], seeds=seeds, cache=self.cache
            )
            self.look_at(dataset, next(runs))
        return self.learned[dataset.name]


def _run_dataset(
    settings: DemoSettings,
    dataset: BundledDataset,
    file: ResultFile,
    shown: _Shown,
    progress: Tracker,
) -> None:
    found: dict[str, list[float]] = {}
    runs = few_shot_runs(
        dataset.load(),
        settings.contenders(dataset),
        shown.backbone,
        shots=settings.shots,
        seeds=settings.seeds,
        cache=shown.cache,
        done=file.earlier,
    )
    for result in runs:
        file.add(result)
        shown.look_at(dataset, result)
        progress.update(len(file.results), dataset.name)
        if result.shots in (0, max(settings.shots)):
            found.setdefault(result.method, []).append(result.accuracy)
    means = {method: sum(values) / len(values) for method, values in found.items()}
    click.echo(
        f"{dataset.name}: naive {means[NAIVE]:.1f}, hand-made {means[HAND_MADE]:.1f}, learned from "
        f"{counted(max(settings.shots), 'image')} per class {means[settings.learned]:.1f}",
        err=True,
    )


def _setup(
    settings: DemoSettings, datasets: Sequence[BundledDataset], backbone: Backbone, typed: Sequence[str]
) -> dict[str, Any]:
    """Everything needed to do it again."""
    return {
        "command": shlex.join(typed),
        "versions": versions(),
        "machine": {
            "device": str(backbone.device),
            "platform": platform.platform(),
            "threads": torch.get_num_threads(),
        },
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
    shown: _Shown,
    file: ResultFile,
    output: Output,
    started: float,
) -> None:
    """Tables, figures, the saved prompt, and what to do next."""
    first = datasets[0]
    prompt = shown.coop(first)
    result = shown.results[first.name]
    extra = {
        "learned_from": {"dataset": first.name, "images": result.n_train, "shots": result.shots, "seed": result.seed},
        "accuracy": {"images": result.n_test, "learned": result.accuracy},
    }
    save(prompt, settings.out / "prompt", extra)
    summaries = summarise(file.results)
    words, scale = nearest_words(prompt.backbone_, prompt.context_, 3), distance_scale(prompt.backbone_)
    figures = write_figures(settings.out, _figure_note(settings), datasets, summaries, shown.coop)
    end = {
        "summary": [one.to_dict() for one in summaries],
        "prompt": {"dataset": first.name, "shots": result.shots, "seed": result.seed, "accuracy": result.accuracy},
        "nearest_words": [[word._asdict() for word in near] for near in words],
        "distance_scale": scale,
        "files": {"prompt": str(settings.out / "prompt"), **{path.name: str(path) for path in figures}},
        "seconds": round(time.monotonic() - started, 1),
        "peak_memory_bytes": peak_memory(),
    }
    file.finish(end)
    say_table(output, datasets, summaries, settings.shots)
    say_words(output, first, words, scale)
    say_next(output, settings.out, first, figures, end["seconds"])
    output.result(file.document())
