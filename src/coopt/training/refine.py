"""Refining: after a recipe's epochs, L-BFGS on all images, for as long as halves of the images agree where to go.

Each step uses every image, so it is an epoch. Every few steps the images are halved by chance, each class as evenly as can
be, and the gradients of the two halves are compared. While what is learned holds for images in general, both halves point
into one direction. What only one half has to say is about its own images, and where the halves contradict each other, more
steps learn the images by heart. (Mahsereci et al.: "Early Stopping without a Validation Set", arXiv:1703.09580, stop at the
same sign: for two halves their criterion is that of the product of the gradients.)
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.nn.functional import cosine_similarity

from coopt.backbones.tensors import settled
from coopt.errors import TrainingError
from coopt.events import tracked
from coopt.training.batches import generator_for
from coopt.training.checkpoint import Checkpoint
from coopt.training.lbfgs import TRIES, History, enough, flat, shorter
from coopt.training.loop import SAVE_EVERY
from coopt.training.recipe import Recipe
from coopt.wording import called

EVERY = 4
"""Steps from one comparison of halves to the next: the second backward pass costs a sixth of these steps."""

DISAGREE = -0.4
"""Cosine of the halves' gradients below which they contradict each other. Near the least loss of all images the gradients of
halves are opposite whatever was learned, so 0 would stop too early."""

PATIENCE = 2
"""Comparisons in a row that must say so: halves are drawn by chance."""

FIRST = 1.3
"""Length of the first step, by the recipe's learning rate (root mean squares)."""

MARK = "/refine"
"""What the tensors of this state are called in a checkpoint; parameters' names do not begin so."""

STEPS_TAKEN = "all steps that were allowed were taken"

NOTHING_LOWER = "no step lowers the loss any more"

PASSES_TAKEN = "all text passes of the recipe were taken"

FORWARD, BACKWARD = 1, 2
"""What they cost, in thirds of a text pass."""

LEAST_THIRDS = FORWARD + 2 * BACKWARD + FORWARD + BACKWARD
"""Of the first look, which compares halves, and one step; for less, the look would be for nothing."""


@runtime_checkable
class Evaluated(Protocol):
    """The loss of all images at one place, whose gradient may still be asked for."""

    loss: float

    def gradients(self) -> list[list[Tensor]]:
        """One list of gradients, in the order of the parameters, for each part of the images; together the loss's."""
        ...


@runtime_checkable
class WholeLoss(Protocol):
    """The loss of all images under the parameters as they are."""

    def __call__(self, parts: Sequence[Tensor] | None = None) -> Evaluated:
        """Evaluates it; `parts` are masks of images whose gradients are wanted one by one."""
        ...


@dataclass
class Refined:
    """State of refining.

    Attributes:
        losses: after every step, and the loss that it began with.
        agreements: cosines of the gradients of halves, as they were compared.
        thirds: of text passes so far.
        stopped: why there are no more steps; empty while there are.
        history, gradient: of L-BFGS.
    """

    losses: list[float] = field(default_factory=list)
    agreements: list[float] = field(default_factory=list)
    thirds: int = 0
    stopped: str = ""
    history: History = field(default_factory=History)
    gradient: Tensor | None = None

    @property
    def steps(self) -> int:
        """Steps so far."""
        return max(0, len(self.losses) - 1)

    def numbers(self) -> dict[str, object]:
        """What of it goes to JSON."""
        lists = {"losses": list(self.losses), "agreements": list(self.agreements)}
        return {**lists, "thirds": self.thirds, "stopped": self.stopped}

    def tensors(self) -> dict[str, Tensor]:
        """What of it are tensors, by their names in a checkpoint."""
        named = {} if self.gradient is None else {f"{MARK}/gradient": self.gradient}
        for i, (step, change) in enumerate(self.history.pairs):
            named |= {f"{MARK}/step/{i}": step, f"{MARK}/change/{i}": change}
        return named

    @classmethod
    def of(cls, numbers: Mapping, tensors: Mapping[str, Tensor], device: torch.device) -> Refined:
        """The state that a checkpoint holds."""
        own = {name: settled(one.to(device)) for name, one in tensors.items() if name.startswith(MARK)}
        count = sum(name.startswith(f"{MARK}/step/") for name in own)
        pairs = [(own[f"{MARK}/step/{i}"], own[f"{MARK}/change/{i}"]) for i in range(count)]
        return cls(**numbers, history=History(pairs), gradient=own.get(f"{MARK}/gradient"))


