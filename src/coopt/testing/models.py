"""A model to test with: small, the same everywhere, and without a file."""

from __future__ import annotations

import functools
from typing import Any

import torch

from coopt.backbones import Backbone, Preprocessing
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.tokenizers import ClipTokenizer


def small_backbone(seed: int = 0) -> Backbone:
    """A CLIP with one image block, two text blocks and random weights: the same in every process."""
    import open_clip

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        vision: Any = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
        text: Any = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
        model = open_clip.CLIP(32, vision, text)
        with torch.no_grad():
            for name, weights in model.named_parameters():
                if weights.ndim > 1:  # so large that every token matters
                    weights.normal_(std=0.1 if "embedding" in name else weights.shape[-1] ** -0.5)
    backbone = ClipBackbone(model, f"small:{seed}", ClipTokenizer(), Preprocessing(size=(32, 32)))
    backbone.load_again = functools.partial(small_backbone, seed)
    return backbone
