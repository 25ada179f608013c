"""The bundled model with another scale of its token embeddings or another width, and the same answers.

What a recipe does must not hang on either: here they change while the function of the model stays what it is.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from coopt.backbones import Backbone
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.clip_towers import filled_model
from coopt.backbones.sources.bundled import bundled_folder

_FEEDS_THE_STREAM = ("attn.out_proj.weight", "attn.out_proj.bias", "mlp.c_proj.weight", "mlp.c_proj.bias")


def scaled_state(state: dict[str, Tensor], times: float) -> dict[str, Tensor]:
    """Weights with all that the text tower's residual stream is the sum of multiplied by `times`.

    What reads the stream normalises it first, so features stay as they were, but for the epsilon of the normalisation
    (`scaled` takes it along). With the epsilon left alone, the features of the bundled data sets' prompts move by 1.3e-4
    (1 - cosine, on average; at most 6.7e-3) for a quarter, and by 8e-7 (at most 5.3e-5) for four times.
    """
    return {name: value * times if _is_summed(name) else value.clone() for name, value in state.items()}


def _is_summed(name: str) -> bool:
    inside = name.startswith("transformer.resblocks.") and name.endswith(_FEEDS_THE_STREAM)
    return inside or name in ("token_embedding.weight", "positional_embedding")


def scaled(backbone: Backbone, times: float) -> Backbone:
    """The backbone with token embeddings `times` as large, and the epsilons to go with it.

    Where `times` is a power of two the features are equal bit for bit.
    """
    model: Any = copy.deepcopy(backbone.model)
    model.load_state_dict(scaled_state(model.state_dict(), times))
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and not name.startswith("visual."):
            module.eps *= times**2
    return _behind(backbone, model, f"{backbone.name} x {times:g}")


def doubled_state(state: dict[str, Tensor], heads: int) -> dict[str, Tensor]:
    """Weights of a text tower twice as wide, every channel, head and hidden unit of which stands there twice.

    What reads two copies of a channel adds them with half the weight. So features stay as they were, up to rounding. The
    embeddings of words lie in half of the dimensions of the wider space; vectors that are learned need not.

    Args:
        state: open_clip's, of a CLIP.
        heads: of the narrow tower; the wide one has twice as many, of the same width.
    """
    return {
        name: value.clone() if name.startswith("visual.") or value.ndim == 0 else _doubled(name, value, heads)
        for name, value in state.items()
    }


def _doubled(name: str, value: Tensor, heads: int) -> Tensor:
    if ".in_proj_" in name:  # queries, keys and values, one after the other
        return torch.cat([_doubled("", part, heads) for part in value.chunk(3)])
    if value.ndim == 1:
        return torch.cat([value, value])
    if name in ("token_embedding.weight", "positional_embedding"):
        return torch.cat([value, value], dim=1)
    if name == "text_projection":
        return torch.cat([value, value]) / 2
    return torch.cat([torch.cat([value, value], dim=1)] * 2) / 2


def doubled(backbone: Backbone) -> Backbone:
    """The bundled backbone with a text tower twice as wide; see `doubled_state`."""
    config = bundled_config()
    state = doubled_state(backbone.model.state_dict(), config["model_cfg"]["text_cfg"]["heads"])
    model = filled_model(doubled_config(config)["model_cfg"], state, quick_gelu=False)
    return _behind(backbone, model, f"{backbone.name} doubled")


def bundled_config() -> dict[str, Any]:
    """The bundled model's open_clip_config.json."""
    return json.loads((bundled_folder() / "open_clip_config.json").read_text())


def doubled_config(config: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a text tower twice as wide."""
    config = copy.deepcopy(config)
    for key in ("width", "heads"):
        config["model_cfg"]["text_cfg"][key] *= 2
    return config


def _behind(like: Backbone, model: Any, name: str) -> Backbone:
    return ClipBackbone(model, name, like.tokenizer, like.preprocessing, like.device)


def write_folder(folder: Path, state: dict[str, Tensor], config: dict[str, Any]) -> str:
    """Write a model in open_clip's local-dir form, in full precision; returns the name that `load_backbone` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file({name: value.contiguous() for name, value in state.items()}, folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    return f"openclip:local-dir:{folder}"
