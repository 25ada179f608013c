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

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coopt.backbones.protocol import Block, TextTower
from coopt.text.activation import fused
from coopt.text.layout import Prompts


class Bucket(NamedTuple):
    """Tails of one length: `classes` of them, `length` tokens each."""

    classes: int
    length: int


@dataclass(frozen=True)
class Plan:
    """Where everything lies for one chunk of classes.

    Attributes:
        prefix_ids, prefix_context: the prefix's constant tokens and context indices.
        tail_ids, tail_context, tail_position: the same for all tails, packed, with each token's position.
        tail_class: which class (of the prompts, for class-specific context) a tail row belongs to.
        buckets: runs of equal length in the packed tails.
        end_rows: the packed row of each class's end token.
        order: the classes in packed order.
    """

    prefix_ids: Int[Tensor, " prefix"]
    prefix_context: Int[Tensor, " prefix"]
    tail_ids: Int[Tensor, " rows"]
    tail_context: Int[Tensor, " rows"]
    tail_position: Int[Tensor, " rows"]
    tail_class: Int[Tensor, " rows"]
    buckets: tuple[Bucket, ...]
    end_rows: Int[Tensor, " classes"]
    order: Int[Tensor, " classes"]

    def to(self, device: torch.device) -> Plan:
        """The plan with its index tensors on `device`."""
        moved = {name: value.to(device) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **moved)


def make_plan(prompts: Prompts, classes: Int[Tensor, " classes"]) -> Plan:
    """The plan for some of the prompts; `classes` must be sorted by length (see `chunks`)."""
    shared = prompts.shared
    lengths = prompts.lengths[classes]
    columns = torch.arange(prompts.token_ids.shape[1])
    in_tail = (columns >= shared) & (columns < lengths[:, None])
    row, column = in_tail.nonzero(as_tuple=True)
    tail_lengths, counts = torch.unique_consecutive(lengths - shared, return_counts=True)
    buckets = [Bucket(count, length) for length, count in zip(tail_lengths.tolist(), counts.tolist(), strict=True)]
    return Plan(
        prefix_ids=prompts.token_ids[0, :shared],
        prefix_context=prompts.context_index[0, :shared],
        tail_ids=prompts.token_ids[classes[row], column],
        tail_context=prompts.context_index[classes[row], column],
        tail_position=column,
        tail_class=classes[row],
        buckets=tuple(buckets),
        end_rows=(lengths - shared).cumsum(0) - 1,
        order=classes,
    )


def chunks(prompts: Prompts, parts: int) -> tuple[Int[Tensor, " classes"], ...]:
    """Classes in order of length, cut into about `parts` chunks with equal numbers of tail rows (at least one class)."""
    order = torch.argsort(prompts.lengths, stable=True)
    rows = (prompts.lengths - prompts.shared)[order].cumsum(0)
    part = (rows - 1) * parts // rows[-1]
    return order.split(torch.unique_consecutive(part, return_counts=True)[1].tolist())


def _insert(base: Tensor, index: Tensor, vectors: Tensor, owner: Tensor | None) -> Tensor:
    """Adds the context vectors to the rows (G, R, W) whose `index` names one; `owner` names the class where it matters."""
    rows = (index >= 0).nonzero(as_tuple=True)[0]
    if not len(rows):
        return base
    chosen = vectors[owner[rows], index[rows]][None] if owner is not None else vectors[:, index[rows]]
    return base.index_add(1, rows, chosen)


def _embed(tower: TextTower, plan: Plan, context: Tensor | None, class_specific: bool) -> tuple[Tensor, int]:
    """Input rows (R, W) in float32, groups outermost within prefix and tails; and the number of groups."""
    table, positions = tower.token_embedding.weight, tower.positional_embedding

    def constants(ids: Tensor, index: Tensor, position: Tensor) -> Tensor:
        return table[ids] * (index < 0)[:, None] + positions[position]

    shared = len(plan.prefix_ids)
    prefix = constants(plan.prefix_ids, plan.prefix_context, torch.arange(shared, device=table.device))[None]
    tails = constants(plan.tail_ids, plan.tail_context, plan.tail_position)[None]
    if context is None:
        return torch.cat([prefix[0], tails[0]]), 1
    if class_specific:  # (C, M, W): no group axis, and the prefix holds no context
        return torch.cat([prefix[0], _insert(tails, plan.tail_context, context, plan.tail_class)[0]]), 1
    vectors = context if context.ndim == 3 else context[None]
    groups, width = len(vectors), table.shape[1]
    prefix = _insert(prefix.expand(groups, -1, -1), plan.prefix_context, vectors, None)
    tails = _insert(tails.expand(groups, -1, -1), plan.tail_context, vectors, None)
    return torch.cat([prefix.reshape(-1, width), tails.reshape(-1, width)]), groups


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return F.linear(x.to(dtype), weight, bias)


