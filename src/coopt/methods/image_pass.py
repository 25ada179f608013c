"""The images of a step through a changed image tower, a few at a time where all of them would take too much memory.

Notation: n images, D dimension of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from coopt.text.memory import ALLOCATOR

WORKING = 1.5
"""What the backward pass holds of a block at most, as a multiple of what the block keeps for it."""

BLOCKS = 8
"""Of a tower whose blocks are not known, such as a ResNet's: its largest stage is at most this share of the whole."""


class ImageChanges(NamedTuple):
    """What is put into an image tower.

    Attributes:
        weights: what stands for weights of the tower, by name.
        tokens: what is added at its blocks.
        read: by what the mean of the added tokens is projected, for a feature of their own; None: they are not read out.
    """

    weights: Mapping[str, Tensor]
    tokens: Mapping[int, Tensor]
    read: Tensor | None = None

    @property
    def tensors(self) -> list[Tensor]:
        """All of them."""
        return [*self.weights.values(), *self.tokens.values(), *([] if self.read is None else [self.read])]


@dataclass
class ImagePass:
    """Features of a step's images under what is learned.

    Images that do not fit into memory together run one part after another; the backward pass computes each part a second time,
    so that the activations of one part exist at a time. That moves results by rounding alone.

    Attributes:
        tower: the frozen one, which is shared and not changed.
        batch: images of a step.
        pixel_bytes: of one image.
        image_bytes: what one image's activations take, and the most that is held beside them while their gradient is
            computed.
        learned_bytes: of what is learned for the image tower, its gradients and the optimiser's state.
        together: images that run at once.
    """

    tower: nn.Module
    batch: int
    pixel_bytes: int
    image_bytes: tuple[int, int]
    learned_bytes: int
    together: int

    def __call__(self, pixels: Float[Tensor, "n 3 height width"], changes: ImageChanges) -> Float[Tensor, "n dim"]:
        """Features of preprocessed pixels, not normalised."""
        if len(pixels) <= self.together or not torch.is_grad_enabled():
            return changed_features(self.tower, pixels, changes)

        def run(part: Tensor) -> Tensor:
            return changed_features(self.tower, part, changes)

        parts = pixels.split(self.together)
        return torch.cat([checkpoint(run, one, use_reentrant=False, preserve_rng_state=False) for one in parts])

    @property
    def fixed(self) -> int:
        """Bytes that a step holds however many images run at once."""
        return self.learned_bytes + self.batch * self.pixel_bytes

    def total(self, together: int | None = None) -> int:
        """Bytes that a step holds for its images above the model, at most, with so many of them at once."""
        return self.fixed + int(ALLOCATOR * (together or self.together) * sum(self.image_bytes))

    def fit_into(self, memory: int) -> None:
        """Bounds the activations of the images that run at once; one image at least."""
        self.together = max(1, min(self.batch, int(memory / (ALLOCATOR * sum(self.image_bytes)))))

    def shrink(self) -> bool:
        """Halves the images that run at once; False where one does already."""
        if self.together == 1:
            return False
        self.together = (min(self.together, self.batch) + 1) // 2
        return True


def changed_features(tower: nn.Module, pixels: Tensor, changes: ImageChanges) -> Float[Tensor, "n dim"]:
    """Features of an image tower with other weights and added tokens, not normalised."""
    added = {"at_block": dict(changes.tokens), "read": changes.read} if changes.tokens else {}
    return functional_call(tower, dict(changes.weights), (pixels,), added)


def image_pass(
    tower: Any,
    size: tuple[int, int],
    batch: int,
    changes: Callable[[], ImageChanges],
    learned: Mapping[str, Tensor],
) -> ImagePass:
    """The pass for steps of so many images, all at once; what one image takes is measured by running one.

    Args:
        tower: the frozen image tower.
        size: of an image, in pixels.
        batch: images of a step.
        changes: gives what is put in, computed of `learned`.
        learned: leaf tensors, by name.
    """
    device = next(tower.parameters()).device
    known = {one.untyped_storage().data_ptr() for one in (*tower.parameters(), *tower.buffers(), *learned.values())}
    kept: dict[int, int] = {}

    def count(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    pixels = torch.zeros(1, 3, *size, device=device)
    with torch.enable_grad():
        put_in = changes()
        computed = [one for one in put_in.tensors if one.untyped_storage().data_ptr() not in known]
        known |= {one.untyped_storage().data_ptr() for one in (pixels, *computed)}
        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            features = changed_features(tower, pixels, put_in)
    del features
    total = sum(kept.values())
    # Blocks before the first with tokens keep nothing.
    before = min(put_in.tokens, default=0) if not put_in.weights else 0
    largest = WORKING * total / (max(0, getattr(tower, "depth", 0) - before) or BLOCKS)
    held = 4 * sum(one.nbytes for one in learned.values()) + 2 * sum(one.nbytes for one in computed)
    return ImagePass(tower, batch, pixels.nbytes, (total, int(largest)), held, batch)
