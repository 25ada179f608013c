"""A step's gradient that is no loss's: made of the gradients of several losses, by a rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

Rule = Callable[..., Tensor]
"""Given one gradient for each loss, each a vector (P,) over all P learned numbers: the one that the step takes, (P,)."""


def combined(losses: Sequence[Tensor], parameters: Mapping[str, Tensor], rule: Rule) -> Float[Tensor, ""]:
    """The first loss's value, with a gradient made of those of all losses: what a method's `loss` may return.

    Each loss costs a backward pass through what they share; the forward pass is shared. A recipe with L-BFGS cannot follow
    such a gradient, since its line search needs a loss whose slope it is.

    Args:
        losses: of one step.
        parameters: what is learned, by name; every loss must depend on some of it.
        rule: see `Rule`.
    """
    leaves = list(parameters.values())
    vectors = []
    for i, loss in enumerate(losses):
        gradients = torch.autograd.grad(loss, leaves, retain_graph=i + 1 < len(losses), allow_unused=True)
        pairs = zip(gradients, leaves, strict=True)
        vectors.append(torch.cat([(torch.zeros_like(b) if a is None else a).flatten() for a, b in pairs]))
    parts = rule(*vectors).split([one.numel() for one in leaves])
    gradients = [part.view_as(leaf) for part, leaf in zip(parts, leaves, strict=True)]
    return cast(Tensor, _WithGradients.apply(losses[0].detach(), gradients, *leaves))


class _WithGradients(torch.autograd.Function):
    """A value whose gradients are known."""

    @staticmethod
    def forward(ctx, value: Tensor, gradients: list[Tensor], *leaves: Tensor) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(*gradients)
        return value.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        return None, None, *(grad * one for one in ctx.saved_tensors)
