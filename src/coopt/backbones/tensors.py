"""What holds for every tensor that answers are computed from: one layout, so that equal numbers give equal answers."""

from __future__ import annotations

import torch
from jaxtyping import Shaped
from torch import Tensor

ALIGNMENT = 64
"""Bytes at whose multiples torch's own allocations begin on a CPU."""


def settled(tensor: Shaped[Tensor, "*shape"]) -> Shaped[Tensor, "*shape"]:
    """The tensor in the layout that torch would give a new one: contiguous, in aligned memory; itself if it is so.

    A matrix product over other strides or alignments may take another kernel, whose last bits differ. Arrays of
    scikit-learn are often transposed, and tensors in the bytes of a file begin anywhere.
    """
    aligned = tensor.device.type != "cpu" or tensor.data_ptr() % ALIGNMENT == 0
    if tensor.is_contiguous() and aligned:
        return tensor
    return torch.empty_like(tensor, memory_format=torch.contiguous_format).copy_(tensor)
