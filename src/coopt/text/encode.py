"""From prompts to text features: chooses the path, the precision and how many classes run at once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import replace
from typing import Literal, NamedTuple, cast
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from coopt.backbones.precision import resolved
from coopt.backbones.protocol import PRECISIONS, Backbone, Precision
from coopt.backbones.text_tower import Block, CausalBlocks, TextTower
from coopt.errors import ParameterError
from coopt.text.fast import FastPass, make_plan
from coopt.text.layout import Prompts
from coopt.text.memory import Costs, Memory, StepMemory, automatic_memory, bytes_of, text_of
from coopt.text.pattern import AttentionPattern
from coopt.text.reference import encode_reference
from coopt.wording import called, setting, subject

TextPath = Literal["auto", "fast", "reference"]
TEXT_PATHS: tuple[TextPath, ...] = ("auto", "fast", "reference")

KEPT_PLANS = 2
"""Plans kept for numbers of groups: images come in chunks of one size, and a last one of another."""

FINER = 1.15
"""By how much the number of chunks grows until they fit."""

Bounds = list[tuple[int, int]]
"""Which classes, in order of length, run together: from, to."""


class Chunk(NamedTuple):
    """Some of the classes: which, and their features (G, classes, D) under a context."""

    classes: Int[Tensor, " classes"]
    run: Callable[[Tensor | None], Tensor]


class TextEncoder:
    """Text features of fixed prompts under changing contexts.

    Args:
        backbone: whose text tower is used.
        prompts: C prompts.
        path: "fast" (causal towers), "reference" (any), "auto" (fast where it is exact).
        precision: "fp32", or "bf16" for the matrix products only (LayerNorm, softmax and the result stay in fp32); "auto":
            the faster.
        memory: bytes (or a text such as "4G") that a training step may hold above the model; "auto" bounds the
            activations alone (see `automatic_memory`). When all classes together need more, they run in chunks, and
            each chunk's activations are computed a second time for the gradient instead of being kept. The features
            are the same; the memory no longer grows with the number of classes, but for the features themselves.
        batch: images of a step that the features of one context are compared with.
        learning: a gradient will be asked for, so activations are kept.

    Raises:
        ParameterError: an unknown path or precision, "fast" for a tower it is not exact for, or less memory than one
            class at a time takes.
    """

    def __init__(
        self,
        backbone: Backbone,
        prompts: Prompts,
        *,
        path: TextPath = "auto",
        precision: Precision = "fp32",
        memory: Memory = "auto",
        batch: int = 1,
        learning: bool = True,
    ) -> None:
        for name, value, allowed in (("path", path, TEXT_PATHS), ("precision", precision, PRECISIONS)):
            if value not in allowed:
                raise ParameterError(
                    f"{subject(name, 'the text encoder')} must be one of {', '.join(allowed)}. Got {value!r} instead."
                )
        tower = backbone.text
        if path == "fast" and tower.open is None:
            raise ParameterError(
                f"The fast text path is not exact for {backbone.name}. Use {setting('text_path', 'auto')} or "
                f"{setting('text_path', 'reference')}."
            )
        self.tower = tower
        self.prompts = prompts
        self.fast = path != "reference" and tower.open is not None
        self.dtype = torch.bfloat16 if resolved(precision, backbone.device) == "bf16" else torch.float32
        self.batch = batch
        self.memory = bytes_of(memory)
        self._automatic = automatic_memory(backbone.device)
        self._limit = math.inf  # bytes of a chunk's tensors, after the device ran out of memory
        self._costs = Costs.of(tower, backbone.embed_dim, self.dtype, self.fast, learning)
        self._chunks: dict[int, tuple[tuple[Chunk, ...], bool]] = {}  # by number of groups, the most recently used last
        if self.fast:
            self._pass = FastPass.of(tower, _opened_in(tower, self.dtype), self.dtype)
            self._order = torch.argsort(prompts.lengths, stable=True)
            self._tails = (prompts.lengths - prompts.shared)[self._order]
        else:
            self._order = torch.arange(len(prompts))
            self._tails = torch.full((len(prompts),), tower.context_length)
        self._inverse = torch.argsort(self._order).to(backbone.device)
        self._refuse_too_little()

    def __call__(self, context: Float[Tensor, "*shape width"] | None = None) -> Float[Tensor, "*groups classes dim"]:
        """Features (not normalised, float32) for a context: (M, W), class-specific (C, M, W), or per group (G, M, W).

        Returns:
            (C, D); for a context per group (G, C, D).
        """
        own = context is not None and self.prompts.class_specific
        grouped = context is not None and context.ndim == 3 and not own
        chunks, keep = self._chunks_for(len(context) if grouped and context is not None else 1)
        if len(chunks) == 1 or context is None:
            features = torch.cat([chunk.run(_context_of(chunk, context, own)) for chunk in chunks], dim=1)
        else:
            features = cast(Tensor, _Recomputed.apply(context, chunks, own, keep))
        features = features[:, self._inverse]
        return features if grouped else features[0]

    def _chunks_for(self, groups: int) -> tuple[tuple[Chunk, ...], bool]:
        """The chunks, and whether the last one's activations are kept."""
        chunks = self._chunks.pop(groups, None) or self._make_chunks(groups)
        while len(self._chunks) >= KEPT_PLANS:
            self._chunks.pop(next(iter(self._chunks)))
        self._chunks[groups] = chunks
        return chunks

    def _make_chunks(self, groups: int) -> tuple[tuple[Chunk, ...], bool]:
        patterns: dict[tuple[int, ...], AttentionPattern] = {}
        make = self._fast_chunk if self.fast else self._reference_chunk
        bounds = self._cut(groups)
        chunks = tuple(make(self._order[start:stop], groups, patterns) for start, stop in bounds)
        return chunks, self._estimate(bounds, groups).keeps_last

    def _fast_chunk(self, classes: Tensor, groups: int, patterns: dict[tuple[int, ...], AttentionPattern]) -> Chunk:
        whole = len(classes) == len(self.prompts)
        plan = make_plan(
            self.prompts, classes, groups, self.tower, self.dtype, patterns, self._costs.multiple(not whole)
        )
        constant = self._pass.constant(plan) if whole and self._costs.learning else None  # of chunks it would add up
        return Chunk(plan.order, lambda context: self._pass(plan, context, self.prompts.class_specific, constant))

    def _reference_chunk(
        self, classes: Tensor, groups: int, patterns: dict[tuple[int, ...], AttentionPattern]
    ) -> Chunk:
        prompts, device = self.prompts[classes], self.tower.device

        def run(context: Tensor | None) -> Tensor:
            bf16 = self.dtype is not torch.float32
            # On a CPU the fused attention in bfloat16 asks for instructions that are not everywhere.
            plain = sdpa_kernel(SDPBackend.MATH) if bf16 and device.type == "cpu" else nullcontext()
            with torch.autocast(device.type, torch.bfloat16, enabled=bf16), plain:
                return encode_reference(self.tower, prompts, context).float().view(groups, len(prompts), -1)

        return Chunk(classes.to(device), run)

    def _bounds(self, parts: int) -> Bounds:
        """About `parts` chunks with equal numbers of tail rows (at least one class in each)."""
        rows = self._tails.cumsum(0)
        part = (rows - 1) * parts // rows[-1]
        stops = torch.unique_consecutive(part, return_counts=True)[1].cumsum(0).tolist()
        return list(zip([0, *stops], stops, strict=False))

    def _cuts(self, least: int = 1) -> Iterator[Bounds]:
        """Ever more chunks, from one or at least so many, to one class in each."""
        parts, bounds = 1, self._bounds(1)
        while len(bounds) < len(self.prompts):
            if parts == 1 or parts >= least:
                yield bounds
            parts = max(parts + 1, int(parts * FINER))
            bounds = self._bounds(parts)
        yield bounds

    def _cut(self, groups: int) -> Bounds:
        """The fewest chunks that fit into the memory, or nearly; one class in each when no others do."""
        whole = self._estimate([(0, len(self.prompts))], groups)
        allowed = self._automatic if self.memory is None else self.memory
        found = self._cuts(least=int(max(whole.activations / allowed, whole.chunk / self._limit)))
        return next(
            bounds for bounds in found if len(bounds) == len(self.prompts) or self._fits(self._estimate(bounds, groups))
        )

    def _fits(self, estimate: StepMemory) -> bool:
        enough = estimate.activations <= self._automatic if self.memory is None else estimate.total <= self.memory
        return enough and estimate.chunk <= self._limit

    def _estimate(self, bounds: Bounds, groups: int) -> StepMemory:
        alike = {tuple(self._tails[start:stop].tolist()) for start, stop in bounds}
        cut = len(bounds) > 1
        sizes = [self._costs.chunk(torch.tensor(tails), self._prefix, groups, cut) for tails in alike]
        own = 0
        if self.prompts.class_specific:  # contexts, their gradients on either side of the chunks, two moments
            own = 5 * 4 * len(self.prompts) * (int(self.prompts.context_index.max()) + 1) * self.tower.width
        head, carried = self._costs.head(len(self.prompts), self.batch, groups)
        plans = self._costs.plans(len(bounds), int(self._tails.sum()), groups)
        return StepMemory(
            chunks=len(bounds),
            kept=max(size.kept for size in sizes),
            chunk=max(size.most for size in sizes),
            head=head + own,
            carried=carried + own,
            indices=plans + sum(size.indices for size in sizes),
            weights=self._costs.weights,
            allocator=self._costs.allocator,
        )

    @property
    def _prefix(self) -> int:
        return self.prompts.shared if self.fast else 0

    def estimate(self, groups: int = 1) -> StepMemory:
        """What a training step will hold above the model, known before it runs."""
        return self._estimate(self._cut(groups), groups)

    @property
    def least_memory(self) -> int:
        """Bytes that a step with one context takes at least, in chunks as small as it pays."""
        return min(self._estimate(bounds, 1).total for bounds in self._cuts())

    def _refuse_too_little(self) -> None:
        if self.memory is None or self._fits(self.estimate()):
            return
        raise ParameterError(
            f"{subject('memory', 'the method')} must be at least {text_of(self.least_memory)} here: what a step takes in the "
            f"smallest chunks ({len(self.prompts)} classes, {self.batch} images compared with them). "
            f"Got {text_of(self.memory)} instead; give more, or take a smaller batch ({called('recipe.batch_size')})."
        )

    def shrink(self, groups: int = 1) -> bool:
        """Halves the chunks, after the device ran out of memory with `groups` contexts at once.

        Returns:
            False when they are as small as they can be.
        """
        bounds = self._cut(groups)
        if groups == 1 and len(bounds) == len(self.prompts):
            return False
        self._limit = self._estimate(bounds, groups).chunk // 2
        self._chunks.clear()
        return True

    @property
    def groups_at_once(self) -> int:
        """How many contexts with all their classes fit into the memory together; at least one."""
        if not self.fast:
            return 1  # a context's prompts at full length fill any matrix product
        one = self._estimate([(0, len(self.prompts))], 1)
        room = self._automatic // one.activations if self.memory is None else self.memory // one.total
        return max(1, int(min(room, self._limit // one.chunk)))

    @property
    def rows(self) -> int:
        """Tokens that pass through the blocks for one context: the work of one text pass."""
        return len(self._cut(1)) * self._prefix + int(self._tails.sum())

    @property
    def operations(self) -> int:
        """Floating-point operations of the linear layers in one pass over one context, forward."""
        width, hidden, layers = self.tower.width, self.tower.hidden or 4 * self.tower.width, self.tower.depth or 12
        per_row = 2 * (4 * width * width + 2 * width * hidden)
        if not self.fast:
            return layers * per_row * self.rows
        ends = len(self.prompts)  # in the last block, keys and values of all rows and the rest of the end tokens alone
        last = 2 * (2 * width * width * (self.rows + ends) + 2 * width * hidden * ends)
        return (layers - 1) * per_row * self.rows + last


def _context_of(chunk: Chunk, context: Tensor | None, own: bool) -> Tensor | None:
    """What a chunk needs of the context: with class-specific vectors those of its own classes, in its order."""
    return context[chunk.classes] if own and context is not None else context


class _Recomputed(torch.autograd.Function):
    """Features chunk by chunk without keeping activations, but for the last chunk's where there is room for them; the
    backward pass runs the other chunks again."""

    @staticmethod
    def forward(ctx, context: Tensor, chunks: Sequence[Chunk], own: bool, keep: bool) -> Tensor:  # type: ignore[override]
        ctx.chunks, ctx.own = chunks, own
        ctx.save_for_backward(context)
        *others, last = chunks
        features = [chunk.run(_context_of(chunk, context, own)) for chunk in others]
        ctx.last = _run(last, context, own) if keep and ctx.needs_input_grad[0] else None
        features.append(last.run(_context_of(last, context, own)) if ctx.last is None else ctx.last[1].detach())
        return torch.cat(features, dim=1)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None, None, None]:  # type: ignore[override]
        (context,) = ctx.saved_tensors
        gathered = torch.zeros_like(context)
        grads = grad.split([len(chunk.classes) for chunk in ctx.chunks], dim=1)
        for chunk, asked in zip(ctx.chunks[::-1], grads[::-1], strict=True):
            (part, features), ctx.last = ctx.last or _run(chunk, context, ctx.own), None
            (found,) = torch.autograd.grad(features, part, asked)
            if ctx.own:
                gathered[chunk.classes] = found
            else:
                gathered += found
            del features
        return gathered, None, None, None


def _run(chunk: Chunk, context: Tensor, own: bool) -> tuple[Tensor, Tensor]:
    """What the chunk needs of the context, as a new leaf, and its features, with activations for the gradient."""
    part = cast(Tensor, _context_of(chunk, context, own)).detach().requires_grad_()
    with torch.enable_grad():
        return part, chunk.run(part)


_CONVERTED: WeakKeyDictionary[TextTower, dict[torch.dtype, CausalBlocks]] = WeakKeyDictionary()


def _opened_in(tower: TextTower, dtype: torch.dtype) -> CausalBlocks:
    """The tower's blocks with matrix weights in `dtype`; in float32 the tower's own, otherwise copies made once."""
    assert tower.open is not None
    if dtype is torch.float32:
        return tower.open
    converted = _CONVERTED.setdefault(tower, {})
    if dtype not in converted:
        converted[dtype] = replace(tower.open, blocks=tuple(_block_in(block, dtype) for block in tower.open.blocks))
    return converted[dtype]


def _block_in(block: Block, dtype: torch.dtype) -> Block:
    linear = {name: deepcopy(getattr(block, name)).to(dtype) for name in ("out_proj", "fc", "proj")}
    bias = None if block.qkv_bias is None else block.qkv_bias.to(dtype)
    return replace(block, qkv_weight=block.qkv_weight.to(dtype), qkv_bias=bias, **linear)
