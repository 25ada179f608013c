"""Both towers of a small CLIP computed slowly, block by block with torch's own layers, for methods to be held against."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from coopt.backbones import Backbone, Preprocessing
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.tokenizers import ClipTokenizer
from coopt.text.layout import Prompts
from tests.backbones.small_models import small_model


def small_vit(seed: int = 0, layers: int = 4) -> Backbone:
    """A CLIP of 3 text blocks (width 64) and 4 image blocks (width 96), with random weights that all matter."""
    vision = {"layers": layers, "width": 96, "head_width": 32, "patch_size": 16}
    model = small_model(seed, vision_cfg=vision, text_cfg={"layers": 3, "heads": 2})
    return ClipBackbone(model, f"test:vit-{seed}", ClipTokenizer(), Preprocessing(size=(32, 32)))


def doubled(backbone: Backbone) -> Any:
    """The model in float64, as far as the functions here need it."""
    return SimpleNamespace(model=copy.deepcopy(backbone.model).double(), logit_scale=backbone.logit_scale)


def slope(loss: Callable[[dict[str, Tensor]], Tensor], learned: dict[str, Tensor], way: dict[str, Tensor]) -> float:
    """The derivative of a loss along a direction, by central differences in float64."""
    with torch.no_grad():
        ahead, behind = (
            float(loss({name: one.double() + h * way[name].double() for name, one in learned.items()}))
            for h in (1e-6, -1e-6)
        )
    return (ahead - behind) / 2e-6


def attended(block: Any, y: Tensor, mask: Tensor | None, weight: Tensor) -> Tensor:
    """What a block's attention makes of its normed input, head by head, with this matrix for queries, keys and values."""
    heads, width = block.attn.num_heads, y.shape[-1]
    queries, keys, values = (y @ weight.T + block.attn.in_proj_bias).split(width, dim=-1)
    out = []
    for q, k, v in zip(*(one.split(width // heads, dim=-1) for one in (queries, keys, values)), strict=True):
        scores = q @ k.transpose(-1, -2) * (width // heads) ** -0.5
        scores = scores if mask is None else scores + mask
        out.append(scores.softmax(dim=-1) @ v)
    return torch.cat(out, dim=-1) @ block.attn.out_proj.weight.T + block.attn.out_proj.bias


def slow_block(block: Any, x: Tensor, mask: Tensor | None, weight: Tensor | None = None) -> Tensor:
    matrix: Tensor = block.attn.in_proj_weight if weight is None else weight
    x = x + attended(block, block.ln_1(x), mask, matrix)
    return x + block.mlp(block.ln_2(x))


def slow_inserted_text(backbone: Any, prompts: Prompts, vectors: dict[int, Tensor]) -> Tensor:
    """Features (C, D), not normalised, of prompts of constant tokens into which vectors are put.

    Args:
        backbone: whose text tower.
        prompts: C of them, without slots.
        vectors: what stands behind the start token from the input of a block on; the first of them moves the rest on.
    """
    model: Any = backbone.model
    features = []
    for ids, length in zip(prompts.token_ids, prompts.lengths.tolist(), strict=True):
        x = model.token_embedding.weight[ids[:length]] + model.positional_embedding[:length]
        for b, block in enumerate(model.transformer.resblocks):
            if b in vectors:
                behind = x[1:] if b == min(vectors) else x[1 + len(vectors[b]) :]
                x = torch.cat([x[:1], vectors[b], behind])
            mask = torch.full((len(x), len(x)), float("-inf"), dtype=x.dtype).triu(1)
            x = slow_block(block, x, mask)
        features.append(model.ln_final(x[-1]) @ model.text_projection)
    return torch.stack(features)


def slow_text(
    backbone: Any, prompts: Prompts, vectors: Sequence[Tensor] = (), weights: Sequence[Tensor | None] = ()
) -> Tensor:
    """Features (C, D), not normalised, of prompts at full length.

    Args:
        backbone: whose text tower.
        prompts: C of them.
        vectors: what stands in the context slots at the input of each block, from the first on.
        weights: of each block's queries, keys and values; none: the tower's own.
    """
    model: Any = backbone.model
    features = []
    for i in range(len(prompts)):
        ids = torch.zeros(77, dtype=torch.long)
        length = int(prompts.lengths[i])
        ids[:length] = prompts.token_ids[i, :length]
        slots = [p for p in range(length) if prompts.context_index[i, p] >= 0]
        x = model.token_embedding.weight[ids]

        def placed(x: Tensor, block: int, i: int = i, slots: list[int] = slots) -> Tensor:
            rows = list(x)
            for p in slots:
                rows[p] = vectors[block][int(prompts.context_index[i, p])]
            return torch.stack(rows)

        x = (placed(x, 0) if slots else x) + model.positional_embedding
        for b, block in enumerate(model.transformer.resblocks):
            x = placed(x, b) if slots and 0 < b < len(vectors) else x
            x = slow_block(block, x, model.attn_mask, weights[b] if weights else None)
        features.append(model.ln_final(x[length - 1]) @ model.text_projection)
    return torch.stack(features)


def slow_read_images(backbone: Any, pixels: Tensor, tokens: dict[int, Tensor], read: Tensor) -> tuple[Tensor, Tensor]:
    """Class features and representation features, (n, D) each, not normalised, of images one by one.

    Args:
        backbone: whose image tower, a ViT.
        pixels: n of them.
        tokens: what stands behind the class token from the input of a block on.
        read: by what the mean of the last block's tokens, each of them normed, is projected.
    """
    visual: Any = backbone.model.visual
    own, others = [], []
    for image in pixels:
        patches = visual.conv1(image[None])[0].flatten(1).T
        x = visual.ln_pre(torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding)
        count = 0
        for b, block in enumerate(visual.transformer.resblocks):
            if b in tokens:
                x = torch.cat([x[:1], tokens[b], x[1 + count :]])
                count = len(tokens[b])
            x = slow_block(block, x, None)
        own.append(visual.ln_post(x[0]) @ visual.proj)
        others.append(torch.stack([visual.ln_post(one) for one in x[1 : 1 + count]]).mean(dim=0) @ read)
    return torch.stack(own), torch.stack(others)


def slow_images(
    backbone: Any, pixels: Tensor, tokens: Sequence[Tensor] = (), weights: Sequence[Tensor | None] = ()
) -> Tensor:
    """Features (n, D), not normalised, of images one by one.

    Args:
        backbone: whose image tower, a ViT.
        pixels: n of them.
        tokens: what is added to the image's own at the input of each block, from the first on, and replaced at the next.
        weights: of each block's queries, keys and values; none: the tower's own.
    """
    visual: Any = backbone.model.visual
    features = []
    for image in pixels:
        patches = visual.conv1(image[None])[0].flatten(1).T
        own = torch.cat([visual.class_embedding[None], patches]) + visual.positional_embedding
        x = visual.ln_pre(torch.cat([own, tokens[0]]) if len(tokens) else own)
        for b, block in enumerate(visual.transformer.resblocks):
            if 0 < b < len(tokens):
                x = torch.cat([x[: len(own)], tokens[b]])
            x = slow_block(block, x, None, weights[b] if weights else None)
        features.append(visual.ln_post(x[0]) @ visual.proj)
    return torch.stack(features)