def _attend(
    query: Float[Tensor, "groups heads classes queries depth"],
    key: Float[Tensor, "groups heads classes tokens depth"],
    value: Float[Tensor, "groups heads classes tokens depth"],
    prefix_key: Float[Tensor, "groups heads prefix depth"],
    prefix_value: Float[Tensor, "groups heads prefix depth"],
) -> Float[Tensor, "groups heads classes queries depth"]:
    """Causal attention of the last `queries` tokens of each tail to the whole prefix and to their own tail.

    The prefix's scores are one matrix product for all classes: its keys and values are never repeated per class.
    """
    groups, heads, classes, queries, depth = query.shape
    tokens, prefix = key.shape[3], prefix_key.shape[2]
    query = query * depth**-0.5
    flat = query.reshape(groups, heads, classes * queries, depth)
    to_prefix = (flat @ prefix_key.transpose(-1, -2)).view(groups, heads, classes, queries, prefix)
    to_own = query @ key.transpose(-1, -2)
    if queries > 1:
        future = torch.ones(queries, tokens, dtype=torch.bool, device=query.device).triu(tokens - queries + 1)
        to_own = to_own.masked_fill(future, float("-inf"))
    weights = torch.cat([to_prefix, to_own], dim=-1).softmax(dim=-1, dtype=torch.float32).to(value.dtype)
    from_prefix = weights[..., :prefix].reshape(groups, heads, classes * queries, prefix) @ prefix_value
    return from_prefix.view(groups, heads, classes, queries, depth) + weights[..., prefix:] @ value


def _attend_prefix(
    query: Float[Tensor, "groups heads prefix depth"],
    key: Float[Tensor, "groups heads prefix depth"],
    value: Float[Tensor, "groups heads prefix depth"],
) -> Float[Tensor, "groups prefix heads depth"]:
    """Causal attention of the prefix to itself; it may be empty."""
    attended = F.scaled_dot_product_attention(query, key, value, is_causal=True) if query.shape[2] else value
    return attended.transpose(1, 2)


