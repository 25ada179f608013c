"""What holds for every tensor that answers are computed from: one layout in memory, and numbers that mean something."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Shaped
from torch import Tensor

from coopt.backbones.protocol import Backbone
from coopt.wording import setting

ALIGNMENT = 64
"""Bytes at whose multiples torch's own allocations begin on a CPU."""

SHORTEST = 1e-12
"""Length below which `torch.nn.functional.normalize` does not bring a vector to length 1."""


def settled(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The tensor in the layout that torch would give a new one: contiguous, in aligned memory; itself if it is so.

    A matrix product over other strides or alignments may take another kernel, whose last bits differ. Arrays of
    scikit-learn are often transposed, and tensors in the bytes of a file begin anywhere.
    """
    aligned = tensor.device.type != "cpu" or tensor.data_ptr() % ALIGNMENT == 0
    if tensor.is_contiguous() and aligned:
        return tensor
    return torch.empty_like(tensor, memory_format=torch.contiguous_format).copy_(tensor)


def without_direction(features: Float[Tensor, "*n dim"]) -> Bool[Tensor, "*n"]:
    """Which features no cosine can be taken of: NaN, infinite, zero, or longer than float32 can tell.

    What is made of them would look like any other prediction: the first class, as a rule.
    """
    lengths = torch.linalg.vector_norm(features, dim=-1)
    return ~((lengths > SHORTEST) & (lengths < torch.inf))  # a comparison with NaN is false


def described(feature: Float[Tensor, " dim"]) -> str:
    """What is wrong with a feature that has no direction, as a predicate: "is not finite (NaN or infinite)"."""
    if not bool(torch.isfinite(feature).all()):
        return "is not finite (NaN or infinite)"
    return "is zero" if float(feature.abs().amax()) <= SHORTEST else "is too large for float32"


def fault_of(backbone: Backbone, precision: str) -> str | None:
    """What makes a backbone give features without a direction, and what to do; None where nothing is found.

    Args:
        backbone: the model; looked through weight by weight, so to be asked only where something is wrong.
        precision: in which it ran.
    """
    model = getattr(backbone, "model", None)  # a backbone of somebody's own may keep its weights elsewhere
    for name, weight in model.state_dict().items() if model is not None else ():
        if not bool(torch.isfinite(weight).all()):
            return f"the weight {name!r} of {backbone.name} holds values that are not finite; get its weights again"
    device = backbone.device.type
    if precision == "bf16":
        return f"the weights of {backbone.name} are finite, so use {setting('precision', 'fp32')}"
    if torch.is_autocast_enabled(device) and torch.get_autocast_dtype(device) is torch.float16:
        return f"the weights of {backbone.name} are finite, so leave torch.autocast, whose float16 overflows"
    return None
