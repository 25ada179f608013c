"""The fast path: exact text features of causal towers at a fraction of the work.

In a causal tower a token sees only what stands before it. Three consequences, none of them an approximation:

1. Tokens after the end token cannot matter: they are not computed.
2. What stands before the class name is the same for all classes: this *prefix* runs once, and each class runs only
   its own tokens, its *tail*, against the prefix's keys and values.
3. In the last block only the end token is read out: only its row is computed there.

All rows - the prefix's and those of all tails, without padding - lie in one matrix, so that every linear layer is one
matrix product. For the classes cat, dog and red cat behind two learned vectors V1 and V2, 13 rows instead of 3 x 77:

    row  holds  sees rows 0 to 12
      0  start  x.. ... ... ....
      1  V1     xx. ... ... ....
      2  V2     xxx ... ... ....
      3  cat    xxx x.. ... ....
      4  .      xxx xx. ... ....
      5  end    xxx xxx ... ....  read out
      6  dog    xxx ... x.. ....
      7  .      xxx ... xx. ....
      8  end    xxx ... xxx ....  read out
      9  red    xxx ... ... x...
     10  cat    xxx ... ... xx..
     11  .      xxx ... ... xxx.
     12  end    xxx ... ... xxxx  read out

Only attention has to know who sees whom (x): `pattern.py`; where each row comes from says `plan.py`. Before the first block
a row is its token's embedding, or its vector, and its position (`prefix_rows`, `tail_rows`). Vectors that enter at a later
block replace rows there (`with_vectors`); where they are class-specific, what they stand in can be shared no longer, and rows
are grouped anew, with start as the prefix and tails that begin at V1. Vectors may also be put in between start and what follows it:
then what the blocks before make of all rows is the same at every step, and is computed once.

Notation: G groups (contexts that share the class names: one for CoOp, one per image for CoCoOp), C classes,
P prefix tokens, S tail tokens, R rows in all = G * (P + sum of all S), H heads, W width, D output width.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from coopt.backbones.text_tower import OpenBlock, OpenTower, TextTower
from coopt.text.attention import attention, end_attention
from coopt.text.feed_forward import Kernel, behind_attention, kernel_of
from coopt.text.pattern import AttentionPattern
from coopt.text.plan import ChunkPlan, prefix_rows, tail_rows, with_vectors


class Learned(NamedTuple):
    """Vectors of context slots.

    Attributes:
        vectors: (M, W) for all classes, (G, M, W) for each group, or class-specific (C, M, W).
        class_specific: the last of these.
    """

    vectors: Float[Tensor, "*some n_ctx width"]
    class_specific: bool


class Constant(NamedTuple):
    """What training does not change: of tails that hold no context vector, or of all rows before any vector is put in.

    Attributes:
        rows: the tails' input; or all rows, as they enter the block where vectors are put in first.
        qkv: what the first block projects the tails to; None: `rows` are all.
    """

    rows: Float[Tensor, "rows width"]
    qkv: Float[Tensor, "rows features"] | None


class Place(NamedTuple):
    """Where a weight is in an opened tower that other ones may stand for.

    Attributes:
        block: counted from 0; behind the last one the tower's final norm.
        part: "qkv_weight", "ln_1", "ln_2" or "final_norm".
        name: of the weight in that part.
    """

    block: int
    part: str
    name: str = ""


def places_of(tower: TextTower) -> dict[str, Place]:
    """Names of the weights that the fast path may be given others for, queries', keys' and values' and norms', and where they are."""
    if tower.open is None:
        return {}
    norms = [(i, part, getattr(one, part)) for i, one in enumerate(tower.open.blocks) for part in ("ln_1", "ln_2")]
    norms.append((len(tower.open.blocks), "final_norm", tower.open.final_norm))
    known = {id(one.qkv_weight): Place(i, "qkv_weight") for i, one in enumerate(tower.open.blocks)}
    known |= {id(one): Place(i, part, name) for i, part, norm in norms for name, one in norm.named_parameters()}
    return {name: known[id(one)] for name, one in tower.named_parameters() if id(one) in known}


class ChangedNorm(nn.Module):
    """A norm with other weights, which are not its own parameters."""

    def __init__(self, norm: nn.Module, weights: Mapping[str, Tensor]) -> None:
        super().__init__()
        self._called = partial(functional_call, norm, dict(weights))

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Normed rows."""
        return self._called((x,))


