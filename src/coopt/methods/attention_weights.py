"""Where the weights of queries, keys and values are in a tower, whoever built it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, nn

SEPARATE = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"))
"""What the three linear layers are called: in CLIP's attention pooling and transformers' CLIP, and in BERT's kind."""

FUSED = ("qkv", "in_proj")
"""What one linear layer of all three is called: in timm, and in coopt's own BERT."""


@dataclass(frozen=True)
class AttentionWeight:
    """A matrix that makes queries, keys or values, or all three of them, one below the other.

    Attributes:
        name: as in the tower's `named_parameters`.
        parts: 3, or 1.
        rows, columns: of one part.
    """

    name: str
    parts: int
    rows: int
    columns: int


def attention_weights(tower: nn.Module) -> list[AttentionWeight]:
    """Of all attention layers of a tower; none where there are none that are known."""
    return [one for name, module in tower.named_modules() for one in _of(f"{name}." if name else "", module)]


def _of(prefix: str, module: nn.Module) -> Iterator[AttentionWeight]:
    fused = getattr(module, "in_proj_weight", None)
    if isinstance(fused, nn.Parameter):
        yield _weight(f"{prefix}in_proj_weight", fused, 3)
    layers = {name: one for name, one in module.named_children() if isinstance(one, nn.Linear)}
    for name in FUSED:
        if name in layers and layers[name].out_features == 3 * layers[name].in_features:
            yield _weight(f"{prefix}{name}.weight", layers[name].weight, 3)
    for names in SEPARATE:
        if all(name in layers for name in names):
            yield from (_weight(f"{prefix}{name}.weight", layers[name].weight, 1) for name in names)


def _weight(name: str, weight: Tensor, parts: int) -> AttentionWeight:
    return AttentionWeight(name, parts, weight.shape[0] // parts, weight.shape[1])
