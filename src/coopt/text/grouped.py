"""Losses over many groups (one per image in CoCoOp) in the memory of a few.

A loss that is a sum over groups needs no group's activations once that group's gradient is known. So each chunk of groups
runs forward and backward before the next one begins: unlike recomputation this costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

LossOf = Callable[[Tensor, slice], Tensor]


def sum_over_groups(loss_of: LossOf, contexts: Float[Tensor, "groups n_ctx width"], at_once: int) -> Float[Tensor, ""]:
    """The sum of `loss_of` over chunks of at most `at_once` groups, with its gradient for `contexts`.

    Args:
        loss_of: the summed loss of some of the contexts (n, M, W); the slice says which they are. It must depend on
            nothing else that is learned.
        contexts: (G, M, W).
        at_once: groups whose activations are held together.
    """
    if len(contexts) <= at_once:
        return loss_of(contexts, slice(0, len(contexts)))
    return cast(Tensor, _SumOverGroups.apply(contexts, loss_of, at_once))


class _SumOverGroups(torch.autograd.Function):
    """The gradient is computed together with the value, and kept until it is asked for."""

    @staticmethod
    def forward(ctx, contexts: Tensor, loss_of: LossOf, at_once: int) -> Tensor:  # type: ignore[override]
        total, grad = contexts.new_zeros(()), torch.empty_like(contexts)
        for start in range(0, len(contexts), at_once):
            where = slice(start, min(start + at_once, len(contexts)))
            part = contexts[where].detach().requires_grad_()
            with torch.enable_grad():
                loss = loss_of(part, where)
            (grad[where],) = torch.autograd.grad(loss, part)
            total += loss.detach()
            del loss
        ctx.save_for_backward(grad)
        return total

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        (saved,) = ctx.saved_tensors
        return grad * saved, None, None
