"""The two linear layers of a block with the activation between them, in as few passes over memory as they need.

QuickGELU, x sigmoid(a x) with a = 1.702, is silu(a x) / a, and its derivative is silu'(a x). Both factors go into the
matrix products around it, which scale for nothing; in the gradient they cancel.
"""

from __future__ import annotations

from typing import NamedTuple, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from coopt.backbones.text_tower import OpenBlock

QUICK_GELU = 1.702


class Kernel(NamedTuple):
    """An activation that torch has forward and backward kernels for.

    Attributes:
        scale: a; 1 where the activation is not QuickGELU.
        approximate: GELU's, "none" or "tanh".
    """

    scale: float
    approximate: str

    def __call__(self, x: Float[Tensor, "rows hidden"]) -> Float[Tensor, "rows hidden"]:
        """Of scaled inputs."""
        return F.silu(x) if self.scale != 1 else F.gelu(x, approximate=self.approximate)


def kernel_of(block: OpenBlock) -> Kernel | None:
    """The kernel for a block's activation; None for one that only the module itself knows, or behind a LayerScale."""
    plain = block.fc.bias is not None and block.proj.bias is not None and isinstance(block.scale_2, nn.Identity)
    if not plain:
        return None
    if type(block.activation) is nn.GELU:
        return Kernel(1.0, block.activation.approximate)
    probe = torch.linspace(-4, 4, 9)  # on the CPU: an activation has no weights
    quick = torch.allclose(block.activation(probe), probe * torch.sigmoid(QUICK_GELU * probe))
    return Kernel(QUICK_GELU, "none") if quick else None


def feed_forward(
    residual: Float[Tensor, "rows width"], normed: Float[Tensor, "rows width"], block: OpenBlock, kernel: Kernel | None
) -> Float[Tensor, "rows width"]:
    """The residual stream (float32) with the block's second half added; `normed` is in the working precision."""
    if kernel is None:
        return residual + block.scale_2(block.proj(block.activation(block.fc(normed))))
    scaled = _Scaled.apply(normed, block.fc.weight, block.fc.bias, kernel.scale)
    return cast(Tensor, _Added.apply(residual, kernel(scaled), block.proj.weight, block.proj.bias, kernel.scale))


def behind_attention(
    x: Float[Tensor, "rows width"],
    attended: Float[Tensor, "rows width"],
    block: OpenBlock,
    dtype: torch.dtype,
    kernel: Kernel | None,
) -> Float[Tensor, "rows width"]:
    """What follows attention in a block: its projection and the feed-forward layers, both added to the stream `x`."""
    out = block.out_proj
    if isinstance(block.scale_1, nn.Identity) and out.bias is not None:
        x = add_product(x, attended, out.weight, out.bias)
    else:
        x = x + block.scale_1(out(attended))
    return feed_forward(x, block.ln_2(x).to(dtype), block, kernel)


class _Scaled(torch.autograd.Function):
    """scale * (x weight' + bias), whose gradient leaves the scale out."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, scale: float) -> Tensor:  # type: ignore[override]
        ctx.save_for_backward(weight)
        return torch.addmm(bias, x, weight.T, beta=scale, alpha=scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return grad @ weight, None, None, None


class _Added(torch.autograd.Function):
    """residual + x weight' / scale + bias, whose gradient leaves the scale out."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, residual: Tensor, x: Tensor, weight: Tensor, bias: Tensor, scale: float
    ) -> Tensor:
        ctx.save_for_backward(weight)
        return add_product(residual, x, weight, bias, 1 / scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (weight,) = ctx.saved_tensors
        return grad, grad.to(weight.dtype) @ weight, None, None, None


def add_product(
    residual: Float[Tensor, "rows width"],
    x: Float[Tensor, "rows inner"],
    weight: Float[Tensor, "width inner"],
    bias: Float[Tensor, " width"],
    alpha: float = 1.0,
) -> Float[Tensor, "rows width"]:
    """residual + alpha * x weight' + bias, accumulated by the matrix product itself where all is of one precision."""
    if x.dtype == residual.dtype:
        return (residual + bias).addmm_(x, weight.T, alpha=alpha)
    return residual + torch.addmm(bias, x, weight.T, alpha=alpha)