@dataclass(frozen=True)
class FastPass:
    """The blocks of one tower, ready to run in one precision.

    The frozen weights are held in the working precision (converted once, where autocast would convert them at every
    step); LayerNorm, softmax and the residual stream stay in float32.
    """

    tower: TextTower
    opened: OpenTower
    dtype: torch.dtype
    kernel: Kernel | None

    @classmethod
    def of(cls, tower: TextTower, opened: OpenTower, dtype: torch.dtype) -> FastPass:
        """The pass over `opened`, what the tower gives with weights in `dtype`."""
        return cls(tower, opened, dtype, kernel_of(opened.blocks[0]))

    @property
    def blocks(self) -> tuple[OpenBlock, ...]:
        """One after another."""
        return self.opened.blocks

    def with_weights(self, weights: Mapping[Place, Tensor]) -> FastPass:
        """The pass with other weights at some of the `places_of` the tower; differentiable in these."""
        parts: dict[tuple[int, str], dict[str, Tensor]] = {}
        for place, weight in weights.items():
            parts.setdefault((place.block, place.part), {})[place.name] = weight
        blocks, final = list(self.blocks), self.opened.final_norm
        for (i, part), given in parts.items():
            if part == "qkv_weight":
                blocks[i] = replace(blocks[i], qkv_weight=given[""].to(self.dtype))
            elif part == "final_norm":
                final = ChangedNorm(final, given)
            else:
                blocks[i] = replace(blocks[i], **{part: ChangedNorm(getattr(blocks[i], part), given)})
        return replace(self, opened=replace(self.opened, blocks=tuple(blocks), final_norm=final))

    def constant(self, plan: ChunkPlan) -> Constant | None:
        """What need not be computed again at every step; None where all tails depend on the context."""
        if len(plan.tail_slots):
            return None
        with torch.no_grad():
            if _enters(plan):
                return Constant(self._lower(plan), None)
            rows = tail_rows(self.tower, plan, None, False)
            return Constant(rows, self._project(rows, self.blocks[0]))

    def __call__(
        self,
        plan: ChunkPlan,
        learned: Mapping[int, Learned],
        constant: Constant | None = None,
    ) -> Float[Tensor, "groups classes dim"]:
        """Features (not normalised) of the plan's classes, in the plan's order; so are class-specific vectors.

        Args:
            plan: what to compute.
            learned: the vectors of context slots at the input of blocks; those of block 0 are the context.
            constant: what `constant` returned for this plan, if it was kept.
        """
        first = _enters(plan)
        if first:
            x = self._lower(plan) if constant is None else constant.rows
        else:
            x = self._input(plan, *learned.get(0, (None, False)), constant)
        last = len(self.blocks) - 1
        for i, block in enumerate(self.blocks[first:], first):
            if plan.regrouped is not None and plan.regrouped.block == i:
                x, plan = x.index_select(0, plan.regrouped.rows), plan.regrouped.plan
            if i and i in learned:
                x = with_vectors(x, plan, *learned[i])
            if i < last:
                x = self._block(x, block, plan.pattern, constant.qkv if constant is not None and i == 0 else None)
            else:
                x = self._last_block(x, block, plan)
        x = x[: plan.pattern.groups * len(plan.order)]
        features = self.opened.projection(self.opened.final_norm(x))
        return features.view(plan.pattern.groups, len(plan.order), -1)

    def _input(
        self, plan: ChunkPlan, context: Tensor | None, class_specific: bool, constant: Constant | None
    ) -> Float[Tensor, "rows width"]:
        """All rows, as they enter the first block."""
        prefix = prefix_rows(self.tower, plan, None if class_specific else context)
        tails = tail_rows(self.tower, plan, context, class_specific) if constant is None else constant.rows
        filling = -(len(prefix) + len(tails)) % plan.pattern.multiple
        return torch.cat([prefix, tails, tails.new_zeros(filling, tails.shape[1])])

    def _lower(self, plan: ChunkPlan) -> Float[Tensor, "rows width"]:
        """All rows, as they enter the block where vectors are put in; nothing before it is learned."""
        x = self._input(plan, None, False, None)
        for block in self.blocks[: _enters(plan)]:
            x = self._block(x, block, plan.pattern, None)
        return x

    def _project(self, x: Tensor, block: OpenBlock) -> Tensor:
        """Queries, keys and values."""
        return _linear(block.ln_1(x), block.qkv_weight, block.qkv_bias, self.dtype)

    def _rest(self, x: Tensor, attended: Tensor, block: OpenBlock) -> Tensor:
        return behind_attention(x, attended, block, self.dtype, self.kernel)

    def _block(
        self, x: Float[Tensor, "rows width"], block: OpenBlock, pattern: AttentionPattern, known: Tensor | None
    ) -> Float[Tensor, "rows width"]:
        """One block but the last; `known`: what it projects the last of the rows to."""
        own = x if known is None else x[: -len(known)]
        qkv = self._project(own, block)
        qkv = qkv if known is None else torch.cat([qkv, known])
        attended = attention(qkv, pattern)
        return self._rest(x, attended, block)

    def _last_block(
        self, x: Float[Tensor, "rows width"], block: OpenBlock, plan: ChunkPlan
    ) -> Float[Tensor, "ends width"]:
        """The end tokens' rows (G * C, W): the only ones anybody reads."""
        width = x.shape[1]
        normed, ends = block.ln_1(x), plan.end_rows
        query_bias, bias = (None, None) if block.qkv_bias is None else block.qkv_bias.tensor_split([width])
        keys_values = _linear(normed, block.qkv_weight[width:], bias, self.dtype)
        queries = _linear(normed[ends], block.qkv_weight[:width], query_bias, self.dtype)
        attended = end_attention(keys_values, queries, plan.pattern)
        return self._rest(x[ends], attended, block)


def _enters(plan: ChunkPlan) -> int:
    """The block at whose input the first vectors are put in behind the start token; 0: none are."""
    later = plan.regrouped
    return later.block if later is not None and later.plan.pattern.prefix > plan.pattern.prefix else 0


def _linear(x: Tensor, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> Tensor:
    return F.linear(x.to(dtype), weight, bias)
