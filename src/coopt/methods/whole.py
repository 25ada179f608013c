"""The loss of all images at once: one text pass, however many images there are.

Notation: N images, C classes, D width of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from coopt.methods.forward import Batch, Forward, Sites, run_text
from coopt.training.loop import within_memory

IMAGES_TOGETHER = 4096
"""Images whose scores exist at once."""

Loss = Callable[[Forward, Batch], Tensor]


@dataclass(frozen=True)
class WholeLoss:
    """The loss of a method over all images; see `coopt.training.refine`.

    The gradient for the class features is summed over slices of the images, so that scores of one slice exist at a time,
    and goes through the text tower once, however many slices there are.

    Attributes:
        shared: of all steps.
        learned: leaf tensors that ask for gradients, by name.
        loss: the mean over a batch.
        images: features of the frozen tower.
        targets: class indices.
        class_weights: see `Batch`.
        shrink: makes the text pass hold less memory, or returns False.
    """

    shared: Sites
    learned: Mapping[str, Tensor]
    loss: Loss
    images: Float[Tensor, "n dim"]
    targets: Int[Tensor, " n"]
    class_weights: Float[Tensor, " classes"] | None
    shrink: Callable[[], bool]

    def __call__(self, parts: Sequence[Tensor] | None = None) -> Evaluated:
        """Evaluates it; `parts` are masks of images whose gradients are wanted one by one, all of them together all images."""
        return within_memory(lambda: self.evaluated(parts), self.shrink)

    def evaluated(self, parts: Sequence[Tensor] | None) -> Evaluated:
        """The same, in the pieces of the moment."""
        text = None if self.shared.encode is None else normalize(run_text(self.shared, self.learned), dim=-1)
        known = None if text is None else text.detach().requires_grad_()
        masks = [torch.ones_like(self.targets, dtype=torch.bool)] if parts is None else parts
        total, of_parts = 0.0, []
        for mask in masks:
            loss, gradients = self._of_images(mask.nonzero()[:, 0], known)
            total += loss
            of_parts.append(gradients)
        return Evaluated(self, parts, total, text, of_parts)

    def _of_images(self, index: Tensor, text: Tensor | None) -> tuple[float, list[Tensor | None]]:
        """Some images' part of the mean, and its gradients for the class features and for what is learned beside them."""
        leaves = [*self.learned.values(), *([] if text is None else [text])]
        total = 0.0
        sums: list[Tensor | None] = [None] * len(leaves)
        for some in index.split(IMAGES_TOGETHER):
            batch = Batch(self.images[some], self.targets[some], self.class_weights)
            share = len(some) / len(self.targets)
            loss = self.loss(Forward(self.shared, self.learned, batch, text), batch) * share
            gradients = torch.autograd.grad(loss, leaves, allow_unused=True)
            sums = [
                one if sum is None else sum if one is None else sum + one
                for sum, one in zip(sums, gradients, strict=True)
            ]
            total += float(loss.detach())
        return total, sums


@dataclass
class Evaluated:
    """The loss at one place; see `coopt.training.refine.Evaluated`.

    Attributes:
        whole, parts: what was evaluated.
        loss: the mean over all images.
        text: normalised class features, on what is learned (several sets of an ensemble); None for a method that leaves the text
            alone, and when the activations behind them are free.
        of_parts: for each part of the images the gradients for what is learned, and for `text` where there is one.
    """

    whole: WholeLoss
    parts: Sequence[Tensor] | None
    loss: float
    text: Float[Tensor, "*sets classes dim"] | None
    of_parts: list[list[Tensor | None]]

    def gradients(self) -> list[list[Tensor]]:
        """For each part of the images those for what is learned; can be asked for once, before that changes."""
        return within_memory(self._attempt, self.whole.shrink)

    def _attempt(self) -> list[list[Tensor]]:
        if self.text is None and self.whole.shared.encode is not None:  # another attempt ran out of memory
            self.text = self.whole.evaluated(self.parts).text
        try:
            return [self._of_part(i) for i in range(len(self.of_parts))]
        finally:
            self.text = None

    def _of_part(self, i: int) -> list[Tensor]:
        leaves, gradients = list(self.whole.learned.values()), self.of_parts[i]
        direct = gradients[: len(leaves)]
        if self.text is not None and gradients[-1] is not None:
            more = i + 1 < len(self.of_parts)
            through = torch.autograd.grad(self.text, leaves, gradients[-1], retain_graph=more, allow_unused=True)
            direct = [b if a is None else a if b is None else a + b for a, b in zip(direct, through, strict=True)]
        return [torch.zeros_like(leaf) if one is None else one for leaf, one in zip(leaves, direct, strict=True)]
