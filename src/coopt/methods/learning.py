"""How a `LearnedMethod` learns: the epochs of its recipe, and the steps from all images at once that may follow.

Notation: N images, V cached views, C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.methods.sites import Site, changes_text, text_tokens
from coopt.methods.whole import WholeLoss
from coopt.training.batches import batch_order
from coopt.training.loop import Observer, train
from coopt.training.recipe import Recipe
from coopt.training.refine import STEPS_TAKEN, refine

BF16_SLACK = 2e-3
"""How far the rounding of bf16 moves a loss, at most."""


@dataclass(frozen=True)
class Objective:
    """What a method minimises, made of its `sites` and its `loss`.

    Attributes:
        loss_of: the loss of a step's (images, targets); see `Batch`.
        operations: floating-point operations of one step, roughly: small work is kept on one thread.
        shrink: makes the steps that follow hold less memory; False where that cannot be.
        whole: the loss of all of some images; None where every image costs a text pass, or its pixels.
    """

    loss_of: Callable[[Tensor, Tensor], Tensor]
    operations: int
    shrink: Callable[[], bool] = lambda: False
    whole: Callable[[Tensor, Tensor], WholeLoss] | None = None


@dataclass(frozen=True)
class AllImages:
    """What the steps after the epochs learn from.

    Attributes:
        features: of all images in all cached views, (V, N, D).
        targets: classes of the images, (N,).
        passes_per_epoch: text passes of an epoch before.
        enough: whether there are such steps.
    """

    features: Float[Tensor, "views n dim"]
    targets: Int[Tensor, " n"]
    passes_per_epoch: int
    enough: bool


def all_images(
    cached: Float[Tensor, "views n dim"] | None,
    targets: Int[Tensor, " n"],
    n_classes: int,
    recipe: Recipe,
    seed: int,
    sites: Sequence[Site],
) -> AllImages:
    """All images in all cached views, and whether these are enough for steps after the epochs.

    Args:
        cached: features of the frozen tower; None: there are none.
        targets: classes of the n images.
        n_classes: how many there are, with and without images.
        recipe: how they are learned from.
        seed: of the order of images.
        sites: where what is learned is put.
    """
    tokens = text_tokens(sites)
    each = [len(some) for some in batch_order(len(targets), 0, recipe, seed)]
    passes = sum(each) if tokens is not None and tokens.per_image else len(each)
    passes = passes if changes_text(sites) else 0
    if cached is None or not recipe.goes_on(len(targets), n_classes):
        return AllImages(torch.empty(0, len(targets), 0), targets, passes, enough=False)
    return AllImages(cached, targets, passes, enough=True)


class Came(NamedTuple):
    """What came of learning; see the attributes of `LearnedMethod`."""

    losses: list[float]
    text_passes: float
    stopped: str
    agreements: list[float]


def learn(
    objective: Objective,
    learned: dict[str, Tensor],
    batches: Callable[[int], Any],
    recipe: Recipe,
    epochs: int,
    all_images: AllImages | None,
    *,
    seed: int,
    units: Mapping[str, float],
    checkpoint: Path | None = None,
    run: str = "",
    observer: Observer | None = None,
    slack: float = 0.0,
    fault: Callable[[], str | None] = lambda: None,
) -> Came:
    """The epochs of a recipe, and the steps after them; changes `learned` in place.

    Args:
        objective: what is minimised.
        learned: named leaf tensors that ask for gradients, in float32.
        batches: given an epoch, its steps.
        recipe: how.
        epochs: how many.
        all_images: for the steps after the epochs; None: there are none.
        seed: of all that is random.
        units: how large the numbers of each tensor are, by name.
        checkpoint: see `coopt.training.loop.train`, as for the next two.
        run: identifies the run.
        observer: is told of every step and epoch.
        slack: how far rounding may move the loss.
        fault: see `coopt.training.loop.train`.
    """
    until = None if recipe.seconds is None else time.monotonic() + recipe.seconds
    losses = train(
        learned,
        objective.loss_of,
        batches,
        recipe,
        epochs,
        checkpoint=checkpoint,
        run=run,
        observer=observer,
        units=units,
        until=until,
        shrink=objective.shrink,
        fault=fault,
    )
    passes = float(len(losses) * (0 if all_images is None else all_images.passes_per_epoch))
    if len(losses) < epochs or (until is not None and time.monotonic() > until):
        return Came(losses, passes, "the time is over", [])
    if recipe.steps is not None and len(losses) >= recipe.steps:
        return Came(losses, passes, STEPS_TAKEN, [])
    if all_images is None or not all_images.enough or objective.whole is None:
        return Came(losses, passes, "all epochs of the recipe were done", [])
    refined = refine(
        learned,
        objective.whole(all_images.features.flatten(0, 1), all_images.targets.repeat(len(all_images.features))),
        recipe,
        all_images.targets,
        len(all_images.features),
        seed,
        losses,
        passes=passes,
        units=units,
        until=until,
        checkpoint=checkpoint,
        run=run,
        slack=slack,
        fault=fault,
    )
    # The first of its losses is that of the place where it began.
    return Came([*losses, *refined.losses[1:]], passes + refined.thirds / 3, refined.stopped, refined.agreements)


def class_weights(targets: Int[Tensor, " n"], n_classes: int, balance: float) -> Float[Tensor, " classes"] | None:
    """What an image of each class counts: n to the power of -`balance` for a class with n, 1 on average over the images.

    None where all count alike, as of classes with equally many images.
    """
    counts = torch.bincount(targets, minlength=n_classes).clamp_min(1).double()
    weights = counts**-balance
    if bool((weights == weights[0]).all()):
        return None
    return (weights * (len(targets) / weights[targets].sum())).float()
