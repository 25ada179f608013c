"""Backbones of open_clip, by the names `openclip:...`:

    ViT-B-16/openai                a published model and tag
    ViT-B-16/./weights.pt          that architecture with a file's weights (also //absolute/path, ../, ~/)
    hf-hub:ORG/NAME                a model on the Hugging Face hub, in open_clip's layout
    local-dir:/path                a folder with open_clip_config.json and weights

A model whose text tower cannot carry prompts is refused from its configuration, before anything is built or fetched.
"""

from __future__ import annotations

import copy
import difflib
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coopt.backbones.catalogue import model_configs, unsupported_reason, weight_tags
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.openai_archive import first_lines
from coopt.backbones.preprocessing import preprocessing_from
from coopt.backbones.tokenizers import tokenizer_for
from coopt.backbones.weights import HUB_CONFIG, HUB_WEIGHTS, NOT_WEIGHTS, locate_hub_model, locate_tag, read_weights
from coopt.backbones.zoo import import_open_clip
from coopt.errors import BackboneError, UnsupportedBackboneError, WeightsNotFoundError

_WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")


def load_openclip(
    spec: str, device: torch.device | str = "cpu", download: bool = False, name: str | None = None
) -> ClipBackbone:
    """A backbone from what follows "openclip:" in its name.

    Args:
        spec: see this file's head.
        device: where the model lives.
        download: whether the network may be used for weights that are not on this machine.
        name: the backbone's name where it is not "openclip:SPEC".

    Raises:
        BackboneError: an unknown model or tag (with the close ones), or damaged weights.
        UnsupportedBackboneError: a text tower that cannot carry prompts.
        WeightsNotFoundError: the weights are not on this machine.
    """
    name = name or f"openclip:{spec}"
    if spec.startswith("local-dir:"):
        return _load_folder(Path(spec.removeprefix("local-dir:")).expanduser(), device, download, name)
    if spec.startswith("hf-hub:"):
        config_path, weights = locate_hub_model(spec.removeprefix("hf-hub:"), download)
        config, settings = _read_config(config_path)
        return _load(config, settings, weights, device, download, name)
    model, rest = _split(spec)
    config = _known_config(model)
    _refuse_unsupported(config, name)
    tags = weight_tags().get(model, {})
    if rest and _looks_like_path(rest):
        return _load(config, {}, Path(rest).expanduser(), device, download, name)
    settings = tags.get(rest.lower().replace("-", "_"))
    if settings is None:
        raise BackboneError(_unknown_tag(model, rest, list(tags)))
    return _load(config, settings, locate_tag(name, settings, download), device, download, name)


def build_model(config: dict, quick_gelu: bool = False) -> Any:
    """An open_clip CLIP or CustomTextCLIP of a configuration, with random weights, in float32.

    Args:
        config: embed_dim, vision_cfg, text_cfg and more, as in open_clip's configuration files.
        quick_gelu: use QuickGELU even where the configuration does not say so (weight tags do say so).

    Raises:
        BackboneError: open_clip cannot build it.
    """
    open_clip = import_open_clip()
    config = copy.deepcopy(config)
    custom = config.pop("custom_text", False)
    config["quick_gelu"] = bool(config.get("quick_gelu")) or quick_gelu
    if config["vision_cfg"].get("timm_model_name"):
        config["vision_cfg"]["timm_model_pretrained"] = False  # the weights come afterwards, and from here
    try:
        return (open_clip.CustomTextCLIP if custom else open_clip.CLIP)(**config)
    except Exception as error:  # wrong types and names surface as whatever the layers raise
        raise BackboneError(
            f"open_clip {open_clip.__version__} cannot build this configuration: {type(error).__name__}: "
            f"{first_lines(error)}"
        ) from error


def load_weights(model: Any, state: dict[str, Tensor], source: str) -> None:
    """Put weights into a model: all of them must fit.

    Older layouts that open_clip converts (text tower at the top level, Apple's MobileCLIP) are converted here too.

    Raises:
        BackboneError: names or shapes do not fit; says which.
    """
    from open_clip.convert import convert_state_dict
    from open_clip.model import convert_to_custom_text_state_dict, resize_pos_embed, resize_text_pos_embed

    try:
        state = dict(convert_state_dict(model, state))
        if "positional_embedding" in state and not hasattr(model, "positional_embedding"):
            state = convert_to_custom_text_state_dict(state)
        state = {key: value for key, value in state.items() if key not in NOT_WEIGHTS}
        _fit_scalars(model, state)
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
        model.load_state_dict(state)
    except (RuntimeError, AssertionError, AttributeError, KeyError, ValueError, NotImplementedError) as error:
        raise BackboneError(
            f"The weights {source} do not fit this model's architecture. {first_lines(error)}"
        ) from error


def _fit_scalars(model: Any, state: dict[str, Tensor]) -> None:
    """The logit scale and bias are kept as scalars by some and as vectors of one by others."""
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    if model.logit_bias is None:
        state.pop("logit_bias", None)  # the same for all classes: it changes no answer
    else:
        bias = state.get("logit_bias", torch.zeros(()))
        state["logit_bias"] = bias.reshape(model.logit_bias.shape)


