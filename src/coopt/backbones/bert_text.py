"""Text towers of the kind of BERT: blocks that norm behind each half, and a mask that hides padding.

Devlin et al.: "BERT", NAACL 2019, arXiv:1810.04805; Liu et al.: "RoBERTa", 2019, arXiv:1907.11692. ALIGN, ChineseCLIP and
AltCLIP read a text out at its first token. Since padding is hidden from all tokens, a prompt that is cut behind its end
token has the same feature.

Notation: C prompts, L tokens, W width, D width of the shared embedding space.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from coopt.backbones.text_tower import AtBlock, TextTower


class BertText(TextTower):
    """A text tower whose blocks are BERT's.

    Args:
        vocabulary: number of token ids.
        positions: number of position embeddings, at least as many as the prompts' tokens.
        blocks: one after another, all of one width.
        context_length: the most tokens of a prompt.
        pad: the id that is hidden.
        head: the first token's row to the feature.
        dim: D.
        counted: positions are counted from behind `pad` over the tokens that are not padding (RoBERTa's), instead of from 0
            over all (BERT's).

    Attributes:
        dim: D, of the features.
        facts: what neither the weights nor the modules' attributes tell, for a fingerprint.
    """

    pooling = "first"
    padding_matters = False
    any_length = True

    def __init__(
        self,
        vocabulary: int,
        positions: int,
        blocks: list[PostNormBlock],
        context_length: int,
        pad: int,
        head: nn.Module,
        dim: int,
        counted: bool = False,
    ) -> None:
        super().__init__()
        self.width, self.dim, self.context_length = blocks[0].attn.width, dim, context_length
        self.heads, self.hidden, self.depth = blocks[0].attn.num_heads, blocks[0].hidden, len(blocks)
        self.pad, self.counted = pad, counted
        self.facts = f"\npad={pad} counted={counted}"
        self.token_embedding = nn.Embedding.from_pretrained(torch.empty(vocabulary, self.width), False)
        self.segment_embedding = nn.Parameter(torch.empty(self.width))
        self.positional_embedding = nn.Parameter(torch.empty(positions, self.width))
        self.ln_embedding = nn.LayerNorm(self.width)
        self.blocks = nn.ModuleList(blocks)
        self.head = head

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """Rows of the embedding table."""
        return self.token_embedding.weight[ids]

    def forward(
        self,
        vectors: Float[Tensor, "classes length width"],
        ids: Int[Tensor, "classes length"],
        at_block: AtBlock | None = None,
    ) -> Float[Tensor, "classes dim"]:
        """The operations of the package transformers in their order, from the word embeddings on."""
        visible = ids != self.pad
        x = self.ln_embedding(vectors + self.segment_embedding + self._positions(visible))
        at_block = at_block or {}
        for i, block in enumerate(self.blocks):
            x = at_block[i].put_into(x) if i in at_block else x
            x = block(x, visible, rows=1 if i == len(self.blocks) - 1 else None)  # the head reads the first row alone
        return self.head(x[:, 0])

    def _positions(self, visible: Bool[Tensor, "classes length"]) -> Float[Tensor, "*classes length width"]:
        if not self.counted:
            return self.positional_embedding[: visible.shape[1]]
        return self.positional_embedding[visible.int().cumsum(dim=1) * visible + self.pad]


class PostNormBlock(nn.Module):
    """A residual attention block with normalisation behind each half.

    Args:
        width: W.
        heads: of the attention.
        hidden: width of the feed-forward layer.
        activation: makes the one between its two linear layers.
        eps: of both normalisations.
    """

    def __init__(self, width: int, heads: int, hidden: int, activation: Callable[[], nn.Module], eps: float) -> None:
        super().__init__()
        self.hidden = hidden
        self.attn = MaskedAttention(width, heads)
        self.ln_1 = nn.LayerNorm(width, eps=eps)
        layers = {"c_fc": nn.Linear(width, hidden), "act": activation(), "c_proj": nn.Linear(hidden, width)}
        self.mlp = nn.Sequential(OrderedDict(layers))
        self.ln_2 = nn.LayerNorm(width, eps=eps)

    def forward(
        self,
        x: Float[Tensor, "classes length width"],
        visible: Bool[Tensor, "classes length"],
        rows: int | None = None,
    ) -> Float[Tensor, "classes rows width"]:
        """One block; tokens that are not visible are seen by none. Only the first `rows` are computed, or all."""
        x = self.ln_1(x[:, :rows] + self.attn(x, visible, rows))
        return self.ln_2(x + self.mlp(x))


class MaskedAttention(nn.Module):
    """Self-attention to the visible tokens.

    Args:
        width: W.
        heads: of W / heads each.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.width, self.num_heads = width, heads
        self.in_proj = nn.Linear(width, 3 * width)
        self.out_proj = nn.Linear(width, width)

    def forward(
        self,
        x: Float[Tensor, "classes length width"],
        visible: Bool[Tensor, "classes length"],
        rows: int | None = None,
    ) -> Float[Tensor, "classes rows width"]:
        """The sums of the first `rows` tokens (None: of all) over the visible ones, projected."""
        if rows is None:
            parts = self.in_proj(x).chunk(3, dim=-1)
        else:
            weight, bias = self.in_proj.weight, self.in_proj.bias
            query = F.linear(x[:, :rows], weight[: self.width], bias[: self.width])
            parts = (query, *F.linear(x, weight[self.width :], bias[self.width :]).chunk(2, dim=-1))
        query, key, value = (part.unflatten(-1, (self.num_heads, -1)).transpose(1, 2) for part in parts)
        seen = F.scaled_dot_product_attention(query, key, value, attn_mask=visible[:, None, None])
        return self.out_proj(seen.transpose(1, 2).flatten(2))
