"""Small random towers that are not causal, of plain torch modules: what the packed path and the padded path serve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from coopt.backbones import Backbone
from coopt.backbones.protocol import Framing
from coopt.backbones.text_tower import AtBlock, Pooling, TextTower, pooled_at
from coopt.backbones.tokenizers import ClipTokenizer
from tests.models import small_open_clip

WIDTH, LENGTH, VOCABULARY = 48, 40, 49408


class MaskedTower(TextTower):
    """A pad-masked tower as BERT is: learned positions and a LayerNorm on the embeddings, LayerNorms behind the sums.

    Args:
        framing: what fills prompts up is masked.
        pooling: "first" or "mean".
        layers, width, length: of blocks, of rows, of prompts.
    """

    causal = False
    padding_matters = False
    any_length = True

    def __init__(
        self,
        framing: Framing,
        pooling: Pooling = "first",
        layers: int = 2,
        width: int = WIDTH,
        length: int = LENGTH,
        dim: int = 32,
    ) -> None:
        super().__init__()
        self.framing, self.pooling, self.width, self.context_length = framing, pooling, width, length
        self.depth, self.heads, self.hidden = layers, max(2, width // 64), 4 * width
        self.words = nn.Embedding(VOCABULARY, width)
        self.positions = nn.Parameter(torch.randn(length, width) * 0.5)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            nn.TransformerEncoderLayer(
                width, self.heads, self.hidden, dropout=0.0, activation="gelu", batch_first=True, norm_first=False
            )
            for _ in range(layers)
        )
        self.projection = nn.Linear(width, dim)
        for name, weight in self.named_parameters():
            if weight.ndim > 1 and name != "positions":
                nn.init.normal_(weight, std=1.0 if name == "words.weight" else 1.5 * weight.shape[-1] ** -0.5)

    def embed(self, ids: Tensor) -> Tensor:
        return self.words.weight[ids]

    def forward(self, vectors: Tensor, ids: Tensor, at_block: AtBlock | None = None) -> Tensor:
        x = self.norm(vectors + self.positions[: vectors.shape[1]])
        masked = ids == self.framing.pad
        for i, block in enumerate(self.blocks):
            if at_block and i in at_block:
                x = at_block[i].put_into(x)
            x = block(x, src_key_padding_mask=masked)
        if self.pooling == "mean":
            kept = (~masked)[..., None].to(x.dtype)
            return self.projection((x * kept).sum(1) / kept.sum(1))
        return self.projection(x[torch.arange(len(x)), pooled_at(self.pooling, ids, self.framing.end)])


def with_framing(backbone: Backbone, framing: Framing) -> Backbone:
    """A backbone whose tokenizer frames texts otherwise."""
    tokenizer = ClipTokenizer()
    tokenizer.framing = framing
    backbone.tokenizer = tokenizer  # type: ignore[misc]
    return backbone


def masked_backbone(
    pooling: Pooling = "first", framing: Framing | None = None, seed: int = 0, **sizes: int
) -> Backbone:
    """A small CLIP whose text tower is a `MaskedTower`, in place of its own."""
    framing = framing or Framing(start=49406, end=49407, pad=3)
    backbone = with_framing(small_open_clip(context_length=16), framing)
    torch.manual_seed(seed)
    tower = MaskedTower(framing, pooling, dim=backbone.embed_dim, **sizes).eval().requires_grad_(False)
    backbone.text = backbone.model.tower = tower  # type: ignore[misc]
    return backbone


SEEING: dict[str, dict[str, Any]] = {
    "siglip": dict(custom=True, pool_type="last", proj_bias=True, act_kwargs={"approximate": "tanh"}),
    "clipa": dict(pool_type="last"),
    "mobileclip": dict(custom=True, pool_type="argmax"),
    "layerscale": dict(custom=True, pool_type="last", ls_init_value=1.0),
    "quickgelu": dict(pool_type="eos", eos_id=49407, quick_gelu=True),
}
"""Configurations of open_clip's towers that see their padding."""


def seeing_backbone(kind: str = "siglip", **changes: Any) -> Backbone:
    """A small CLIP whose text tower sees its padding; as SigLIP's, without a start token and padded with the end's id."""
    settings = {"context_length": 32, **SEEING[kind], **changes}
    backbone = small_open_clip(no_causal_mask=True, **settings)
    if kind != "siglip":
        return backbone
    return with_framing(backbone, replace(backbone.tokenizer.framing, start=None, pad=backbone.tokenizer.framing.end))