def _load(
    config: dict,
    settings: dict,
    weights: Path,
    device: torch.device | str,
    download: bool,
    name: str,
    tokenizer_folder: Path | None = None,
) -> ClipBackbone:
    _refuse_unsupported(config, name)
    # The small and the likely to be missing first: a model takes seconds to build.
    tokenizer = tokenizer_for(config["text_cfg"], str(tokenizer_folder) if tokenizer_folder else None, download)
    state = read_weights(weights)
    # OpenAI's archives, which carry these numbers, are QuickGELU whatever the configuration says.
    model = build_model(config, quick_gelu=bool(settings.get("quick_gelu")) or all(key in state for key in NOT_WEIGHTS))
    load_weights(model, state, str(weights))
    size = getattr(model.visual, "image_size", None) or config["vision_cfg"].get("image_size", 224)
    return ClipBackbone(model, name, tokenizer, preprocessing_from(settings, size), device)


def _load_folder(folder: Path, device: torch.device | str, download: bool, name: str) -> ClipBackbone:
    if not folder.is_dir():
        raise WeightsNotFoundError(f"The model folder {folder.absolute()} does not exist. Check the backbone's name.")
    if not (folder / HUB_CONFIG).is_file():
        raise WeightsNotFoundError(f"The folder {folder} has no {HUB_CONFIG}; it is not a model in open_clip's layout.")
    config, settings = _read_config(folder / HUB_CONFIG)
    _refuse_unsupported(config, name)
    named = [folder / file for file in HUB_WEIGHTS]
    others = sorted(path for suffix in (".safetensors", ".bin", ".pth", ".pt") for path in folder.glob(f"*{suffix}"))
    weights = next((path for path in named if path.is_file()), None)
    if weights is None and len(others) > 1:
        raise BackboneError(
            f"The folder {folder} has {len(others)} weight files ({', '.join(path.name for path in others)}): "
            f"name the right one {HUB_WEIGHTS[0]} or {HUB_WEIGHTS[-1]}."
        )
    if weights is None and not others:
        raise WeightsNotFoundError(f"The folder {folder} has no weights: expected {' or '.join(HUB_WEIGHTS)}.")
    return _load(config, settings, weights or others[0], device, download, name, tokenizer_folder=folder)


def _read_config(path: Path) -> tuple[dict, dict]:
    """(model configuration, preprocessing settings) of an open_clip_config.json."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        config = content.get("model_cfg", content)
        if not all(isinstance(config[part], dict) for part in ("vision_cfg", "text_cfg")):
            raise TypeError("vision_cfg and text_cfg must be objects")
        config["embed_dim"] = int(config["embed_dim"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(
            f"{path} is not an open_clip configuration: expected model_cfg with embed_dim, vision_cfg and text_cfg "
            f"({type(error).__name__}: {error})."
        ) from error
    return config, dict(content.get("preprocess_cfg") or {})


def _refuse_unsupported(config: dict, name: str) -> None:
    reason = unsupported_reason(config)
    if reason:
        raise UnsupportedBackboneError(
            f"{name}: {reason}, and coopt trains prompts for causal text towers. "
            "`coopt backbones` lists those that work."
        )


def _split(spec: str) -> tuple[str, str]:
    model, _, rest = spec.partition("/")
    if model not in model_configs() and rest:
        # OpenAI writes ViT-B/16, open_clip ViT-B-16: take the longest beginning that is a model.
        parts = spec.split("/")
        for count in range(len(parts), 1, -1):
            if "-".join(parts[:count]) in model_configs():
                return "-".join(parts[:count]), "/".join(parts[count:])
    return model, rest


def _looks_like_path(rest: str) -> bool:
    return rest.startswith((".", "/", "~")) or bool(re.search(r"[/\\]", rest)) or rest.endswith(_WEIGHT_SUFFIXES)


def _known_config(model: str) -> dict:
    configs = model_configs()
    if model not in configs:
        close = _close(model, list(configs))
        raise BackboneError(f"open_clip has no model {model!r}.{close} `coopt backbones` lists all {len(configs)}.")
    return configs[model]


def _unknown_tag(model: str, tag: str, tags: list[str]) -> str:
    known = f"Its tags: {', '.join(tags)}." if tags else "It has no published weights."
    how = f"Write openclip:{model}/TAG, or openclip:{model}/./file.pt for weights of your own. {known}"
    if not tag:
        return f"openclip:{model} does not say which weights. {how}"
    return f"The model {model} has no weights tagged {tag!r}.{_close(tag, tags)} {how}"


def _close(word: str, words: list[str]) -> str:
    lowered = {candidate.lower(): candidate for candidate in words}
    matches = [lowered[match] for match in difflib.get_close_matches(word.lower(), list(lowered), n=3, cutoff=0.6)]
    return f" Did you mean {' or '.join(map(repr, matches))}?" if matches else ""
