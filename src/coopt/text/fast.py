"""The fast path: exact text features of causal towers at a fraction of the work.

In a causal tower a token sees only what stands before it. Three consequences, none of them an approximation:

1. Tokens after the end token cannot matter: they are not computed.
2. What stands before the class name is the same for all classes: this *prefix* runs once, and each class runs only
   its own tokens, its *tail*, against the prefix's keys and values.
3. In the last block only the end token is read out: only its row is computed there.

All rows - the prefix's and those of all tails, without padding - lie in one matrix, so that every linear layer is one
matrix product. Only attention has to know who belongs to whom; tails of one length lie side by side and attend together.

Notation: G groups (contexts that share the class names: one for CoOp, one per image for CoCoOp), C classes,
P prefix tokens, S tail tokens, R rows in all = G * (P + sum of all S), H heads, W width, D output width.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from coopt.backbones.text_tower import Block, CausalBlocks, TextTower
from coopt.text.attention import Attention, EndAttention
from coopt.text.feed_forward import Kernel, add_product, feed_forward, kernel_of
from coopt.text.layout import Prompts
from coopt.text.pattern import AttentionPattern


@dataclass(frozen=True)
class ChunkPlan:
    """Where everything lies for one chunk of classes.

    Attributes:
        prefix_ids, prefix_context: the prefix's constant tokens and context indices.
        tail_ids, tail_context, tail_position: the same for all tails, packed, with each token's position.
        tail_class: which of the plan's classes (for class-specific context) a tail row belongs to.
        prefix_slots, tail_slots: which of the rows hold a context vector.
        end_rows: the row of each end token in the whole matrix, for all groups; some row after the last of them.
        order: the classes in packed order.
        pattern: how the rows attend to each other.
    """

    prefix_ids: Int[Tensor, " prefix"]
    prefix_context: Int[Tensor, " prefix"]
    tail_ids: Int[Tensor, " rows"]
    tail_context: Int[Tensor, " rows"]
    tail_position: Int[Tensor, " rows"]
    tail_class: Int[Tensor, " rows"]
    prefix_slots: Int[Tensor, " prefix_slots"]
    tail_slots: Int[Tensor, " tail_slots"]
    end_rows: Int[Tensor, " ends"]
    order: Int[Tensor, " classes"]
    pattern: AttentionPattern


def make_plan(
    prompts: Prompts,
    classes: Int[Tensor, " classes"],
    groups: int,
    tower: TextTower,
    dtype: torch.dtype,
    patterns: dict[tuple[int, ...], AttentionPattern],
    multiple: int = 1,
) -> ChunkPlan:
    """The plan for some of the prompts and G contexts.

    Args:
        prompts: all prompts.
        classes: which; sorted by length.
        groups: G.
        tower: whose device and heads are used.
        dtype: what the matrix products are computed in.
        patterns: those of other plans for the same groups, by the lengths of their prompts; a new one is added. Classes
            are many and lengths are few.
        multiple: rows are filled up to a multiple of it.
    """
    device = tower.device
    shared = prompts.shared
    lengths = prompts.lengths[classes]
    key = tuple(lengths.tolist())
    columns = torch.arange(prompts.token_ids.shape[1])
    in_tail = (columns >= shared) & (columns < lengths[:, None])
    row, column = in_tail.nonzero(as_tuple=True)
    # Small products in bfloat16 are slow on a CPU, so attention (1% of the work) stays in float32 there.
    attention = torch.float32 if device.type == "cpu" else dtype
    prefix_context, tail_context = prompts.context_index[0, :shared], prompts.context_index[classes[row], column]
    ends = (lengths - shared).cumsum(0) - 1
    end_rows = (groups * shared + torch.arange(groups)[:, None] * len(row) + ends).flatten()
    if key not in patterns:
        patterns[key] = AttentionPattern.of(lengths - shared, shared, groups, tower.heads, device, attention, multiple)
    return ChunkPlan(
        prefix_ids=prompts.token_ids[0, :shared].to(device),
        prefix_context=prefix_context.to(device),
        tail_ids=prompts.token_ids[classes[row], column].to(device),
        tail_context=tail_context.to(device),
        tail_position=column.to(device),
        tail_class=row.to(device),
        prefix_slots=(prefix_context >= 0).nonzero()[:, 0].to(device),
        tail_slots=(tail_context >= 0).nonzero()[:, 0].to(device),
        end_rows=F.pad(end_rows, (0, -len(end_rows) % multiple)).to(device),
        order=classes.to(device),
        pattern=patterns[key],
    )


def _embed_prefix(tower: TextTower, plan: ChunkPlan, context: Tensor | None) -> Tensor:
    """The prefix's input rows (G * P, W) in float32."""
    positions = torch.arange(len(plan.prefix_ids), device=plan.prefix_ids.device)
    base = _embed(tower, plan.prefix_ids, plan.prefix_context, positions)
    if context is None or not len(plan.prefix_slots):
        return base.repeat(plan.pattern.groups, 1)
    return _insert(base, plan.prefix_slots, _by_group(context)[:, plan.prefix_context[plan.prefix_slots]])


def _embed_tails(tower: TextTower, plan: ChunkPlan, context: Tensor | None, class_specific: bool) -> Tensor:
    """The tails' input rows (G * sum of S, W) in float32."""
    base, slots = _embed(tower, plan.tail_ids, plan.tail_context, plan.tail_position), plan.tail_slots
    if context is None or not len(slots):
        return base.repeat(plan.pattern.groups, 1)
    index = plan.tail_context[slots]
    if class_specific:  # (classes, M, W): no group axis
        return _insert(base, slots, context[plan.tail_class[slots], index][None])
    return _insert(base, slots, _by_group(context)[:, index])


