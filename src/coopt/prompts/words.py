"""Nearest words: which vocabulary entries lie closest to learned context vectors (Zhou et al., IJCV 2022, table 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones.protocol import Backbone


class NearestWord(NamedTuple):
    """One vocabulary entry near a context vector.

    Attributes:
        word: the entry as text; a piece that continues a word has no blank after it.
        token_id: its id in the vocabulary.
        distance: Euclidean distance to the context vector, in the units of the token embedding.
    """

    word: str
    token_id: int
    distance: float


def nearest_words(backbone: Backbone, context: Float[Tensor, "n_ctx width"], top_k: int = 5) -> list[list[NearestWord]]:
    """For each of the M context vectors the `top_k` nearest entries of the same backbone's vocabulary, nearest first."""
    table = _vocabulary(backbone)
    distances = torch.cdist(context.to(table), table, compute_mode="donot_use_mm_for_euclid_dist")
    nearest, ids = distances.topk(min(top_k, len(table)), largest=False)
    return [
        [
            NearestWord(backbone.tokenizer.decode([token]).strip(), token, distance)
            for token, distance in zip(row_ids, row, strict=True)
        ]
        for row_ids, row in zip(ids.tolist(), nearest.tolist(), strict=True)
    ]


def _vocabulary(backbone: Backbone) -> Float[Tensor, "vocabulary width"]:
    """The embedding of every token that the tokenizer knows."""
    with torch.no_grad():
        return backbone.text.embed(torch.arange(backbone.tokenizer.vocab_size, device=backbone.device)).float()


def distance_scale(backbone: Backbone, std: float = 0.02, seed: int = 0) -> dict[str, float]:
    """What a distance means: how near to the vocabulary a random vector is, and a real word to the next one.

    Returns:
        "random_to_word": mean distance of vectors from N(0, std) to their nearest entry;
        "word_to_word": mean distance of entries to the nearest other entry.
    """
    table = _vocabulary(backbone)
    generator = torch.Generator().manual_seed(seed)
    sample = table[torch.randperm(len(table), generator=generator)[:64].to(table.device)]
    noise = (torch.randn(64, table.shape[1], generator=generator) * std).to(table)
    return {
        "random_to_word": torch.cdist(noise, table).min(dim=1).values.mean().item(),
        "word_to_word": torch.cdist(sample, table).topk(2, largest=False).values[:, 1].mean().item(),
    }
