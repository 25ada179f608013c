"""Small random models of each kind that the text pass must serve."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import open_clip
import torch

from coopt.backbones import Backbone, Preprocessing
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.tokenizers import ClipTokenizer

VISION = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3}


def small_open_clip(
    custom: bool = False, quick_gelu: bool = False, start_token: bool = True, seed: int = 0, **text: Any
) -> Backbone:
    """A small CLIP or CustomTextCLIP with random weights large enough that every token matters."""
    torch.manual_seed(seed)
    cls = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    model = cls(32, VISION, {**TEXT, **text}, quick_gelu=quick_gelu)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "ls_" in name:
                parameter.uniform_(0.5, 1.5)
            elif parameter.ndim > 1:
                parameter.normal_(std=0.1 if "embedding" in name else parameter.shape[-1] ** -0.5)
            elif name.endswith("bias"):
                parameter.normal_(std=0.05)
    kind = "CustomTextCLIP" if custom else "CLIP"
    tokenizer = ClipTokenizer()
    if not start_token:
        tokenizer.framing = replace(tokenizer.framing, start=None)
    return ClipBackbone(model, f"test:{kind}", tokenizer, Preprocessing(size=(32, 32)))
