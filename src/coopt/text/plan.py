"""Where everything lies in the fast path's one matrix of rows; `fast.py` draws an example.

Notation: G groups, C classes, P prefix tokens, S tail tokens, R rows in all = G * (P + sum of all S), M context vectors, W
width.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from coopt.backbones.text_tower import TextTower
from coopt.text.layout import Prompts
from coopt.text.pattern import AttentionPattern

Patterns = dict[tuple[int, ...], AttentionPattern]
"""By the prefix and the lengths of tails: classes are many and lengths are few."""


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
        regrouped: from a block on, another plan, because class-specific vectors enter there; None where one is enough.
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
    regrouped: Regrouped | None = None


@dataclass(frozen=True)
class Regrouped:
    """How rows that were shared become rows of each class, or how slots are put in between the rows there are.

    Attributes:
        block: from whose input on.
        plan: where everything lies then: the prefix ends before the first context vector, and tails begin with it; or the
            prefix has more slots.
        rows: for each of the new plan's rows the old one's that it continues.
    """

    block: int
    plan: ChunkPlan
    rows: Int[Tensor, " rows"]


def attention_dtype(dtype: torch.dtype, device: torch.device) -> torch.dtype:
    """What attention computes in where other products are in `dtype`: small ones in bfloat16 are slow on a CPU, so attention
    (1% of the work) stays in float32 there."""
    return torch.float32 if device.type == "cpu" and dtype is torch.bfloat16 else dtype


def make_plan(
    prompts: Prompts,
    classes: Int[Tensor, " classes"],
    groups: int,
    tower: TextTower,
    dtype: torch.dtype,
    patterns: Patterns,
    multiple: int = 1,
    regrouped_at: int | None = None,
) -> ChunkPlan:
    """The plan for some of the prompts and G contexts.

    Args:
        prompts: all prompts.
        classes: which; sorted by length.
        groups: G.
        tower: whose device and heads are used.
        dtype: what the matrix products are computed in.
        patterns: those of other plans for the same groups; a new one is added.
        multiple: rows are filled up to a multiple of it.
        regrouped_at: the block at whose input context vectors of the prefix become class-specific.
    """
    if prompts.enters:
        plan, later = (
            _plan(one, classes, groups, tower, dtype, patterns, multiple) for one in (prompts.before, prompts)
        )
        rows = _continued_rows(plan, later, prompts.before.lengths[classes], (prompts.context_index[0] < 0))
        return replace(plan, regrouped=Regrouped(prompts.enters, later, rows))
    plan = _plan(prompts, classes, groups, tower, dtype, patterns, multiple)
    if regrouped_at is None:
        return plan
    later = _plan(replace(prompts, class_specific=True), classes, groups, tower, dtype, patterns, multiple)
    return replace(
        plan, regrouped=Regrouped(regrouped_at, later, _continued_rows(plan, later, prompts.lengths[classes]))
    )


def _plan(
    prompts: Prompts,
    classes: Tensor,
    groups: int,
    tower: TextTower,
    dtype: torch.dtype,
    patterns: Patterns,
    multiple: int,
) -> ChunkPlan:
    device = tower.device
    shared = prompts.shared
    lengths = prompts.lengths[classes]
    columns = torch.arange(prompts.token_ids.shape[1])
    in_tail = (columns >= shared) & (columns < lengths[:, None])
    row, column = in_tail.nonzero(as_tuple=True)
    prefix_context, tail_context = prompts.context_index[0, :shared], prompts.context_index[classes[row], column]
    ends = (lengths - shared).cumsum(0) - 1
    end_rows = (groups * shared + torch.arange(groups)[:, None] * len(row) + ends).flatten()
    key = (shared, *lengths.tolist())
    if key not in patterns:
        attention = attention_dtype(dtype, device)
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


def _continued_rows(
    plan: ChunkPlan,
    later: ChunkPlan,
    lengths: Int[Tensor, " classes"],
    stood: Bool[Tensor, " length"] | None = None,
) -> Int[Tensor, " rows"]:
    """For each row of a plan that follows, the row of the first plan that holds the same token.

    Args:
        plan: the first.
        later: one with a shorter prefix, or with more slots.
        lengths: of the first plan's prompts.
        stood: which of the later plan's positions the first one has; a new one takes the row before it, which a vector will
            replace. None: all.
    """
    groups, shared, shorter = plan.pattern.groups, plan.pattern.prefix, later.pattern.prefix
    device, n_tails = plan.tail_ids.device, len(plan.tail_ids)
    tails = (lengths - shared).to(device)
    begins = groups * shared + tails.cumsum(0) - tails
    group = torch.arange(groups, device=device)[:, None]
    positions = torch.arange(shorter, device=device)
    position = later.tail_position
    if stood is not None:
        moved = (stood.cumsum(0) - 1).clamp_min(0).to(device)
        positions, position = moved[positions], moved[position]
    of_prefix = group * shared + positions
    in_prefix = group * shared + position
    in_tail = group * n_tails + begins[later.tail_class] + position - shared
    rows = torch.cat([of_prefix.flatten(), torch.where(position < shared, in_prefix, in_tail).flatten()])
    return F.pad(rows, (0, -len(rows) % later.pattern.multiple))


def prefix_rows(tower: TextTower, plan: ChunkPlan, context: Tensor | None) -> Float[Tensor, "prefix width"]:
    """The prefix's rows (G * P), as they enter the first block, in float32."""
    positions = torch.arange(len(plan.prefix_ids), device=plan.prefix_ids.device)
    base = _embed(tower, plan.prefix_ids, plan.prefix_context, positions)
    if context is None or not len(plan.prefix_slots):
        return base.repeat(plan.pattern.groups, 1)
    return _insert(base, plan.prefix_slots, by_group(context)[:, plan.prefix_context[plan.prefix_slots]])


