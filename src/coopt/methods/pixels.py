"""The pixels of training images, for methods that put something into the image tower."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.backbones import Preprocessing
from coopt.data.sources import BadContent, View, decode_views, default_workers, ordered_map, read_content
from coopt.training.batches import batch_order, generator_for
from coopt.training.recipe import Recipe


@dataclass(frozen=True)
class TrainingPixels:
    """The pixels of training images, step by step.

    Attributes:
        images: paths and PIL images, or pixels that are preprocessed already.
        preprocessing: the backbone's.
        recipe: its `views` say how images are looked at; see `coopt.Recipe`.
        seed: of views and order.
    """

    images: Sequence[Any] | Float[Tensor, "n 3 height width"]
    preprocessing: Preprocessing
    recipe: Recipe
    seed: int

    def steps(self, epoch: int) -> Iterator[tuple[Int[Tensor, " batch"], Float[Tensor, "batch 3 height width"]]]:
        """Which images each step of an epoch takes, and their pixels."""
        order = batch_order(len(self.images), epoch, self.recipe, self.seed)
        if isinstance(self.images, Tensor):
            yield from ((index, self.images[index].float()) for index in order)
            return
        views, workers = self.views(epoch), default_workers()
        with ThreadPoolExecutor(workers, thread_name_prefix="coopt-decode") as pool:
            for index in order:
                items = [(i, views[i]) for i in index.tolist()]
                yield index, torch.stack(list(ordered_map(pool, self._pixels, items, window=2 * workers)))

    def views(self, epoch: int) -> list[View]:
        """How every image is looked at in an epoch: drawn as for the methods that learn from features."""
        n = len(self.images)
        if self.recipe.views == 0:
            return [int(torch.randint(2**31, (), generator=generator_for(self.seed, epoch, 2)))] * n
        drawn = torch.randint(self.recipe.views, (n,), generator=generator_for(self.seed, epoch, 1))
        return ["test" if view == 0 else view for view in drawn.tolist()]

    def _pixels(self, item: tuple[int, View]) -> Float[Tensor, "3 height width"]:
        position, view = item
        content = read_content((position, self.images[position]), self.preprocessing.value_range)
        decoded = content if isinstance(content, BadContent) else decode_views(content, self.preprocessing, [view])
        if isinstance(decoded, BadContent):
            raise decoded.error
        return decoded[0][0]
