"""Which images, in which view, make which step: drawn from (seed, epoch) alone, so that any epoch can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.training.recipe import Recipe

Views = Callable[[int], Float[Tensor, "n dim"]]
"""Given an epoch, the image features that it trains on."""


def generator_for(seed: int, *parts: int) -> torch.Generator:
    """A generator that depends on the seed and on which draw this is, and on nothing that was drawn before."""
    mixed = int(seed) & 0xFFFFFFFF  # numpy's integers would wrap around
    for part in parts:
        mixed = (mixed * 6364136223846793005 + part + 1442695040888963407) & 0x7FFFFFFFFFFFFFFF
    return torch.Generator().manual_seed(mixed)


def cached_views(features: Float[Tensor, "views n dim"], seed: int) -> Views:
    """Every epoch takes one of each image's cached views."""
    n_views, n = features.shape[:2]

    def views(epoch: int) -> Tensor:
        if n_views == 1:
            return features[0]
        chosen = torch.randint(n_views, (n,), generator=generator_for(seed, epoch, 1))
        return features[chosen.to(features.device), torch.arange(n, device=features.device)]

    return views


def batch_order(n: int, epoch: int, recipe: Recipe, seed: int) -> list[Int[Tensor, " batch"]]:
    """The images of each step of an epoch, in random order; an incomplete last batch is dropped if there is another."""
    order = torch.randperm(n, generator=generator_for(seed, epoch, 0))
    return list(order.split(recipe.batch_size))[: recipe.steps_of(n)]


def batches_of(
    views: Views, targets: Int[Tensor, " n"], recipe: Recipe, seed: int
) -> Callable[[int], Iterator[tuple[Tensor, Tensor]]]:
    """Given an epoch, its steps as (features, targets)."""

    def batches(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        features = views(epoch)
        for index in batch_order(len(targets), epoch, recipe, seed):
            index = index.to(features.device)
            yield features[index], targets[index]

    return batches
