"""The small fixed CLIP that golden numbers were recorded on: described by names and shapes, its weights generated."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from coopt.backbones import Backbone, from_state_dict


def small_clip(description: Path) -> Backbone:
    """The backbone described by a `clip_small.json`: {"shapes": {OpenAI's name of a weight: its shape}}."""
    shapes = json.loads(description.read_text())["shapes"]
    weights = {name: _weight(name, shape) for name, shape in shapes.items()}
    return from_state_dict(weights, f"golden:{description}", head_width=64, quick_gelu=True)


def _weight(name: str, shape: list[int]) -> Tensor:
    if name == "logit_scale":
        return torch.tensor(math.log(100), dtype=torch.float32)
    random = np.random.RandomState(zlib.crc32(name.encode()))
    x = np.asarray(random.randn(*shape))
    norms = ("ln_1.weight", "ln_2.weight", "ln_final.weight", "ln_pre.weight", "ln_post.weight")
    if name.endswith(norms):
        x = 1 + 0.1 * x
    elif name.endswith("bias") or "positional_embedding" in name:
        x = 0.05 * x
    elif name == "token_embedding.weight":
        x = 0.1 * x
    elif name.endswith("class_embedding"):
        x = 0.2 * x
    elif name == "visual.conv1.weight":
        x = x / math.sqrt(math.prod(shape[1:]))
    elif name.endswith(("proj", "text_projection")):
        x = x / math.sqrt(shape[0])
    else:
        x = x / math.sqrt(shape[-1])
    return torch.from_numpy(x.astype(np.float32))


def pixels(seed: int, n: int, size: int) -> Tensor:
    """The n images of a case, (n, 3, size, size), "already preprocessed"."""
    return torch.from_numpy(np.random.RandomState(seed).randn(n, 3, size, size).astype(np.float32))
