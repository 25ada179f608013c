"""The mean of what the epochs of a run learned, each weighed as its recipe says."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from coopt.backbones.tensors import settled
from coopt.training.recipe import Recipe

MARK = "/average/"
"""What the tensors of this state are called in a checkpoint, before the parameters' names; no such name begins so."""


class EpochAverage:
    """A mean that grows by an epoch at a time; nothing where the recipe asks for none.

    Args:
        recipe: its `average_mean` and `average_std` say what each epoch counts.
    """

    def __init__(self, recipe: Recipe) -> None:
        self._recipe = recipe
        self._mean: dict[str, Tensor] = {}

    def add(self, epoch: int, parameters: Mapping[str, Tensor]) -> None:
        """Takes what an epoch, counted from 1, has left."""
        if self._recipe.average_mean is None:
            return
        share = self._recipe.share_of(epoch)
        for name, one in parameters.items():
            now = one.detach()
            self._mean[name] = self._mean[name].lerp(now, share) if name in self._mean else now.clone()

    def captured(self) -> dict[str, Tensor]:
        """The state, by the names of a checkpoint."""
        return {f"{MARK}{name}": one for name, one in self._mean.items()}

    def take(self, tensors: Mapping[str, Tensor], parameters: Mapping[str, Tensor]) -> None:
        """Goes on from what a checkpoint holds."""
        found = {name: tensors[f"{MARK}{name}"] for name in parameters if f"{MARK}{name}" in tensors}
        self._mean = {name: settled(one.to(parameters[name].device)) for name, one in found.items()}

    def put_into(self, parameters: Mapping[str, Tensor]) -> None:
        """Puts the mean in the place of what the last epoch left."""
        with torch.no_grad():
            for name, mean in self._mean.items():
                parameters[name].copy_(mean)
