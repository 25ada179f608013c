"""Counts the bytes of all tensors that are alive: what is really allocated, whoever allocates it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from coopt.backbones import Backbone
from coopt.backbones.text_tower import OpenBlock
from coopt.text.converted import CONVERTED


class LiveBytes(TorchDispatchMode):
    """Within this context every new storage is counted from the operation that makes it until it is freed.

    Args:
        backbone: whose weights, in any precision, do not count.

    Attributes:
        peak: the most bytes that were alive at once.
    """

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.live = self.peak = 0
        converted = [
            tensor
            for opened in CONVERTED.get(backbone.text, {}).values()
            for block in opened.blocks
            for tensor in _weights(block)
        ]
        self._weights = [
            t.untyped_storage() for t in (*backbone.model.parameters(), *backbone.model.buffers(), *converted)
        ]
        self._known = set(map(id, self._weights))

    def __torch_dispatch__(self, func: Callable, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and id(leaf.untyped_storage()) not in self._known:
                self._count(leaf)
        self.peak = max(self.peak, self.live)
        return result

    def _count(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        self._known.add(key)
        self.live += size
        weakref.finalize(storage, self._free, key, size)

    def _free(self, key: int, size: int) -> None:
        self._known.discard(key)
        self.live -= size


def _weights(block: OpenBlock) -> list[Tensor]:
    own = [tensor for tensor in (block.qkv_weight, block.qkv_bias) if tensor is not None]
    return [*own, *(p for layer in (block.out_proj, block.fc, block.proj) for p in layer.parameters())]
