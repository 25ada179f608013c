"""Features chunk by chunk: classes that do not fit into memory together run one after another.

Activations of a chunk are not kept for the gradient, but for the last one's where there is room: the backward pass computes
the other chunks a second time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.text.fast import Learned

Inputs = Mapping[int | str, Learned]
"""What is learned: vectors, by the block at whose input they stand, and weights by their name."""


class Chunk(NamedTuple):
    """Some of the classes: which, and their features (G, classes, D) under what is learned for them."""

    classes: Int[Tensor, " classes"]
    run: Callable[[Inputs], Tensor]

    def of(self, inputs: Inputs) -> Inputs:
        """What the chunk needs: with class-specific vectors those of its own classes, in its order."""
        return {
            key: Learned(one.vectors[self.classes], True) if one.class_specific else one for key, one in inputs.items()
        }


def run_chunks(chunks: Sequence[Chunk], inputs: Inputs, keep_last: bool) -> Float[Tensor, "groups all_classes dim"]:
    """Features of all chunks, in their order.

    Args:
        chunks: which.
        inputs: what is learned.
        keep_last: whether the last chunk's activations are kept for the gradient.
    """
    if len(chunks) == 1 or not inputs:
        return torch.cat([chunk.run(chunk.of(inputs)) for chunk in chunks], dim=1)
    specific = {key: one.class_specific for key, one in inputs.items()}
    return cast(Tensor, _Recomputed.apply(chunks, specific, keep_last, *(one.vectors for one in inputs.values())))


class _Recomputed(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx, chunks: Sequence[Chunk], specific: dict[int | str, bool], keep_last: bool, *tensors: Tensor
    ) -> Tensor:
        ctx.chunks, ctx.specific = chunks, specific
        ctx.asked = ctx.needs_input_grad[3:]
        ctx.save_for_backward(*tensors)
        *others, last = chunks
        features = [chunk.run(chunk.of(_named(specific, tensors))) for chunk in others]
        ctx.last = None
        if keep_last and any(ctx.asked):
            ctx.last = _with_activations(last, _named(specific, tensors), ctx.asked)
            features.append(ctx.last[1].detach())
        else:
            features.append(last.run(last.of(_named(specific, tensors))))
        return torch.cat(features, dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        tensors: tuple[Tensor, ...] = ctx.saved_tensors
        inputs = _named(ctx.specific, tensors)
        gathered = [torch.zeros_like(one) for one, asked in zip(tensors, ctx.asked, strict=True) if asked]
        specific = [one for one, asked in zip(ctx.specific.values(), ctx.asked, strict=True) if asked]
        grads = grad.split([len(chunk.classes) for chunk in ctx.chunks], dim=1)
        for chunk, of_features in zip(ctx.chunks[::-1], grads[::-1], strict=True):
            (leaves, features), ctx.last = ctx.last or _with_activations(chunk, inputs, ctx.asked), None
            gradients = torch.autograd.grad(features, leaves, of_features, materialize_grads=True)
            for total, one, of_classes in zip(gathered, gradients, specific, strict=True):
                if of_classes:
                    total[chunk.classes] = one
                else:
                    total += one
            del features
        remaining = iter(gathered)
        return None, None, None, *(next(remaining) if asked else None for asked in ctx.asked)


def _named(specific: dict[int | str, bool], tensors: Sequence[Tensor]) -> dict[int | str, Learned]:
    return {key: Learned(one, specific[key]) for key, one in zip(specific, tensors, strict=True)}


def _with_activations(chunk: Chunk, inputs: Inputs, asked: Sequence[bool]) -> tuple[list[Tensor], Tensor]:
    """What the chunk needs of tensors that ask for a gradient, as new leaves, and its features with activations."""
    detached = {key: Learned(one.vectors.detach(), one.class_specific) for key, one in chunk.of(inputs).items()}
    leaves = [one.vectors.requires_grad_() for one, wanted in zip(detached.values(), asked, strict=True) if wanted]
    with torch.enable_grad():
        return leaves, chunk.run(detached)
