"""Small models that the tests make themselves: no published weights are needed anywhere."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from coopt.backbones.protocol import Framing
from coopt.backbones.sources.openclip_loading import build_model

VIT = {"image_size": 32, "layers": 2, "width": 64, "patch_size": 8, "head_width": 64}
RESNET = {"image_size": 32, "layers": [1, 1, 2, 1], "width": 8, "head_width": 64}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2}
CLIP = {"embed_dim": 32, "vision_cfg": VIT, "text_cfg": TEXT}
CUSTOM = {**CLIP, "custom_text": True}


class FakeTokenizer:
    """A tokenizer of 600 tokens whose end id is the highest."""

    framing = Framing(start=598, end=599, pad=0)
    vocab_size = 600

    def encode(self, text: str) -> list[int]:
        return [10 + ord(letter) for letter in text]

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(number - 10) for number in ids)


def configuration(**changes: Any) -> dict:
    """The small CLIP's configuration, with parts of it changed: `text_cfg={"layers": 3}`."""
    config = copy.deepcopy(CLIP)
    for key, value in changes.items():
        config[key] = {**config[key], **value} if isinstance(config.get(key), dict) else value
    return config


def small_model(seed: int = 0, quick_gelu: bool = False, **changes: Any) -> Any:
    """A small open_clip model with random weights, large enough that every part of it shows in the features."""
    torch.manual_seed(seed)
    model = build_model(configuration(**changes), quick_gelu=quick_gelu).eval().requires_grad_(False)
    return scramble(model)


def scramble(model: Any) -> Any:
    """Random weights of a size that lets every position and every block matter."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name == "logit_scale":
                continue
            spread = 0.5 if weight.ndim < 2 or "embedding" in name else weight[0].numel() ** -0.5
            weight.normal_(std=spread)
            if name.endswith(("ln_1.weight", "ln_2.weight", "ln_final.weight", "ln_pre.weight", "ln_post.weight")):
                weight.add_(1.0)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer.normal_(std=0.1)
            elif name.endswith("running_var"):
                buffer.uniform_(0.5, 1.5)
    return model


def save_folder(model: Any, folder: Path, config: dict | None = None, preprocess: dict | None = None) -> Path:
    """A model folder in open_clip's layout."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {"model_cfg": config or CLIP, "preprocess_cfg": {"mode": "RGB"} if preprocess is None else preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    return folder


def put_in_cache(cache: Path, repo: str, file: str, revision: str = "abc") -> Path:
    """Where a file of a hub repository lies once it was fetched."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True, exist_ok=True)
    (root / "refs" / "main").write_text(revision)
    path = root / "snapshots" / revision / file
    path.parent.mkdir(parents=True, exist_ok=True)
    return path
