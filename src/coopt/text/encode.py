"""From prompts to text features: chooses the path, the precision and how many classes run at once."""

from __future__ import annotations

import ctypes
import math
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Literal, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones.protocol import Backbone, Block, TextTower
from coopt.errors import ParameterError
from coopt.text.fast import FastPass, Plan, chunks, make_plan
from coopt.text.layout import Prompts
from coopt.text.reference import encode_reference

Path = Literal["auto", "fast", "reference"]
Precision = Literal["fp32", "bf16"]
PATHS: tuple[Path, ...] = ("auto", "fast", "reference")
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")

DEFAULT_MEMORY = 5 << 28
"""Bytes that the activations of one chunk may take when nothing else is said: enough for ImageNet's 1000 classes on a
ViT-B text tower in one piece."""

KEPT_PLANS = 2
"""Plans kept for numbers of groups: images come in chunks of one size, and a last one of another."""


class TextEncoder:
    """Text features of fixed prompts under changing contexts.

    Args:
        backbone: whose text tower is used.
        prompts: C prompts.
        path: "fast" (causal towers), "reference" (any), "auto" (fast where it is exact).
        precision: "fp32", or "bf16" for the matrix products only (LayerNorm, softmax and the result stay in fp32).
        memory: bytes that activations may take. When all classes together need more, they run in chunks, and each
            chunk's activations are computed a second time for the gradient instead of being kept. The features are
            the same; the memory no longer grows with the number of classes.

    Raises:
        ParameterError: an unknown path or precision, or "fast" for a tower it is not exact for.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: Prompts,
        *,
        path: Path = "auto",
        precision: Precision = "fp32",
        memory: int = DEFAULT_MEMORY,
    ) -> None:
        for name, value, allowed in (("path", path, PATHS), ("precision", precision, PRECISIONS)):
            if value not in allowed:
                raise ParameterError(
                    f"The '{name}' parameter of the text encoder must be one of {', '.join(allowed)}. Got {value!r} instead."
                )
        tower = backbone.text
        if path == "fast" and not fast_path_is_exact(tower):
            raise ParameterError(
                f"The fast text path is not exact for {backbone.name}. Use text_path='auto' or 'reference'."
            )
        self.tower = tower
        self.prompts = prompts
        self.fast = path != "reference" and fast_path_is_exact(tower)
        self.dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        self.memory = memory
        self._plans: dict[int, tuple[Plan, ...]] = {}  # by number of groups, the most recently used last
        if self.fast:
            self._pass = FastPass.of(tower, _blocks_in(tower, self.dtype), self.dtype)
            self._inverse = torch.argsort(torch.argsort(prompts.lengths, stable=True)).to(backbone.device)

    def __call__(self, context: Float[Tensor, "*shape width"] | None = None) -> Float[Tensor, "*groups classes dim"]:
        """Features (not normalised, float32) for a context: (M, W), class-specific (C, M, W), or per group (G, M, W).

        Returns:
            (C, D); for a context per group (G, C, D).
        """
        grouped = context is not None and context.ndim == 3 and not self.prompts.class_specific
        if not self.fast:
            enabled = self.dtype is not torch.float32
            with torch.autocast(self.tower.positional_embedding.device.type, torch.bfloat16, enabled=enabled):
                return encode_reference(self.tower, self.prompts, context).float()
        groups = len(context) if grouped and context is not None else 1
        parts = [self._part(plan) for plan in self._plan(groups)]
        if len(parts) == 1 or context is None:
            features = torch.cat([part(context) for part in parts], dim=1)
        else:
            features = cast(Tensor, _Recomputed.apply(context, parts))
        features = features[:, self._inverse]
        return features if grouped else features[0]

    def _part(self, plan: Plan) -> Callable[[Tensor | None], Tensor]:
        return lambda context: self._pass(plan, context, self.prompts.class_specific)

    def _plan(self, groups: int) -> tuple[Plan, ...]:
        plans = self._plans.pop(groups, None) or self._make_plans(groups)
        while len(self._plans) >= KEPT_PLANS:
            self._plans.pop(next(iter(self._plans)))
        self._plans[groups] = plans
        return plans

    def _make_plans(self, groups: int) -> tuple[Plan, ...]:
        cut = chunks(self.prompts, math.ceil(groups * self._bytes_per_group / self.memory))
        return tuple(make_plan(self.prompts, c, groups, self.tower, self.dtype) for c in cut)

    @property
    def _bytes_per_group(self) -> int:
        tails = int((self.prompts.lengths - self.prompts.shared).sum())
        return tails * activation_bytes_per_row(self.tower, self.dtype)

    @property
    def groups_at_once(self) -> int:
        """How many contexts with all their classes fit into `memory` together; at least one."""
        if not self.fast:
            return 1  # a context's prompts at full length fill any matrix product
        return max(1, self.memory // self._bytes_per_group)

    @property
    def rows(self) -> int:
        """Tokens that pass through the blocks for one context: the work of one text pass."""
        if not self.fast:
            return len(self.prompts) * self.tower.context_length
        return sum(len(plan.prefix_ids) + len(plan.tail_ids) for plan in self._plan(1))

    @property
    def operations(self) -> int:
        """Floating-point operations of the linear layers in one pass over one context, forward."""
        width, blocks = self.tower.width, self.tower.blocks
        hidden, layers = (blocks[0].fc.out_features, len(blocks)) if blocks else (4 * width, 12)
        per_row = 2 * (4 * width * width + 2 * width * hidden)
        if not self.fast:
            return layers * per_row * self.rows
        ends = len(self.prompts)  # in the last block, keys and values of all rows and the rest of the end tokens alone
        last = 2 * (2 * width * width * (self.rows + ends) + 2 * width * hidden * ends)
        return (layers - 1) * per_row * self.rows + last


def fast_path_is_exact(tower: TextTower) -> bool:
    """True for causal towers whose blocks are known and whose feature is that of the end token."""
    return tower.causal and tower.blocks is not None and tower.pooling != "last" and not tower.padding_matters


def activation_bytes_per_row(tower: TextTower, dtype: torch.dtype) -> int:
    """Bytes of activations that autograd keeps for one token through all blocks (an estimate, checked by a test)."""
    blocks = tower.blocks or ()
    hidden = blocks[0].fc.out_features if blocks else 4 * tower.width
    # Kept in float32: both LayerNorms' inputs and the softmax; in `dtype`: queries (scaled), keys, values and the
    # activation's input. Frozen linear layers keep nothing.
    size = torch.finfo(dtype).bits // 8
    return len(blocks) * (4 * 3 * tower.width + size * (4 * tower.width + hidden))


class _Recomputed(torch.autograd.Function):
    """Features chunk by chunk without keeping activations; the backward pass runs each chunk again."""

    @staticmethod
    def forward(ctx, context: Tensor, parts: Sequence[Callable[[Tensor], Tensor]]) -> Tensor:  # type: ignore[override]
        ctx.parts = parts
        ctx.save_for_backward(context)
        features = []
        for part in parts:
            features.append(part(context))
            return_freed_memory()
        return torch.cat(features, dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        (saved,) = ctx.saved_tensors
        context = saved.detach().requires_grad_()
        start = 0
        with torch.enable_grad():
            for part in ctx.parts:
                features = part(context)
                stop = start + features.shape[1]
                features.backward(grad[:, start:stop])
                start = stop
                del features
                return_freed_memory()
        assert context.grad is not None
        return context.grad, None


def return_freed_memory() -> None:
    """Gives what the last chunk freed back to the system.

    glibc keeps freed blocks, and as chunks differ a little in size, it would gather more of them with every chunk.
    """
    trim = getattr(_C_LIBRARY, "malloc_trim", None)
    if trim is not None:
        trim(0)


_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None

_CONVERTED: WeakKeyDictionary[TextTower, dict[torch.dtype, tuple[Block, ...]]] = WeakKeyDictionary()


def _blocks_in(tower: TextTower, dtype: torch.dtype) -> tuple[Block, ...]:
    """The tower's blocks with matrix weights in `dtype`; in float32 the tower's own, otherwise copies made once."""
    assert tower.blocks is not None
    if dtype is torch.float32:
        return tower.blocks
    converted = _CONVERTED.setdefault(tower, {})
    if dtype not in converted:
        converted[dtype] = tuple(_block_in(block, dtype) for block in tower.blocks)
    return converted[dtype]


def _block_in(block: Block, dtype: torch.dtype) -> Block:
    linear = {name: deepcopy(getattr(block, name)).to(dtype) for name in ("out_proj", "fc", "proj")}
    bias = None if block.qkv_bias is None else block.qkv_bias.to(dtype)
    return replace(block, qkv_weight=block.qkv_weight.to(dtype), qkv_bias=bias, **linear)