def _embed(tower: TextTower, ids: Tensor, context: Tensor, positions: Tensor) -> Tensor:
    """What is constant of input rows: zero instead of a token where a context vector stands."""
    assert tower.open is not None
    return tower.embed(ids) * (context < 0)[:, None] + tower.open.positions[positions]


def _by_group(context: Tensor) -> Float[Tensor, "groups n_ctx width"]:
    return context if context.ndim == 3 else context[None]


def _insert(
    base: Float[Tensor, "rows width"], slots: Int[Tensor, " slots"], vectors: Float[Tensor, "groups slots width"]
) -> Float[Tensor, "all width"]:
    """The rows once for every group, vectors added to those that `slots` names."""
    return base.expand(len(vectors), -1, -1).index_add(1, slots, vectors).flatten(0, 1)


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return F.linear(x.to(dtype), weight, bias)


class Constant(NamedTuple):
    """What training does not change in tails that hold no context vector.

    Attributes:
        rows: their input.
        qkv: what the first block projects it to.
    """

    rows: Float[Tensor, "rows width"]
    qkv: Float[Tensor, "rows features"]


@dataclass(frozen=True)
class FastPass:
    """The blocks of one tower, ready to run in one precision.

    The frozen weights are held in the working precision (converted once, where autocast would convert them at every
    step); LayerNorm, softmax and the residual stream stay in float32.
    """

    tower: TextTower
    opened: CausalBlocks
    dtype: torch.dtype
    kernel: Kernel | None

    @classmethod
    def of(cls, tower: TextTower, opened: CausalBlocks, dtype: torch.dtype) -> FastPass:
        """The pass over `opened`, what the tower gives with weights in `dtype`."""
        return cls(tower, opened, dtype, kernel_of(opened.blocks[0]))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """One after another."""
        return self.opened.blocks

    def constant(self, plan: ChunkPlan) -> Constant | None:
        """What need not be computed again at every step; None where all tails depend on the context."""
        if len(plan.tail_slots):
            return None
        with torch.no_grad():
            rows = _embed_tails(self.tower, plan, None, False)
            return Constant(rows, self._project(rows, self.blocks[0]))

    def __call__(
        self,
        plan: ChunkPlan,
        context: Float[Tensor, "*shape width"] | None,
        class_specific: bool,
        constant: Constant | None = None,
    ) -> Float[Tensor, "groups classes dim"]:
        """Features (not normalised) of the plan's classes, in the plan's order; so are the rows of a class-specific context.

        Args:
            plan: what to compute.
            context: see `TextEncoder`.
            class_specific: the context has a class axis.
            constant: what `constant` returned for this plan, if it was kept.
        """
        prefix = _embed_prefix(self.tower, plan, None if class_specific else context)
        tails = _embed_tails(self.tower, plan, context, class_specific) if constant is None else constant.rows
        filling = -(len(prefix) + len(tails)) % plan.pattern.multiple
        x = torch.cat([prefix, tails, tails.new_zeros(filling, tails.shape[1])])
        for i, block in enumerate(self.blocks[:-1]):
            x = self._block(x, block, plan.pattern, constant if i == 0 else None)
        x = self._last_block(x, self.blocks[-1], plan)
        x = x[: plan.pattern.groups * len(plan.order)]
        features = self.opened.projection(self.opened.final_norm(x))
        return features.view(plan.pattern.groups, len(plan.order), -1)

    def _project(self, x: Tensor, block: Block) -> Tensor:
        """Queries, keys and values."""
        return _linear(block.ln_1(x), block.qkv_weight, block.qkv_bias, self.dtype)

    def _rest(self, x: Tensor, attended: Tensor, block: Block) -> Tensor:
        """What follows attention in a block: its projection and the feed-forward layers, both added to the stream."""
        out = block.out_proj
        if isinstance(block.scale_1, nn.Identity) and out.bias is not None:
            x = add_product(x, attended, out.weight, out.bias)
        else:
            x = x + block.scale_1(out(attended))
        return feed_forward(x, block.ln_2(x).to(self.dtype), block, self.kernel)

    def _block(
        self, x: Float[Tensor, "rows width"], block: Block, pattern: AttentionPattern, known: Constant | None
    ) -> Float[Tensor, "rows width"]:
        if known is None:
            qkv = self._project(x, block)
        else:
            qkv = torch.cat([self._project(x[: -len(known.qkv)], block), known.qkv])
        attended = cast(Tensor, Attention.apply(qkv, pattern))
        return self._rest(x, attended, block)

    def _last_block(self, x: Float[Tensor, "rows width"], block: Block, plan: ChunkPlan) -> Float[Tensor, "ends width"]:
        """The end tokens' rows (G * C, W): the only ones anybody reads."""
        width = x.shape[1]
        normed, ends = block.ln_1(x), plan.end_rows
        query_bias, bias = (None, None) if block.qkv_bias is None else block.qkv_bias.tensor_split([width])
        keys_values = _linear(normed, block.qkv_weight[width:], bias, self.dtype)
        queries = _linear(normed[ends], block.qkv_weight[:width], query_bias, self.dtype)
        attended = cast(Tensor, EndAttention.apply(keys_values, queries, plan.pattern))
        return self._rest(x[ends], attended, block)
