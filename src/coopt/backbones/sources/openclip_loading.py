"""Backbones of open_clip, by the names `openclip:...` (see `openclip_names.py`).

A model whose text tower cannot carry prompts is refused from its configuration, before anything is built or fetched.
"""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.clip_towers import fitting_model
from coopt.backbones.preprocessing import preprocessing_from
from coopt.backbones.sources.assumptions import settings_of_file, warn_of_missing_settings, warn_of_resizing
from coopt.backbones.sources.openclip_download import fetch, fetch_text_config
from coopt.backbones.sources.openclip_names import OpenClipModel, find_openclip
from coopt.backbones.sources.openclip_text_config import TEXT_CONFIG, read_text_config, text_model_of
from coopt.backbones.tokenizers import tokenizer_for
from coopt.backbones.weights import NOT_WEIGHTS, first_lines, read_weights
from coopt.backbones.zoo import import_open_clip
from coopt.errors import BackboneError

_COMPUTED = (".embeddings.position_ids", ".embeddings.token_type_ids", ".embed_positions.weights")


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
    source = find_openclip(spec, download, name)
    if source.weights is None:
        fetch(source)
        source = find_openclip(spec, download, name)
    if source.lacks_text_config:
        fetch_text_config(source)
        source = find_openclip(spec, name=name)
    return _load(source, device, download)


def build_model(config: dict, quick_gelu: bool = False, text_config: Mapping[str, Any] | None = None) -> Any:
    """An open_clip CLIP, CustomTextCLIP or CoCa of a configuration, with random weights, in float32.

    Args:
        config: embed_dim, vision_cfg, text_cfg and more, as in open_clip's configuration files.
        quick_gelu: use QuickGELU even where the configuration does not say so (weight tags do say so).
        text_config: of a text tower of the package transformers (see `read_text_config`).

    Raises:
        BackboneError: open_clip cannot build it.
    """
    assert text_config is not None or not text_model_of(config)
    open_clip = import_open_clip()
    config = copy.deepcopy(config)
    custom = config.pop("custom_text", False)
    config["quick_gelu"] = bool(config.get("quick_gelu")) or quick_gelu
    if config["vision_cfg"].get("timm_model_name"):
        config["vision_cfg"]["timm_model_pretrained"] = False  # the weights come afterwards, and from here
    text = config["text_cfg"]
    if text_config is not None:
        custom = True
        text["hf_model_pretrained"] = False
    with_decoder = custom and "multimodal_cfg" in config
    kind = open_clip.CoCa if with_decoder else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    try:
        # open_clip reads the text tower's configuration from a folder or from the network, and from nothing else.
        with tempfile.TemporaryDirectory(prefix="coopt-") as folder:
            if text_config is not None:
                (Path(folder) / TEXT_CONFIG).write_text(json.dumps(dict(text_config)), encoding="utf-8")
                text["hf_model_name"] = folder
            model = kind(**config)
    except Exception as error:  # wrong types and names surface as whatever the layers raise
        raise BackboneError(
            f"open_clip {open_clip.__version__} cannot build this configuration: {type(error).__name__}: "
            f"{first_lines(error)}"
        ) from error
    if text_config is not None:  # what texts are cut at, and not what the tower has positions for
        model.text.context_length = int(text.get("context_length", 77))
    return model


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
        state = _without_computed(state, model)
        _fit_scalars(model, state)
        resize_pos_embed(state, model)
        resize_text_pos_embed(state, model)
        model.load_state_dict(state)
    except (RuntimeError, AssertionError, AttributeError, KeyError, ValueError, NotImplementedError) as error:
        raise BackboneError(
            f"The weights {source} do not fit this model's architecture. {first_lines(error)}"
        ) from error


def _without_computed(state: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """Older versions of transformers saved tables that follow from the configuration, and newer ones do not."""
    known = model.state_dict()
    return {key: value for key, value in state.items() if key in known or not key.endswith(_COMPUTED)}


def _fit_scalars(model: Any, state: dict[str, Tensor]) -> None:
    """The logit scale and bias are kept as scalars by some and as vectors of one by others."""
    if "logit_scale" in state:
        state["logit_scale"] = state["logit_scale"].reshape(model.logit_scale.shape)
    if model.logit_bias is None:
        state.pop("logit_bias", None)  # the same for all classes: it changes no answer
    else:
        bias = state.get("logit_bias", torch.zeros(()))
        state["logit_bias"] = bias.reshape(model.logit_bias.shape)


def _load(source: OpenClipModel, device: torch.device | str, download: bool) -> ClipBackbone:
    assert source.config is not None and source.weights is not None
    config, settings = source.config, source.settings
    # The small and the likely to be missing first: a model takes seconds to build.
    tokenizer = tokenizer_for(config["text_cfg"], str(source.folder) if source.folder else None, download)
    weights = read_weights(source.weights)
    if source.model and not source.tag:
        settings = settings_of_file(source, weights)
    elif not source.tag:
        warn_of_missing_settings(source)
    # OpenAI's archives are QuickGELU whatever the configuration says.
    quick_gelu = bool(settings.get("quick_gelu")) or weights.of_openai
    model: Any = fitting_model(config, weights.state, quick_gelu)
    if model is None:
        text_config = read_text_config(source.text_config, source.name) if source.text_config else None
        model = build_model(config, quick_gelu, text_config)
        if not source.tag:
            warn_of_resizing(model, weights.state, source.name)
        load_weights(model, weights.state, str(source.weights))
    size = getattr(model.visual, "image_size", None) or config["vision_cfg"].get("image_size", 224)
    return ClipBackbone(model, source.name, tokenizer, preprocessing_from(settings, size), device)
