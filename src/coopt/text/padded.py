"""The padded path: exact text features of towers in which every token sees every other, padding included.

There nothing can be cut off, and from the first attention on every row of every class depends on the context. What is left,
none of it an approximation:

1. Before the first attention a row depends on its token and its position alone. Rows that hold the same token at the same
   position are projected together, once for all classes (most of them are padding), and once for all steps.
2. The first block's gradient is asked for at the context vectors alone.
3. In the last block one row of each prompt is read out. With its query q the score of a row x is q'(K x) = (K'q)'x, and
   what it attends to is the sum of a V x = V (sum of a x): neither keys nor values of other rows are computed.

All prompts have the same length here, so rows are a rectangle and attention is torch's own.

Notation: G groups (contexts that share the class names), C classes, L tokens of a prompt, R rows in all = G * C * L, N = G * C
prompts, U distinct constant rows, K distinct context rows, S slots in all rows, H heads, W width, D output width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from coopt.backbones.text_tower import OpenBlock, OpenTower, TextTower, pooled_at
from coopt.text.fast import Learned
from coopt.text.feed_forward import Kernel, behind_attention, kernel_of
from coopt.text.layout import Prompts
from coopt.text.plan import attention_dtype
from coopt.text.reference import padded_ids


def serves(tower: TextTower) -> bool:
    """Whether a tower is what this path is for, and lets it in."""
    return tower.open is not None and not tower.causal and tower.padding_matters and tower.pooling != "mean"


class Slots(NamedTuple):
    """Which vector stands where.

    Attributes:
        rows: the row of each slot.
        classes: of the chunk, for class-specific vectors.
        groups: for vectors of each group.
        index: in the context.
    """

    rows: Int[Tensor, " slots"]
    classes: Int[Tensor, " slots"]
    groups: Int[Tensor, " slots"]
    index: Int[Tensor, " slots"]

    def chosen(self, learned: Learned) -> Float[Tensor, "slots width"]:
        """The vector of each."""
        vectors = learned.vectors
        if vectors.ndim == 2:
            return vectors[self.index]
        return vectors[self.classes if learned.class_specific else self.groups, self.index]


@dataclass(frozen=True)
class PaddedPlan:
    """Where everything lies for one chunk of classes.

    Attributes:
        groups, classes, length: G, C, L.
        ids, positions: of the distinct constant rows.
        table: for each row which of the distinct rows it is, the constant ones counted first.
        distinct: one slot for each distinct context row, with the position in the place of its row.
        distinct_of: for each slot, which of them it is.
        slots: all of them.
        read: the row of each prompt that becomes its feature.
    """

    groups: int
    classes: int
    length: int
    ids: Int[Tensor, " constant"]
    positions: Int[Tensor, " constant"]
    table: Int[Tensor, " rows"]
    distinct: Slots
    distinct_of: Int[Tensor, " slots"]
    slots: Slots
    read: Int[Tensor, " prompts"]

    @classmethod
    def of(cls, tower: TextTower, prompts: Prompts, groups: int) -> PaddedPlan:
        """The plan for a chunk's prompts and G contexts."""
        length, classes = tower.context_length, len(prompts)
        index = F.pad(prompts.context_index, (0, length - prompts.context_index.shape[1]), value=-1)
        ids = torch.where(index < 0, padded_ids(prompts, length), prompts.framing.placeholder)
        position = torch.arange(length).expand(classes, -1)
        is_constant = (index < 0).repeat(groups, 1).flatten()
        keys = (ids * length + position).repeat(groups, 1).flatten()
        constant, constant_of = keys[is_constant].unique(return_inverse=True)
        rows = (~is_constant).nonzero()[:, 0]
        prompt, column = rows // length, rows % length
        slots = Slots(rows, prompt % classes, prompt // classes, index[prompt % classes, column])
        owner = slots.classes if prompts.class_specific else slots.groups
        vectors = int(index.max()) + 1
        _, distinct_of = ((owner * vectors + slots.index) * length + column).unique(return_inverse=True)
        first = torch.zeros(int(distinct_of.max()) + 1 if len(rows) else 0, dtype=torch.long)
        first[distinct_of] = torch.arange(len(rows))
        distinct = Slots(column[first], *(part[first] for part in slots[1:]))
        table = torch.empty(len(keys), dtype=torch.long)
        table[is_constant], table[rows] = constant_of, len(constant) + distinct_of
        pooled = pooled_at(tower.pooling, ids, prompts.framing.end)
        read = (torch.arange(groups * classes) * length) + pooled.repeat(groups)
        device = tower.device
        return cls(
            groups=groups,
            classes=classes,
            length=length,
            ids=(constant // length).to(device),
            positions=(constant % length).to(device),
            table=table.to(device, torch.int32),
            distinct=Slots(*(part.to(device) for part in distinct)),
            distinct_of=distinct_of.to(device),
            slots=Slots(*(part.to(device) for part in slots)),
            read=read.to(device),
        )


class ConstantRows(NamedTuple):
    """What training does not change: distinct rows as they enter the first block, and their queries, keys and values."""

    rows: Float[Tensor, "constant width"]
    projected: Float[Tensor, "constant qkv"]


@dataclass(frozen=True)
class PaddedPass:
    """The blocks of one tower, ready to run in one precision; the weights are held as in `FastPass`."""

    tower: TextTower
    opened: OpenTower
    dtype: torch.dtype
    kernel: Kernel | None

    @classmethod
    def of(cls, tower: TextTower, opened: OpenTower, dtype: torch.dtype) -> PaddedPass:
        """The pass over `opened`, what the tower gives with weights in `dtype`."""
        return cls(tower, opened, dtype, kernel_of(opened.blocks[0]))

    @property
    def attention_dtype(self) -> torch.dtype:
        """What attention computes in."""
        return attention_dtype(self.dtype, self.tower.device)

    def constant(self, plan: PaddedPlan) -> ConstantRows:
        """What need not be computed again at every step."""
        with torch.no_grad():
            rows = self.tower.embed(plan.ids) + self.opened.positions[plan.positions]
            block = self.opened.blocks[0]
            return ConstantRows(rows, F.linear(block.ln_1(rows).to(self.dtype), block.qkv_weight, block.qkv_bias))

    def constant_bytes(self, prompts: Prompts) -> int:
        """Of the constant rows of prompts, and of what says where context vectors stand."""
        positions = torch.arange(prompts.token_ids.shape[1])
        words = (prompts.token_ids * len(positions) + positions)[~prompts.is_context].unique()
        rows = len(words) + self.tower.context_length
        row = self.tower.width * (4 + 3 * torch.finfo(self.dtype).bits // 8) + 16
        return rows * row + 72 * int(prompts.is_context.sum())

    def __call__(
        self, plan: PaddedPlan, learned: Mapping[int, Learned], constant: ConstantRows | None = None
    ) -> Float[Tensor, "groups classes dim"]:
        """Features (not normalised) of the plan's prompts.

        Args:
            plan: what to compute.
            learned: the vectors of context slots at the input of blocks; those of block 0 are the context.
            constant: what `constant` returned for this plan, if it was kept.
        """
        constant = self.constant(plan) if constant is None else constant
        new = constant.rows[:0]
        if len(plan.slots.rows):
            new = plan.distinct.chosen(learned[0]) + self.opened.positions[plan.distinct.rows]
        x = self._laid_out(constant.rows, new.to(constant.rows.dtype), plan)
        last = len(self.opened.blocks) - 1
        for i, block in enumerate(self.opened.blocks):
            if i and i in learned:
                x = x.index_copy(0, plan.slots.rows, plan.slots.chosen(learned[i]).to(x.dtype))
            if i == last:
                x = self._last_block(x, block, plan)
            else:
                qkv = self._first_projection(new, block, plan, constant) if i == 0 else self._projection(x, block)
                x = self._rest(x, self._attended(qkv, plan), block)
        features = self.opened.projection(self.opened.final_norm(x))
        return features.view(plan.groups, plan.classes, -1)

    def _laid_out(self, constant: Tensor, new: Tensor, plan: PaddedPlan) -> Float[Tensor, "rows features"]:
        """Distinct rows to all rows."""
        return cast(Tensor, _LaidOut.apply(constant, new, plan))

    def _first_projection(
        self, new: Tensor, block: OpenBlock, plan: PaddedPlan, constant: ConstantRows
    ) -> tuple[Tensor, ...]:
        width = self.tower.width
        projected = self._projection(new, block)
        return tuple(
            self._laid_out(known, one, plan)
            for known, one in zip(constant.projected.split(width, dim=1), projected, strict=True)
        )

    def _projection(self, x: Float[Tensor, "n width"], block: OpenBlock) -> tuple[Tensor, ...]:
        """Queries, keys and values, each (n, W)."""
        return cast(
            tuple[Tensor, ...], _Projected.apply(block.ln_1(x).to(self.dtype), block.qkv_weight, block.qkv_bias)
        )

    def _attended(self, qkv: tuple[Tensor, ...], plan: PaddedPlan) -> Float[Tensor, "rows width"]:
        shape = (-1, plan.length, self.opened.heads, self.tower.width // self.opened.heads)
        query, key, value = (one.to(self.attention_dtype).view(shape).transpose(1, 2) for one in qkv)
        attended = F.scaled_dot_product_attention(query, key, value)
        return attended.transpose(1, 2).reshape(-1, self.tower.width).to(self.dtype)

    def _rest(self, x: Tensor, attended: Tensor, block: OpenBlock) -> Tensor:
        return behind_attention(x, attended, block, self.dtype, self.kernel)

    def _last_block(
        self, x: Float[Tensor, "rows width"], block: OpenBlock, plan: PaddedPlan
    ) -> Float[Tensor, "prompts width"]:
        """The rows that are read out, the only ones anybody reads: queries and values are moved past the weights."""
        width, heads, depth = self.tower.width, self.opened.heads, self.tower.width // self.opened.heads
        x, asking = cast(tuple[Tensor, Tensor], _Read.apply(x, plan.read))
        bias = block.qkv_bias
        query = F.linear(
            block.ln_1(asking).to(self.dtype), block.qkv_weight[:width], None if bias is None else bias[:width]
        )
        keys, values = (part.view(heads, depth, width) for part in block.qkv_weight[width:].split(width))
        # A bias of the keys adds the same to all scores of a row, which the softmax takes away.
        moved = torch.bmm(query.view(-1, heads, depth).transpose(0, 1), keys).transpose(0, 1)  # (N, H, W)
        seen = block.ln_1(x).to(self.attention_dtype).view(-1, plan.length, width)
        scores = torch.bmm(moved.to(seen.dtype), seen.mT) * depth**-0.5
        mixed = torch.bmm(scores.softmax(-1), seen).to(self.dtype)  # (N, H, W)
        attended = torch.bmm(mixed.transpose(0, 1), values.mT).transpose(0, 1).reshape(-1, width)
        return self._rest(asking, attended if bias is None else attended + bias[2 * width :], block)


class _LaidOut(torch.autograd.Function):
    """Distinct rows to all rows; the gradient is that of the context rows alone."""

    @staticmethod
    def forward(ctx: Any, constant: Tensor, new: Tensor, plan: PaddedPlan) -> Tensor:  # type: ignore[override]
        ctx.plan, ctx.shape = plan, new.shape
        return torch.cat([constant, new]).index_select(0, plan.table)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        plan: PaddedPlan = ctx.plan
        of_slots = grad.index_select(0, plan.slots.rows)
        return None, grad.new_zeros(ctx.shape).index_add_(0, plan.distinct_of, of_slots), None


class _Projected(torch.autograd.Function):
    """Three products of the same rows, whose gradients are added up by the products themselves."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> tuple[Tensor, ...]:  # type: ignore[override]
        ctx.save_for_backward(weight)
        biases = [None] * 3 if bias is None else bias.chunk(3)
        return tuple(F.linear(x, *both) for both in zip(weight.chunk(3), biases, strict=True))

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        query, key, value = ctx.saved_tensors[0].chunk(3)
        return (grads[0] @ query).addmm_(grads[1], key).addmm_(grads[2], value), None, None


class _Read(torch.autograd.Function):
    """Rows, and some of them once more; their gradient is added where they stand."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, where: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        ctx.save_for_backward(where)
        return x.view_as(x), x.index_select(0, where)

    @staticmethod
    def backward(ctx: Any, grad: Tensor, of_some: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return grad.index_add(0, ctx.saved_tensors[0], of_some), None
