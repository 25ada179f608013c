"""How long the demonstration takes on this machine: a little of each kind of its work is done and timed."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from coopt.backbones import Backbone
from coopt.data import FeatureCache, ImageDataset, encode_labels, few_shot
from coopt.data.bundled import BundledDataset
from coopt.methods.coop import CoOp
from coopt.methods.linear_probe import search_c
from coopt.runtime import Runtime
from coopt.suites.grid import Grid
from coopt.training.recipe import Recipe

FIGURES = 4.0
"""Seconds for figures and tables, roughly, and a fifth of that for each data set."""


def least_seconds(
    grid: Grid,
    datasets: Sequence[BundledDataset],
    recipe: Recipe,
    n_ctx: Sequence[int],
    backbone: Backbone,
    cache: bool | FeatureCache,
    hard: Grid | None = None,
) -> float:
    """How long it takes on this machine at least: some images are encoded, a probe is fitted, a few steps learned.

    Args:
        grid: what is run.
        datasets: its data sets.
        recipe: how CoOp is trained.
        n_ctx: lengths of contexts, a curve each; none: one curve.
        backbone: the frozen model.
        cache: of image features.
        hard: what is run beside it on a hard problem.
    """
    data = datasets[0].load()
    one_each = few_shot(data, 1, grid.seeds[0]).train
    epochs = 5 if recipe.views else 1
    few = replace(recipe, epochs=epochs, lbfgs=None, steps=None, seconds=None)
    estimator = CoOp(backbone, n_ctx=max(n_ctx, default=None), recipe=few, runtime=Runtime(cache=cache))
    estimator.set_params(class_names=datasets[0].class_names)
    images = torch.ones(len(one_each), backbone.embed_dim) if recipe.views else list(one_each.paths)
    for _ in range(2):  # the first time, libraries set themselves up
        began = time.perf_counter()
        estimator.fit(images, list(one_each.labels))
        epoch = (time.perf_counter() - began) / epochs
    estimator.image_features(list(one_each.paths))  # likewise
    sample = few_shot(data, min(max(grid.shots), 4), grid.seeds[0]).train
    began = time.perf_counter()
    features = estimator.image_features(list(sample.paths)).features[0].cpu().numpy()
    image = (time.perf_counter() - began) / len(sample)
    targets, _ = encode_labels(sample.labels, datasets[0].class_names)
    began = time.perf_counter()
    search_c(features, targets, features, targets)
    probe = time.perf_counter() - began
    epochs_of_all = sum(_epochs(recipe, k, len(described.class_names)) for described in datasets for k in grid.shots)
    learning = max(1, len(n_ctx)) * epochs_of_all * epoch + len(datasets) * len(grid.shots) * probe
    images_of_all = sum(_images_used(grid, described.load()) for described in datasets)
    if hard is not None:  # encoding its images takes most of its time
        images_of_all += sum(_images_used(hard, one.reference.load()) for one in hard.datasets)
    return len(grid.seeds) * learning + images_of_all * image + FIGURES * (1 + len(datasets) / 5)


def _epochs(recipe: Recipe, shots: int, classes: int) -> int:
    """How many epochs of one image per class a fit takes the time of, with the steps of L-BFGS that may follow."""
    epochs = recipe.epochs_for(shots)
    if recipe.views == 0:  # fresh views cost in proportion to the images; cached features much the same with any number
        return epochs * shots
    if recipe.goes_on(shots * classes, classes):
        epochs = max(epochs, recipe.most_passes(shots * classes))
    return min(epochs, recipe.steps or epochs)


def _images_used(grid: Grid, data: ImageDataset) -> int:
    """How many different images are encoded, roughly."""
    drawn = max(grid.shots) * len(data.class_names) * len(grid.seeds)
    return min(drawn, len(data.train)) + sum(0 if part is None else len(part) for part in (data.val, data.test))


def span(least: float) -> str:
    """From so many seconds to twice as many, for people: nobody knows what else the machine will do."""
    for unit, seconds in (("seconds", 1.0), ("minutes", 60.0), ("hours", 3600.0)):
        step = 10 if unit == "seconds" else 1
        low = max(step, step * round(least / seconds / step))
        if low < 45 or unit == "hours":
            break
    return f"{low} to {2 * low} {unit}"
