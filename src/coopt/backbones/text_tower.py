"""What the text pass asks of a text tower: vectors instead of token ids, and, if it can give them, its blocks.

Notation: C prompts, L tokens of a prompt, W text width, D width of the shared embedding space.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

Pooling = Literal["argmax", "eos", "last", "first", "mean"]
PathOfTower = Literal["fast", "packed", "reference"]


class Tokens(NamedTuple):
    """Vectors that take the place of a block's input at some positions of some prompts.

    Attributes:
        prompts: which of the prompts, for each vector.
        positions: where in the prompt.
        vectors: one for each.
        inserted: what stood there moves on, and as many of the last positions fall out; the positions are the same in all
            prompts. That is exact for causal towers, whose end tokens do not fall out.
    """

    prompts: Int[Tensor, " n"]
    positions: Int[Tensor, " n"]
    vectors: Float[Tensor, "n width"]
    inserted: bool = False

    def put_into(self, x: Float[Tensor, "classes length width"]) -> Float[Tensor, "classes length width"]:
        """A block's input with the vectors in it; what stood there gets no gradient."""
        if self.inserted:
            first, count = int(self.positions.min()), len(self.positions.unique())
            x = torch.cat([x[:, :first], x[:, :count], x[:, first : x.shape[1] - count]], dim=1)
        return x.index_put((self.prompts, self.positions), self.vectors.to(x.dtype))


AtBlock = Mapping[int, Tokens]
"""Block, counted from 0, to what stands at its input."""


@dataclass(frozen=True, eq=False)
class OpenBlock:
    """One residual attention block of a text tower, opened for the fast path (frozen tensors, not copies)."""

    ln_1: nn.Module
    qkv_weight: Float[Tensor, "triple_width width"]
    qkv_bias: Float[Tensor, " triple_width"] | None
    out_proj: nn.Linear
    scale_1: nn.Module
    ln_2: nn.Module
    fc: nn.Linear
    activation: nn.Module
    proj: nn.Linear
    scale_2: nn.Module


@dataclass(frozen=True, eq=False)
class OpenTower:
    """A tower opened: what the text pass computes with instead of calling the tower.

    Attributes:
        blocks: one after another.
        heads: of their attention.
        positions: added to the token embeddings, from the first position on.
        final_norm: of the row that is read out, behind the blocks.
        projection: of that row, to the shared embedding space.
    """

    blocks: tuple[OpenBlock, ...]
    heads: int
    positions: Float[Tensor, "context width"]
    final_norm: nn.Module
    projection: Callable[[Tensor], Tensor]


class TextTower(nn.Module, ABC):
    """A frozen text tower and what is true of it. The text pass asks these attributes and never goes by names.

    A source of backbones of one's own implements `embed` and `forward`, and sets `width` and `context_length`; that is
    all that the reference path needs. The other attributes say more about the tower, where more is known.

    Attributes:
        width: W.
        context_length: the most tokens of a prompt.
        causal: a token's feature depends on earlier tokens only.
        pooling: what becomes the prompt's feature: the row of the highest id, of the first end id, of the last position or
            of the first, or the mean of the rows that are not padding.
        padding_matters: what stands after the end token changes the feature.
        any_length: its forward takes prompts that are cut behind their end tokens too.
        depth: number of blocks at whose input tokens can be replaced; 0 where the blocks are not known.
        heads, hidden: of its blocks, for an estimate of memory; 0 where they are not known.
        open: its blocks; None for a tower that only its own forward serves. A causal one that is read out at the end token
            takes the fast path; one that is not causal and sees its padding the padded path.
    """

    width: int
    context_length: int
    causal: bool = False
    pooling: Pooling = "last"
    padding_matters: bool = True
    any_length: bool = False
    depth: int = 0
    heads: int = 0
    hidden: int = 0
    open: OpenTower | None = None

    @property
    def text_path(self) -> PathOfTower:
        """How prompts run: what classes share once ("fast"), each at its own length ("packed"), or all at full length."""
        if self.open is not None and self.causal and self.pooling in ("argmax", "eos") and not self.padding_matters:
            return "fast"
        return "packed" if self.any_length and not self.padding_matters else "reference"

    @abstractmethod
    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """Token embeddings, without positions."""

    @abstractmethod
    def forward(
        self,
        vectors: Float[Tensor, "classes length width"],
        ids: Int[Tensor, "classes length"],
        at_block: AtBlock | None = None,
    ) -> Float[Tensor, "classes dim"]:
        """Features (not normalised) of prompts that are given as vectors, differentiable in these.

        Args:
            vectors: what `embed` gives, or learned vectors, at the full context length; a tower of `any_length` takes fewer.
            ids: the token ids, for masks and pooling; where a learned vector stands, an id that is neither the end nor
                padding.
            at_block: what replaces the input of blocks, for towers with a `depth`.
        """

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device


def pooled_at(pooling: Pooling, ids: Int[Tensor, "classes length"], end: int) -> Int[Tensor, " classes"]:
    """The position whose row becomes a prompt's feature.

    Args:
        pooling: any but "mean".
        ids: of whole prompts.
        end: the end token's id; where it fills prompts up too, the first one counts.
    """
    if pooling == "argmax":
        return ids.argmax(dim=-1)
    if pooling == "eos":
        return (ids == end).int().argmax(dim=-1)
    return torch.full((len(ids),), 0 if pooling == "first" else ids.shape[1] - 1, device=ids.device)