@dataclass(frozen=True)
class FastPass:
    """The blocks of one tower, ready to run in one precision.

    The frozen weights are held in the working precision (converted once, where autocast would convert them at every
    step); LayerNorm, softmax and the residual stream stay in float32.
    """

    tower: TextTower
    blocks: tuple[Block, ...]
    dtype: torch.dtype
    activation: Callable[[Tensor], Tensor]

    @classmethod
    def of(cls, tower: TextTower, blocks: tuple[Block, ...], dtype: torch.dtype) -> FastPass:
        """The pass over `blocks`, the tower's blocks with weights in `dtype`."""
        return cls(tower, blocks, dtype, fused(blocks[0].activation))

    def __call__(
        self, plan: Plan, context: Float[Tensor, "*shape width"] | None, class_specific: bool
    ) -> Float[Tensor, "groups classes dim"]:
        """Features (not normalised) of the plan's classes, in the plan's order."""
        x, groups = _embed(self.tower, plan, context, class_specific)
        shape = _Shape(groups, len(plan.prefix_ids), len(plan.tail_ids), self.tower.heads)
        for block in self.blocks[:-1]:
            x = self._block(x, block, plan, shape)
        x = self._last_block(x, self.blocks[-1], plan, shape)
        features = self.tower.projection(self.tower.ln_final(x))
        return features.view(groups, len(plan.order), -1)

    def _feed_forward(self, x: Tensor, block: Block) -> Tensor:
        hidden = self.activation(_linear(block.ln_2(x), block.fc.weight, block.fc.bias, self.dtype))
        return x + block.scale_2(_linear(hidden, block.proj.weight, block.proj.bias, self.dtype))

    def _residual(self, x: Tensor, attended: Tensor, block: Block) -> Tensor:
        return x + block.scale_1(_linear(attended, block.out_proj.weight, block.out_proj.bias, self.dtype))

    def _block(self, x: Float[Tensor, "rows width"], block: Block, plan: Plan, shape: _Shape) -> Tensor:
        qkv = _linear(block.ln_1(x), block.qkv_weight, block.qkv_bias, self.dtype)
        (prefix_q, prefix_k, prefix_v), tails = shape.split(qkv, plan.buckets, 3)
        attended = [_attend_prefix(prefix_q, prefix_k, prefix_v)]
        for q, k, v in tails:
            attended.append(_attend(q, k, v, prefix_k, prefix_v).permute(0, 2, 3, 1, 4))
        return self._feed_forward(self._residual(x, shape.pack(attended), block), block)

    def _last_block(self, x: Float[Tensor, "rows width"], block: Block, plan: Plan, shape: _Shape) -> Tensor:
        """The end tokens' rows (G * C, W): the only ones anybody reads."""
        width = x.shape[1]
        normed = block.ln_1(x)
        bias = block.qkv_bias
        kv = _linear(normed, block.qkv_weight[width:], None if bias is None else bias[width:], self.dtype)
        ends = shape.tail_rows(plan.end_rows)
        q = _linear(normed[ends], block.qkv_weight[:width], None if bias is None else bias[:width], self.dtype)
        q = q.view(shape.groups, -1, 1, shape.heads, width // shape.heads).permute(0, 3, 1, 2, 4)
        (prefix_k, prefix_v), tails = shape.split(kv, plan.buckets, 2)
        queries = q.split([bucket.classes for bucket in plan.buckets], dim=2)
        attended = [
            _attend(own, k, v, prefix_k, prefix_v).permute(0, 2, 3, 1, 4)
            for own, (k, v) in zip(queries, tails, strict=True)
        ]
        merged = torch.cat(attended, dim=1).reshape(-1, width)
        return self._feed_forward(self._residual(x[ends], merged, block), block)


class _Shape(NamedTuple):
    """How rows map to groups, prefix and tails."""

    groups: int
    prefix_length: int
    tail_length: int
    heads: int

    def split(
        self, rows: Tensor, buckets: tuple[Bucket, ...], parts: int
    ) -> tuple[tuple[Tensor, ...], list[tuple[Tensor, ...]]]:
        """Queries, keys, values (or keys, values) of the prefix, (G, H, P, depth), and of each bucket, (G, H, C, S, depth).

        One split, whose gradient is one concatenation; slices would each cost a matrix of zeros.
        """
        prefix, tails = rows.split([self.groups * self.prefix_length, self.groups * self.tail_length])
        depth = rows.shape[1] // (parts * self.heads)
        heads = prefix.view(self.groups, self.prefix_length, parts, self.heads, depth).permute(2, 0, 3, 1, 4).unbind(0)
        sizes = [bucket.classes * bucket.length for bucket in buckets]
        in_buckets = []
        for bucket, part in zip(
            buckets, tails.view(self.groups, self.tail_length, -1).split(sizes, dim=1), strict=True
        ):
            part = part.reshape(self.groups, bucket.classes, bucket.length, parts, self.heads, -1)
            in_buckets.append(part.permute(3, 0, 4, 1, 2, 5).unbind(0))
        return heads, in_buckets

    def pack(self, attended: list[Tensor]) -> Tensor:
        """Heads side by side again and all parts, (G, tokens..., H, depth), as rows (R, W)."""
        prefix, *tails = (part.reshape(self.groups, -1, part.shape[-2] * part.shape[-1]) for part in attended)
        merged = tails[0] if len(tails) == 1 else torch.cat(tails, dim=1)
        return torch.cat([prefix.flatten(0, 1), merged.flatten(0, 1)])

    def tail_rows(self, rows: Tensor) -> Tensor:
        """Packed rows of one group's tails as rows of the whole matrix, for all groups."""
        offset = torch.arange(self.groups, device=rows.device)[:, None] * self.tail_length
        return (offset + rows + self.groups * self.prefix_length).flatten()
