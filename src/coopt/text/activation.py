"""Activations of frozen towers in as few passes over memory as they need."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

QUICK_GELU = 1.702


def is_quick_gelu(activation: nn.Module) -> bool:
    """True where the module computes x * sigmoid(1.702 x), whatever class it is of."""
    probe = torch.linspace(-4, 4, 9)  # on the CPU: an activation has no weights
    return not isinstance(activation, nn.GELU) and torch.allclose(
        activation(probe), probe * torch.sigmoid(QUICK_GELU * probe)
    )


def fused(activation: nn.Module) -> Callable[[Tensor], Tensor]:
    """The activation as one function, with QuickGELU (three passes and three buffers as libraries write it) fused."""
    return _QuickGELU.apply if is_quick_gelu(activation) else activation  # type: ignore[return-value]


class _QuickGELU(torch.autograd.Function):
    """x sigmoid(a x) = silu(a x) / a, whose derivative is silu'(a x): both are one kernel of torch."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:  # type: ignore[override]
        scaled = x * QUICK_GELU
        ctx.save_for_backward(scaled)
        return nn.functional.silu(scaled).mul_(1 / QUICK_GELU)

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # type: ignore[override]
        (scaled,) = ctx.saved_tensors
        return torch.ops.aten.silu_backward(grad, scaled)
