"""Small networks that are learned beside a model, and how they begin: as torch's `nn.Linear`, drawn by a given generator."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def linear_start(shape: Sequence[int], inputs: int, generator: torch.Generator) -> Tensor:
    """Weights or biases of a layer with so many inputs: uniform within 1 / sqrt(inputs)."""
    return (2 * torch.rand(tuple(shape), generator=generator) - 1) * inputs**-0.5


def two_layers(name: str, sizes: tuple[int, int, int], generator: torch.Generator) -> dict[str, Tensor]:
    """The tensors of two linear layers as training begins.

    Args:
        name: of the network; its tensors are "NAME.linear1.weight" (hidden, inputs), "NAME.linear1.bias" (hidden,), and those
            of linear2.
        sizes: inputs, hidden units and outputs.
        generator: what they are drawn from, in this order.
    """
    tensors = {}
    for i in (1, 2):
        inputs, outputs = sizes[i - 1], sizes[i]
        for kind, shape in (("weight", (outputs, inputs)), ("bias", (outputs,))):
            tensors[f"{name}.linear{i}.{kind}"] = linear_start(shape, inputs, generator)
    return tensors
