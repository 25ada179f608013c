"""A tower's blocks with the weights of matrix products in another precision: converted once and kept with the tower."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch

from coopt.backbones.text_tower import OpenBlock, OpenTower, TextTower

CONVERTED: WeakKeyDictionary[TextTower, dict[torch.dtype, OpenTower]] = WeakKeyDictionary()
"""By tower and precision."""


def blocks_in(tower: TextTower, dtype: torch.dtype) -> OpenTower:
    """The blocks that a tower opens, with matrix weights in `dtype`: the tower's own where it has that precision."""
    assert tower.open is not None
    if dtype is tower.open.positions.dtype:
        return tower.open
    converted = CONVERTED.setdefault(tower, {})
    if dtype not in converted:
        converted[dtype] = replace(tower.open, blocks=tuple(_block_in(block, dtype) for block in tower.open.blocks))
    return converted[dtype]


def _block_in(block: OpenBlock, dtype: torch.dtype) -> OpenBlock:
    linear = {name: deepcopy(getattr(block, name)).to(dtype) for name in ("out_proj", "fc", "proj")}
    bias = None if block.qkv_bias is None else block.qkv_bias.to(dtype)
    return replace(block, qkv_weight=block.qkv_weight.to(dtype), qkv_bias=bias, **linear)
