"""The training loop: one for all methods."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from coopt.backbones.tensors import settled
from coopt.errors import TrainingError
from coopt.events import tracked
from coopt.training.average import EpochAverage
from coopt.training.checkpoint import Checkpoint
from coopt.training.recipe import Recipe
from coopt.wording import called, setting

T = TypeVar("T")

SAVE_EVERY = 5.0
"""Seconds between checkpoints; what is lost when a run is killed."""

MEASURED = 2
"""Epochs that tell how many there is time for."""


@dataclass(frozen=True)
class Observer:
    """Hooks for those who watch a run: after each step with its loss, after each epoch with its number and parameters."""

    on_step: Callable[[Tensor], None] = lambda loss: None
    on_epoch: Callable[[int, dict[str, Tensor]], None] = lambda epoch, parameters: None


def train(
    parameters: dict[str, Tensor],
    loss_of: Callable[[Tensor, Tensor], Tensor],
    batches: Callable[[int], Iterable[tuple[Tensor, Tensor]]],
    recipe: Recipe,
    epochs: int,
    *,
    checkpoint: Path | None = None,
    run: str = "",
    observer: Observer | None = None,
    units: Mapping[str, float] | None = None,
    until: float | None = None,
    shrink: Callable[[], bool] | None = None,
    fault: Callable[[], str | None] = lambda: None,
) -> list[float]:
    """Trains `parameters` in place.

    Args:
        parameters: named leaf tensors that ask for gradients, in float32.
        loss_of: the loss of (features, targets).
        batches: given an epoch (from 0), its steps.
        recipe: optimiser and schedule.
        epochs: how many.
        checkpoint: where to keep the state; a run that was stopped goes on from there.
        run: identifies the run in its checkpoint.
        observer: is told of every step and epoch.
        units: how large the numbers of each parameter are, by name: Adam's learning rate is in these; None: 1.
        until: when to stop, in seconds of `time.monotonic`; the learning rates fall in time for it.
        shrink: makes `loss_of` hold less memory, or returns False; asked when a GPU has no more, and the step is repeated.
        fault: what makes a loss that is not finite, besides the learning rate; asked only then.

    Returns:
        The mean loss of every epoch.

    Raises:
        TrainingError: a loss is not finite, the checkpoint is of another run, or a GPU's memory is too small.
    """
    observer = observer or Observer()
    optimizer = _optimizer(parameters, recipe, units or {})
    gradient = _Gradient(optimizer, loss_of, shrink or (lambda: False), fault)
    average = EpochAverage(recipe)
    losses, more = [], {}
    if checkpoint is not None and (saved := Checkpoint.load(checkpoint, run)) is not None:
        if "refined" not in saved.more:
            _restore(saved.tensors, parameters, optimizer)
            average.take(saved.tensors, parameters)
        losses, more = list(saved.losses), dict(saved.more)
    epochs = more.get("epochs", epochs)
    rates = recipe.learning_rates(epochs)
    done_before, began = len(losses), time.monotonic()
    state, saved_at = None, began
    try:
        with tracked("learning", epochs) as progress:
            while (epoch := len(losses)) < epochs:
                losses.append(_epoch(optimizer, rates[epoch], gradient, batches(epoch), observer, epoch))
                average.add(epoch + 1, parameters)
                observer.on_epoch(epoch, parameters)
                if until is not None and not more and len(losses) - done_before == MEASURED:
                    per_epoch = (time.monotonic() - began) / MEASURED
                    epochs = min(epochs, len(losses) + max(0, int((until - time.monotonic()) / per_epoch)))
                    more, rates = {"epochs": epochs}, recipe.learning_rates(epochs)
                if checkpoint is not None:
                    captured = _capture(parameters, optimizer) | average.captured()
                    state = Checkpoint(run, captured, epoch + 1, list(losses), more)
                    if time.monotonic() - saved_at > SAVE_EVERY:
                        state.save(checkpoint)
                        state, saved_at = None, time.monotonic()
                progress.update(epoch + 1, f"loss {losses[-1]:.3f}")  # last: whoever listens may stop here
    finally:  # the end, Ctrl-C or an error: the last complete epoch is kept
        if state is not None and checkpoint is not None:
            state.save(checkpoint)
    average.put_into(parameters)
    return losses[:epochs]


@dataclass(frozen=True)
class _Gradient:
    """A step's loss with its gradient, whole: a step that ran out of memory leaves nothing behind."""

    optimizer: torch.optim.Optimizer
    loss_of: Callable[[Tensor, Tensor], Tensor]
    shrink: Callable[[], bool]
    fault: Callable[[], str | None]

    def __call__(self, features: Tensor, targets: Tensor) -> Tensor:
        smaller = f"Take a smaller batch ({called('recipe.batch_size')}), end"
        return within_memory(lambda: self._attempt(features, targets), self.shrink, smaller)

    def _attempt(self, features: Tensor, targets: Tensor) -> Tensor:
        self.optimizer.zero_grad(set_to_none=True)
        loss = self.loss_of(features, targets)
        loss.backward()
        return loss.detach()


