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

from coopt.backbones.text_tower import Block
from coopt.text.recorded import gradients_of, recorded

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


def kernel_of(block: Block) -> Kernel | None:
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
    residual: Float[Tensor, "rows width"], normed: Float[Tensor, "rows width"], block: Block, kernel: Kernel | None
) -> Float[Tensor, "rows width"]:
    """The residual stream (float32) with the block's second half added; `normed` is in the working precision."""
    if kernel is None:
        return residual + block.scale_2(block.proj(block.activation(block.fc(normed))))
    layers = block.fc.weight, block.fc.bias, block.proj.weight, block.proj.bias
    return cast(Tensor, _FeedForward.apply(residual, normed, *layers, kernel))


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override]
        ctx,
        residual: Tensor,
        normed: Tensor,
        fc: Tensor,
        fc_bias: Tensor,
        proj: Tensor,
        proj_bias: Tensor,
        kernel: Kernel,
    ) -> Tensor:
        scale = kernel.scale
        scaled = torch.addmm(fc_bias, normed, fc.T, beta=scale, alpha=scale)
        activated, handle = recorded(kernel, scaled, any(ctx.needs_input_grad))
        ctx.save_for_backward(handle, fc, proj)
        return add_product(residual, activated, proj, proj_bias, 1 / scale)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        handle, fc, proj = ctx.saved_tensors
        (hidden,) = gradients_of((handle, grad.to(proj.dtype) @ proj))
        return grad, hidden @ fc, None, None, None, None, None


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