def tail_rows(
    tower: TextTower, plan: ChunkPlan, context: Tensor | None, class_specific: bool
) -> Float[Tensor, "tails width"]:
    """The tails' rows (G * sum of S), as they enter the first block, in float32."""
    base, slots = _embed(tower, plan.tail_ids, plan.tail_context, plan.tail_position), plan.tail_slots
    if context is None or not len(slots):
        return base.repeat(plan.pattern.groups, 1)
    return _insert(base, slots, _tail_vectors(plan, context, class_specific))


def with_vectors(
    x: Float[Tensor, "rows width"], plan: ChunkPlan, vectors: Tensor, class_specific: bool
) -> Float[Tensor, "rows width"]:
    """A block's input with the rows of context slots replaced; what stood there gets no gradient.

    Args:
        x: the rows.
        plan: where they lie; with class-specific vectors one whose prefix holds no context slot.
        vectors: (M, W), one set for each group (G, M, W), or class-specific (C, M, W) in the plan's order.
        class_specific: the vectors have a class axis.
    """
    groups, n_prefix, n_tails = plan.pattern.groups, len(plan.prefix_ids), len(plan.tail_ids)
    group = torch.arange(groups, device=x.device)[:, None]
    rows, new = [group * n_prefix + plan.prefix_slots, groups * n_prefix + group * n_tails + plan.tail_slots], []
    if len(plan.prefix_slots):
        assert not class_specific
        new.append(by_group(vectors)[:, plan.prefix_context[plan.prefix_slots]].expand(groups, -1, -1))
    if len(plan.tail_slots):
        new.append(_tail_vectors(plan, vectors, class_specific).expand(groups, -1, -1))
    flat = torch.cat([one.flatten() for one in rows])
    return x.index_copy(0, flat, torch.cat([one.flatten(0, 1) for one in new]).to(x.dtype))


def _tail_vectors(plan: ChunkPlan, vectors: Tensor, class_specific: bool) -> Float[Tensor, "groups slots width"]:
    """The vector of each of the tails' slots."""
    slots = plan.tail_slots
    index = plan.tail_context[slots]
    if class_specific:  # (classes, M, W): no group axis
        return vectors[plan.tail_class[slots], index][None]
    return by_group(vectors)[:, index]


def by_group(context: Tensor) -> Float[Tensor, "groups n_ctx width"]:
    """Vectors with a group axis, which one set for all groups has none of."""
    return context if context.ndim == 3 else context[None]


def _embed(tower: TextTower, ids: Tensor, context: Tensor, positions: Tensor) -> Tensor:
    """What is constant of input rows: zero instead of a token where a context vector stands."""
    assert tower.open is not None
    return tower.embed(ids) * (context < 0)[:, None] + tower.open.positions[positions]


def _insert(
    base: Float[Tensor, "rows width"], slots: Int[Tensor, " slots"], vectors: Float[Tensor, "groups slots width"]
) -> Float[Tensor, "all width"]:
    """The rows once for every group, vectors added to those that `slots` names."""
    return base.expand(len(vectors), -1, -1).index_add(1, slots, vectors).flatten(0, 1)
