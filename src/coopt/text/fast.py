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
from typing import cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from coopt.backbones.protocol import Block, TextTower
from coopt.text.attention import Attention, EndAttention, Layout
from coopt.text.feed_forward import Kernel, add_product, feed_forward, kernel_of
from coopt.text.layout import Prompts


@dataclass(frozen=True)
class Plan:
    """Where everything lies for one chunk of classes.

    Attributes:
        prefix_ids, prefix_context: the prefix's constant tokens and context indices.
        tail_ids, tail_context, tail_position: the same for all tails, packed, with each token's position.
        tail_class: which of the plan's classes (for class-specific context) a tail row belongs to.
        prefix_slots, tail_slots: which of the rows hold a context vector.
        end_rows: the row of each end token in the whole matrix, for all groups.
        order: the classes in packed order.
        layout: how the rows attend to each other.
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
    layout: Layout


def make_plan(
    prompts: Prompts,
    classes: Int[Tensor, " classes"],
    groups: int,
    tower: TextTower,
    dtype: torch.dtype,
    layouts: dict[tuple[int, ...], Layout],
) -> Plan:
    """The plan for some of the prompts and G contexts.

    Args:
        prompts: all prompts.
        classes: which; sorted by length.
        groups: G.
        tower: whose device and heads are used.
        dtype: what the matrix products are computed in.
        layouts: those of other plans for the same groups, by the lengths of their prompts; a new one is added. Classes
            are many and lengths are few.
    """
    device = tower.positional_embedding.device
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
    group = torch.arange(groups)[:, None]
    if key not in layouts:
        layouts[key] = Layout.of(lengths - shared, shared, groups, tower.heads, device, attention)
    return Plan(
        prefix_ids=prompts.token_ids[0, :shared].to(device),
        prefix_context=prefix_context.to(device),
        tail_ids=prompts.token_ids[classes[row], column].to(device),
        tail_context=tail_context.to(device),
        tail_position=column.to(device),
        tail_class=row.to(device),
        prefix_slots=(prefix_context >= 0).nonzero()[:, 0].to(device),
        tail_slots=(tail_context >= 0).nonzero()[:, 0].to(device),
        end_rows=(groups * shared + group * len(row) + ends).flatten().to(device),
        order=classes.to(device),
        layout=layouts[key],
    )


def _insert(base: Tensor, rows: Tensor, index: Tensor, vectors: Tensor, owner: Tensor | None) -> Tensor:
    """Adds to `rows` of base (G, R, W) the vectors that `index` names; `owner` names the class where it matters."""
    if not len(rows):
        return base
    chosen = vectors[owner[rows], index[rows]][None] if owner is not None else vectors[:, index[rows]]
    return base.index_add(1, rows, chosen)


def _embed(tower: TextTower, plan: Plan, context: Tensor | None, class_specific: bool) -> Tensor:
    """Input rows (R, W) in float32, groups outermost within prefix and tails."""
    table, positions = tower.token_embedding.weight, tower.positional_embedding

    def constants(ids: Tensor, index: Tensor, position: Tensor) -> Tensor:
        return table[ids] * (index < 0)[:, None] + positions[position]

    shared = len(plan.prefix_ids)
    prefix = constants(plan.prefix_ids, plan.prefix_context, torch.arange(shared, device=table.device))[None]
    tails = constants(plan.tail_ids, plan.tail_context, plan.tail_position)[None]
    if context is None:
        return torch.cat([prefix[0], tails[0]])
    if class_specific:  # (classes, M, W): no group axis, and the prefix holds no context
        return torch.cat([prefix[0], _insert(tails, plan.tail_slots, plan.tail_context, context, plan.tail_class)[0]])
    vectors = context if context.ndim == 3 else context[None]
    groups, width = plan.layout.groups, table.shape[1]
    prefix = _insert(prefix.expand(groups, -1, -1), plan.prefix_slots, plan.prefix_context, vectors, None)
    tails = _insert(tails.expand(groups, -1, -1), plan.tail_slots, plan.tail_context, vectors, None)
    return torch.cat([prefix.reshape(-1, width), tails.reshape(-1, width)])


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return F.linear(x.to(dtype), weight, bias)


@dataclass(frozen=True)
class FastPass:
    """The blocks of one tower, ready to run in one precision.

    The frozen weights are held in the working precision (converted once, where autocast would convert them at every
    step); LayerNorm, softmax and the residual stream stay in float32.
    """

    tower: TextTower
    blocks: tuple[Block, ...]
    dtype: torch.dtype
    kernel: Kernel | None

    @classmethod
    def of(cls, tower: TextTower, blocks: tuple[Block, ...], dtype: torch.dtype) -> FastPass:
        """The pass over `blocks`, the tower's blocks with weights in `dtype`."""
        return cls(tower, blocks, dtype, kernel_of(blocks[0]))

    def __call__(
        self, plan: Plan, context: Float[Tensor, "*shape width"] | None, class_specific: bool
    ) -> Float[Tensor, "groups classes dim"]:
        """Features (not normalised) of the plan's classes, in the plan's order; so are the rows of a class-specific context."""
        x = _embed(self.tower, plan, context, class_specific)
        for block in self.blocks[:-1]:
            x = self._block(x, block, plan.layout)
        x = self._last_block(x, self.blocks[-1], plan)
        features = self.tower.projection(self.tower.ln_final(x))
        return features.view(plan.layout.groups, len(plan.order), -1)

    def _rest(self, x: Tensor, attended: Tensor, block: Block) -> Tensor:
        """What follows attention in a block: its projection and the feed-forward layers, both added to the stream."""
        out = block.out_proj
        if isinstance(block.scale_1, nn.Identity) and out.bias is not None:
            x = add_product(x, attended, out.weight, out.bias)
        else:
            x = x + block.scale_1(out(attended))
        return feed_forward(x, block.ln_2(x).to(self.dtype), block, self.kernel)

    def _block(self, x: Float[Tensor, "rows width"], block: Block, layout: Layout) -> Float[Tensor, "rows width"]:
        qkv = _linear(block.ln_1(x), block.qkv_weight, block.qkv_bias, self.dtype)
        attended = cast(Tensor, Attention.apply(qkv, layout))
        return self._rest(x, attended, block)

    def _last_block(self, x: Float[Tensor, "rows width"], block: Block, plan: Plan) -> Float[Tensor, "ends width"]:
        """The end tokens' rows (G * C, W): the only ones anybody reads."""
        width = x.shape[1]
        normed, ends = block.ln_1(x), plan.end_rows
        query_bias, bias = (None, None) if block.qkv_bias is None else block.qkv_bias.tensor_split([width])
        keys_values = _linear(normed, block.qkv_weight[width:], bias, self.dtype)
        queries = _linear(normed[ends], block.qkv_weight[:width], query_bias, self.dtype)
        attended = cast(Tensor, EndAttention.apply(keys_values, queries, plan.layout))
        return self._rest(x[ends], attended, block)