def refine(
    parameters: Mapping[str, Tensor],
    whole: WholeLoss,
    recipe: Recipe,
    targets: Int[Tensor, " n"],
    views: int,
    seed: int,
    losses: Sequence[float],
    *,
    passes: float,
    units: Mapping[str, float],
    until: float | None = None,
    checkpoint: Path | None = None,
    run: str = "",
    slack: float = 0.0,
    fault: Callable[[], str | None] = lambda: None,
) -> Refined:
    """Goes on from what the epochs of a recipe learned; changes `parameters` in place.

    Args:
        parameters: named leaf tensors that ask for gradients, in float32.
        whole: the loss.
        recipe: says how many text passes there may be.
        targets: class indices of all images.
        views: how often `whole` sees each image: all of them once in one view, then in the next. No half of the images holds
            another view of what is in the other half.
        seed: of the halves.
        losses: of the epochs so far.
        passes: text passes so far.
        units: how large the numbers of each parameter are, by name.
        until: when to stop, in seconds of `time.monotonic`.
        checkpoint: see `coopt.training.loop.train`, as for the next.
        run: identifies the run.
        slack: how far rounding may move the loss.
        fault: see `coopt.training.loop.train`.

    Raises:
        TrainingError: the loss is not finite.
    """
    work = _Work(parameters, whole, recipe, targets, views, seed, units, slack, fault)
    state = _restored(checkpoint, run, parameters, targets.device) or Refined()
    limit = round(3 * (recipe.most_passes(len(targets)) - passes))
    most = max(1, limit // (FORWARD + BACKWARD))
    if not state.losses and limit < LEAST_THIRDS:
        state.stopped = PASSES_TAKEN
    unsaved, saved_at = None, time.monotonic()

    def captured() -> Checkpoint:
        tensors = {name: one.detach().clone() for name, one in parameters.items()}
        done = [*losses, *state.losses]
        more = {"epochs": len(losses), "refined": state.numbers()}
        return Checkpoint(run, tensors | state.tensors(), len(done), done, more)

    try:
        with tracked("learning from all images at once", most) as progress:
            while not state.stopped:
                work.step(state, limit)
                if not state.stopped and recipe.steps is not None and state.steps + len(losses) >= recipe.steps:
                    state.stopped = STEPS_TAKEN
                if not state.stopped and until is not None and time.monotonic() > until:
                    state.stopped = "the time is over"
                if checkpoint is not None:
                    unsaved = captured()
                    if time.monotonic() - saved_at > SAVE_EVERY:
                        unsaved.save(checkpoint)
                        unsaved, saved_at = None, time.monotonic()
                progress.update(min(most, len(state.losses)), f"loss {state.losses[-1]:.3f}")
    finally:  # the end, Ctrl-C or an error: the last complete step is kept, not one that was being tried
        if unsaved is not None and checkpoint is not None:
            unsaved.save(checkpoint)
    return state


@dataclass(frozen=True)
class _Work:
    parameters: Mapping[str, Tensor]
    whole: WholeLoss
    recipe: Recipe
    targets: Tensor
    views: int
    seed: int
    units: Mapping[str, float]
    slack: float
    fault: Callable[[], str | None]

    def step(self, state: Refined, limit: int) -> None:
        """One step, or the first look at the loss; says in the state when it was the last one."""
        if state.gradient is None:
            state.thirds += FORWARD
            here = self.whole(self._halves(state))
            state.losses.append(self._finite(here.loss, state))
            state.gradient = self._gradient(here, state)
        else:
            self._descend(state)
        if not state.stopped and state.thirds + FORWARD + BACKWARD > limit:
            state.stopped = PASSES_TAKEN

    def _descend(self, state: Refined) -> None:
        assert state.gradient is not None
        first = FIRST * self.recipe.lr
        way = state.history.direction(state.gradient, first)
        if not (slope := float(state.gradient @ way)) < 0:  # rounding spoiled what was remembered
            state.history = History()
            way = state.history.direction(state.gradient, first)
            slope = float(state.gradient @ way)
        if not slope < 0:  # of a gradient so small that its square is 0
            state.stopped = NOTHING_LOWER
            return
        begun = {name: one.detach().clone() for name, one in self.parameters.items()}
        length, before = 1.0, state.losses[-1]
        for _ in range(TRIES):
            self._move(begun, way, length)
            state.thirds += FORWARD
            there = self.whole(self._halves(state))
            if enough(length, slope, before, there.loss, self.slack):
                break
            length = shorter(length, slope, before, there.loss)
            del there  # with its activations, before there are others
        else:
            self._move(begun, torch.zeros_like(way), 0.0)
            state.stopped = NOTHING_LOWER
            return
        state.losses.append(self._finite(there.loss, state))
        gradient = self._gradient(there, state)
        state.history.add(length * way, gradient - state.gradient)
        state.gradient = gradient

    def _halves(self, state: Refined) -> Sequence[Tensor] | None:
        """Two masks of images, where this step compares halves."""
        if len(state.losses) % EVERY:
            return None
        first = halves(self.targets, self.seed, len(state.losses)).repeat(self.views)
        return first, ~first

    def _gradient(self, evaluated: Evaluated, state: Refined) -> Tensor:
        units = [self.units[name] for name in self.parameters]
        # In units: of a tensor whose numbers are small a small step is as much as a large one of another's.
        parts = [flat(one, units) for one in evaluated.gradients()]
        state.thirds += BACKWARD * len(parts)
        if len(parts) > 1:
            state.agreements.append(float(cosine_similarity(*parts, dim=0)))
            last = state.agreements[-PATIENCE:]
            if len(last) == PATIENCE and max(last) <= DISAGREE:
                state.stopped = "halves of the images no longer agree"
        total = parts[0] if len(parts) == 1 else parts[0] + parts[1]
        if not bool(total.isfinite().all()):
            raise self._error("The gradient of the loss of all images is not finite", len(state.losses) - 1)
        return total

    def _move(self, begun: Mapping[str, Tensor], way: Tensor, length: float) -> None:
        start = 0
        with torch.no_grad():
            for name, one in self.parameters.items():
                part = way[start : start + one.numel()].view_as(one)
                one.copy_(begun[name] + (length * self.units[name]) * part)
                start += one.numel()

    def _finite(self, loss: float, state: Refined) -> float:
        if not math.isfinite(loss):
            raise self._error(f"The loss of all images is {loss}", len(state.losses))
        return loss

    def _error(self, what: str, step: int) -> TrainingError:
        cause = self.fault() or f"lower the learning rate ({called('recipe.lr')})"
        return TrainingError(f"{what} at step {step}: {cause}.")


def halves(targets: Int[Tensor, " n"], seed: int, draw: int) -> Bool[Tensor, " n"]:
    """A mask of half of the images: of each class as near to half as can be.

    Args:
        targets: class indices.
        seed: of the run.
        draw: which draw of the run it is.
    """
    n = len(targets)
    order = torch.randperm(n, generator=generator_for(seed, draw, 5))
    order = order[torch.argsort(targets.cpu()[order], stable=True)]
    mask = torch.zeros(n, dtype=torch.bool)
    mask[order[::2]] = True
    return mask.to(targets.device)


def _restored(
    checkpoint: Path | None, run: str, parameters: Mapping[str, Tensor], device: torch.device
) -> Refined | None:
    """The state of a run that had begun to refine, with its parameters; None where there is none."""
    saved = None if checkpoint is None else Checkpoint.load(checkpoint, run)
    if saved is None or "refined" not in saved.more:
        return None
    with torch.no_grad():
        for name, one in parameters.items():
            one.copy_(saved.tensors[name])
    return Refined.of(saved.more["refined"], saved.tensors, device)