def within_memory(attempt: Callable[[], T], shrink: Callable[[], bool], advice: str = "End") -> T:
    """What `attempt` returns, asked again in smaller pieces for as long as a GPU has too little memory for it.

    Args:
        attempt: leaves nothing behind where it fails.
        shrink: makes the next attempt hold less, or returns False.
        advice: what to do when nothing helps, up to "what else runs on the GPU".

    Raises:
        TrainingError: it cannot hold less.
    """
    while True:
        try:
            return attempt()
        except torch.cuda.OutOfMemoryError:
            pass
        # Only here is the failed attempt's memory free: its error held every tensor that was being worked on.
        if not shrink():
            raise TrainingError(
                "The GPU has too little memory for a training step, even with the classes one by one. "
                f"{advice} what else runs on the GPU, or use {setting('device', 'cpu')}."
            )
        torch.cuda.empty_cache()


def _epoch(
    optimizer: torch.optim.Optimizer,
    rate: float,
    gradient: _Gradient,
    steps: Iterable[tuple[Tensor, Tensor]],
    observer: Observer,
    epoch: int,
) -> float:
    for group in optimizer.param_groups:
        group["lr"] = rate * group["unit"]
    total, count = None, 0
    for features, targets in steps:
        loss = gradient(features, targets)
        optimizer.step()
        observer.on_step(loss)
        total = loss if total is None else total + loss
        count += 1
    # One look at the loss per epoch: on a GPU every look waits for all work in flight.
    mean = float(total) / count if total is not None else math.nan
    if not math.isfinite(mean):
        cause = gradient.fault() or f"lower the learning rate ({called('recipe.lr')})"
        raise TrainingError(f"The loss of epoch {epoch + 1} is {mean}: {cause}.")
    return mean


def _optimizer(parameters: dict[str, Tensor], recipe: Recipe, units: Mapping[str, float]) -> torch.optim.Optimizer:
    if recipe.optimizer == "adam":
        groups = []
        for name, one in parameters.items():
            unit = units.get(name, 1.0)
            # A step of `unit` times the learning rate: what is decayed by it, and what gradients are compared with, stay.
            scaled = {"weight_decay": recipe.weight_decay / unit, "eps": recipe.eps / unit}
            groups.append({"params": [one], "unit": unit, **scaled})
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.beta1, recipe.beta2))
    groups = [{"params": list(parameters.values()), "unit": 1.0}]
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, weight_decay=recipe.weight_decay)


def _capture(parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Copies of the parameters ("name") and their optimiser state ("name/key")."""
    tensors = {}
    for name, parameter in parameters.items():
        tensors[name] = parameter.detach().clone()
        for key, value in optimizer.state[parameter].items():
            tensors[f"{name}/{key}"] = value.detach().clone()
    return tensors


def _restore(tensors: dict[str, Tensor], parameters: dict[str, Tensor], optimizer: torch.optim.Optimizer) -> None:
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(tensors[name])
        keys = [key for key in tensors if key.startswith(f"{name}/")]
        for key in keys:
            value = tensors[key]
            tensor = value if value.ndim == 0 else value.to(parameter.device)
            optimizer.state[parameter][key.split("/", 1)[1]] = settled(tensor)
