"""OpenAI's original CLIP archives (`ViT-B-16.pt`, `RN50.pt`): tensors only, no TorchScript, no plain unpickling.

The architecture is inferred from the weights' shapes. What these do not tell is as in all of OpenAI's models, with a
warning where the file is none of them (`assumptions.py`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.clip_towers import filled_model
from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.sources.assumptions import check_like_openai
from coopt.backbones.tokenizers import clip_tokenizer
from coopt.backbones.weights import NOT_WEIGHTS, Weights, first_lines, read_weights
from coopt.errors import BackboneError

# Both of OpenAI's towers use heads of this width.
_HEAD_WIDTH = 64


def load_openai(path: str | Path, device: torch.device | str = "cpu", name: str | None = None) -> ClipBackbone:
    """A backbone from one of OpenAI's archives, or from a plain state dict of the same names.

    Raises:
        WeightsNotFoundError: no such file.
        BackboneError: the file is damaged or holds another kind of model.
        UnsafePickleError: the file's pickle asks for something that could only be an attack.
    """
    return _backbone(read_weights(Path(path).expanduser()), name or f"openai:{path}", device)


def from_state_dict(
    state: Mapping[str, Tensor],
    name: str,
    device: torch.device | str = "cpu",
    head_width: int | None = None,
    quick_gelu: bool | None = None,
    preprocessing: Preprocessing | None = None,
) -> ClipBackbone:
    """A backbone from weights under OpenAI's names; half-precision weights become float32.

    Args:
        state: name to tensor.
        name: of the backbone.
        device: where it lives.
        head_width: of both towers' attention heads; None: 64, with a warning unless these are OpenAI's own weights.
        quick_gelu: whether the activation is QuickGELU or GELU; None: QuickGELU, with a warning likewise.
        preprocessing: of images; None: CLIP's.

    Raises:
        BackboneError: names or shapes are not those of an OpenAI CLIP.
    """
    return _backbone(Weights(dict(state)), name, device, head_width, quick_gelu, preprocessing)


def _backbone(
    weights: Weights,
    name: str,
    device: torch.device | str,
    head_width: int | None = None,
    quick_gelu: bool | None = None,
    preprocessing: Preprocessing | None = None,
) -> ClipBackbone:
    state = {key: value for key, value in weights.state.items() if key not in NOT_WEIGHTS}
    config = infer_architecture(state, name, head_width or _HEAD_WIDTH)
    check_like_openai(config, weights, name, {"head_width": head_width, "quick_gelu": quick_gelu})
    try:
        model = filled_model(config, state, quick_gelu is not False)
    except RuntimeError as error:
        raise BackboneError(f"{name}: the weights are not those of an OpenAI CLIP. {first_lines(error)}") from error
    size = config["vision_cfg"]["image_size"]
    return ClipBackbone(model, name, clip_tokenizer(), preprocessing or Preprocessing(size=(size, size)), device)


def infer_architecture(state: Mapping[str, Tensor], name: str, head_width: int = _HEAD_WIDTH) -> dict:
    """open_clip's configuration (embed_dim, vision_cfg, text_cfg) of a state dict, from its shapes alone.

    Args:
        state: name to tensor.
        name: for messages.
        head_width: which shapes do not tell.

    Raises:
        BackboneError: weights that say the shape are missing, or are not tensors.
    """
    try:
        text_width = state["ln_final.weight"].shape[0]
        text = {
            "context_length": state["positional_embedding"].shape[0],
            "vocab_size": state["token_embedding.weight"].shape[0],
            "width": text_width,
            "heads": max(1, text_width // head_width),
            "layers": _count(state, r"transformer\.resblocks\.(\d+)\."),
        }
        vision = (_vit if "visual.proj" in state else _resnet)(state, head_width)
        return {"embed_dim": state["text_projection"].shape[1], "vision_cfg": vision, "text_cfg": text}
    except KeyError as error:
        raise BackboneError(
            f"{name}: no weight {error}: these are not the weights of an OpenAI CLIP. "
            "For other checkpoints write openclip:MODEL/./file.pt with the model's architecture."
        ) from error


def _vit(state: Mapping[str, Tensor], head_width: int) -> dict:
    width, _, patch, _ = state["visual.conv1.weight"].shape
    grid = round((state["visual.positional_embedding"].shape[0] - 1) ** 0.5)
    return {
        "layers": _count(state, r"visual\.transformer\.resblocks\.(\d+)\."),
        "width": width,
        "head_width": min(width, head_width),
        "patch_size": patch,
        "image_size": patch * grid,
    }


def _resnet(state: Mapping[str, Tensor], head_width: int) -> dict:
    # The attention pool sees the image after five halvings.
    grid = round((state["visual.attnpool.positional_embedding"].shape[0] - 1) ** 0.5)
    layers = tuple(_count(state, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4))
    return {
        "layers": layers,
        "width": state["visual.layer1.0.conv1.weight"].shape[0],
        "head_width": head_width,
        "image_size": 32 * grid,
    }


def _count(state: Mapping[str, Tensor], pattern: str) -> int:
    """How many blocks: numbers that a pattern finds at the start of the names."""
    numbers = {match.group(1) for key in state if (match := re.match(pattern, key))}
    if not numbers:
        raise KeyError(pattern.replace("\\", ""))
    return len(numbers)
