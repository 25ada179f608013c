"""One operation of torch inside a hand-written gradient, with torch's own derivative of it.

Inside of `torch.autograd.Function.forward` nothing is recorded. Here a single operation is, beside the outer graph, so that
the backward pass can ask it for its gradient: the same kernel, and the same bits, as where autograd runs by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.graph import GradientEdge


class Recorded(NamedTuple):
    """What an operation gave.

    Attributes:
        result: its result.
        handle: an empty tensor that leads to what was recorded. Given to `save_for_backward`, it is freed with the outer
            graph, and what was recorded with it.
    """

    result: Float[Tensor, "*result"]
    handle: Tensor


def recorded(operation: Callable[[Tensor], Tensor], x: Float[Tensor, "*x"], learning: bool) -> Recorded:
    """The operation's result, and the way back.

    Args:
        operation: of which the last step alone is asked for its gradient; what it needs for that is kept.
        x: where recording begins; it is kept too.
        learning: whether a gradient will be asked for; else nothing is recorded.
    """
    if not learning:
        result = operation(x)
        return Recorded(result, result.new_empty(0))
    with torch.enable_grad():
        result = operation(x.detach().requires_grad_())
        return Recorded(result.detach(), result[:0].clone())


def gradients_of(*asked: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
    """What the last steps of recorded operations were given has these gradients.

    Args:
        asked: for each operation its handle, and the gradient of its result. Several are asked for together, since asking
            takes longer than a small operation.
    """
    ends = [_ends_of(handle) for handle, _ in asked]
    return torch.autograd.grad(
        [result for _, result in ends],
        [given for given, _ in ends],
        [grad for _, grad in asked],
        retain_graph=True,  # whether it is kept is for the outer graph to say
    )


def _ends_of(handle: Tensor) -> tuple[GradientEdge, GradientEdge]:
    """Where the operation was given something, and where its result is; behind the handle are a clone and a slice."""
    node: Any = handle.grad_fn
    operation = node.next_functions[0][0].next_functions[0][0]
    return GradientEdge(*operation.next_functions[0]), GradientEdge(operation, 0)
