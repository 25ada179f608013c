"""Freshly augmented views of training images, as features of the frozen tower."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.data import extract_features
from coopt.runtime import Precision
from coopt.training.batches import Views, generator_for

FRESH_VIEWS_TOGETHER = 512
"""Freshly augmented views that are encoded in one go."""


def fresh_views(backbone: Backbone, images: Sequence[Any], epochs: int, seed: int, precision: Precision) -> Views:
    """A new augmented view of every image in every epoch.

    Several epochs are encoded together: images are decoded once for them, and a few images alone would leave the image tower
    idle. Which epochs go together depends on nothing else, so a resumed run sees the same bits.
    """
    together = max(1, FRESH_VIEWS_TOGETHER // len(images))
    known: dict[int, Tensor] = {}

    def fresh(epoch: int) -> Float[Tensor, "n dim"]:
        if epoch not in known:
            known.clear()
            first = epoch - epoch % together
            block = range(first, min(first + together, epochs))
            seeds = [int(torch.randint(2**31, (), generator=generator_for(seed, e, 2))) for e in block]
            encoded = extract_features(backbone, images, views=seeds, precision=precision)
            known.update(zip(block, encoded.features.to(backbone.device), strict=True))
        return known[epoch]

    return fresh
