"""What weights do not tell about their model, and who says it then.

The names and shapes of weights tell widths, depths and sizes. They do not tell the number of attention heads, the
activation, or how images are to be prepared, and a model that is built with the wrong ones loads without an error and
gives wrong features. So these facts are told (by a published tag, a configuration, or the name of the architecture),
or known for certain (of OpenAI's own files), or assumed with a warning that names them.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coopt.backbones.caches import hub_repository
from coopt.backbones.file_formats import as_path
from coopt.backbones.preprocessing import Preprocessing, preprocessing_from
from coopt.backbones.sources.openclip_models import model_configs, weight_tags
from coopt.backbones.sources.openclip_names import OpenClipModel
from coopt.backbones.weights import Weights
from coopt.errors import BackboneError, WeightsWarning

_OWN_CONFIGURATION = "openclip:local-dir:FOLDER, with an open_clip_config.json in the folder"


def check_like_openai(config: dict, weights: Weights, name: str, told: Mapping[str, Any]) -> None:
    """Warns when weights are taken for a model of OpenAI's kind and nothing says that they are one.

    Args:
        config: as it was read from the shapes, and completed as OpenAI's models are.
        weights: the model's.
        name: of the backbone.
        told: facts that the caller gave: "head_width", "quick_gelu"; None for those not given.

    Raises:
        BackboneError: the shapes are those of a published model that differs in what shapes do not tell.
    """
    if weights.of_openai or all(value is not None for value in told.values()):
        return
    same = [model for model, other in model_configs().items() if _shape(other) == _shape(config)]
    path = as_path(Path(name.removeprefix("openai:")))
    if told["head_width"] is None:
        _refuse_other_heads(config, name, path)
        if any("openai" in weight_tags().get(model, {}) for model in same) and _is_openais_arithmetic(weights.state):
            return
    vision, text = _heads(config)
    assumed = {
        "head_width": f"heads 64 wide ({vision} in the image tower, {text} in the text tower)",
        "quick_gelu": "QuickGELU",
    }
    facts = [fact for key, fact in assumed.items() if told[key] is None]
    run = f" It was saved by open_clip's training (run {weights.run!r})." if weights.run else ""
    known = _model_of_run(weights.run) or next(iter(same), "")
    if not name.startswith("openai:"):
        how = "give head_width and quick_gelu"
    elif known:
        how = f"write openclip:{known}/{path} for open_clip's model of these shapes, or {_OWN_CONFIGURATION}"
    else:
        how = f"write {_OWN_CONFIGURATION}"
    warnings.warn(
        f"{name}: weights do not tell the number of heads, the activation and how images are prepared. Assumed, as "
        f"in OpenAI's models: {', '.join(facts)}, CLIP's mean and std.{run} If that is not so, the features are wrong "
        f"and no error says it: {how}.",
        WeightsWarning,
        stacklevel=2,
    )


def settings_of_file(source: OpenClipModel, weights: Weights) -> dict:
    """Activation and preprocessing of weights in a file of the user's; warns of what is assumed.

    Args:
        source: names the configuration and the file.
        weights: of the file.
    """
    assert source.config is not None and source.weights is not None
    tags = weight_tags().get(source.model, {})
    published = _published_as(source.weights, tags)
    if published is not None or weights.of_openai:
        return published or {}
    settings, assumed = {}, []
    quick = f"{source.model}-quickgelu"
    run = _model_of_run(weights.run)
    if run and run != source.model:
        assumed.append(
            f"the activation and the heads are those of {source.model}, although the file comes from a training run of "
            f"{run}; for that write openclip:{run}/{as_path(source.weights)}"
        )
    elif not source.config.get("quick_gelu") and quick in model_configs():
        assumed.append(
            f"the activation is GELU; for weights that were trained with QuickGELU, as all that come from OpenAI's, "
            f"write openclip:{quick}/{as_path(source.weights)}"
        )
    ways = {preprocessing_from(tag, 224): tag for tag in tags.values()}
    if len(ways) == 1 and Preprocessing() not in ways:
        settings = {key: value for key, value in next(iter(ways.values())).items() if key != "quick_gelu"}
        assumed.append(f"images are prepared as for all published weights of {source.model}")
    elif len(ways) > 1:
        assumed.append(f"images are prepared as for CLIP, while published weights of {source.model} differ in that")
    if assumed:
        warnings.warn(
            f"{source.name}: weights do not tell all about their model. Assumed: {'. And: '.join(assumed)}. If that is "
            f"not so, the features are wrong and no error says it. All can be told with {_OWN_CONFIGURATION}.",
            WeightsWarning,
            stacklevel=2,
        )
    return settings


def warn_of_missing_settings(source: OpenClipModel) -> None:
    """Warns when a model folder's configuration does not say how images are prepared."""
    if not source.settings:
        warnings.warn(
            f"{source.name}: its open_clip_config.json has no preprocess_cfg, and weights do not tell how images are "
            "prepared. Assumed: as for CLIP (mean, std, bicubic, the shorter edge resized and the centre cropped).",
            WeightsWarning,
            stacklevel=2,
        )


def warn_of_resizing(model: Any, state: Mapping[str, Tensor], name: str) -> None:
    """Warns when position embeddings are about to be resized, because the weights are of another resolution or length.

    Args:
        model: open_clip's, which gives the sizes.
        state: the weights, under the model's names.
        name: of the backbone.
    """
    expected = model.state_dict()
    for key in ("visual.positional_embedding", "positional_embedding", "text.positional_embedding"):
        if key in state and key in expected and state[key].shape != expected[key].shape:
            warnings.warn(
                f"{name}: the weights have {state[key].shape[0]} positions where this architecture has "
                f"{expected[key].shape[0]} ({key}), so they were resized. They are of another image size or text length: "
                "look for the architecture that fits (`coopt backbones`).",
                WeightsWarning,
                stacklevel=2,
            )


def _refuse_other_heads(config: dict, name: str, path: str) -> None:
    """Refuses the shapes of published models whose heads are known, and not 64 wide."""
    for model, other in model_configs().items():
        if _shape(other)[:-1] == _shape(config)[:-1] and _heads(other) != _heads(config):
            raise BackboneError(
                f"{name}: these are the shapes of open_clip's {model}, whose towers (image, text) have {_heads(other)} "
                f"heads and not {_heads(config)} as OpenAI's models would. Write openclip:{model}/{path}."
            )


def _shape(config: dict) -> tuple:
    """What of a configuration the shapes of weights tell, the image's size last; () for models of other kinds."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    if vision.get("timm_model_name") or text.get("hf_model_name") or config.get("custom_text"):
        return ()
    layers = vision.get("layers", 12)
    return (
        config["embed_dim"],
        *(text.get(key, default) for key, default in (("context_length", 77), ("vocab_size", 49408))),
        *(text.get(key, default) for key, default in (("width", 512), ("layers", 12))),
        tuple(layers) if isinstance(layers, (list, tuple)) else layers,
        vision.get("width", 768),
        vision.get("patch_size"),
        vision.get("image_size", 224),
    )


def _heads(config: dict) -> tuple[int, int]:
    """Attention heads of the image tower (of its last pooling, for a ResNet) and of the text tower."""
    vision, text = config["vision_cfg"], config["text_cfg"]
    resnet = isinstance(vision.get("layers"), (list, tuple))
    width = vision.get("width", 768) * (32 if resnet else 1)
    return width // vision.get("head_width", 64), text.get("heads", 8)


def _is_openais_arithmetic(state: Mapping[str, Tensor]) -> bool:
    """Whether weights are kept as OpenAI published them: matrices in 16 bits, embeddings in 32, a scale of 100."""
    matrix, embedding = state["transformer.resblocks.0.mlp.c_fc.weight"], state["token_embedding.weight"]
    scale = float(state.get("logit_scale", torch.zeros(())).reshape(-1)[0])
    return _fits_16_bits(matrix) and not _fits_16_bits(embedding) and abs(scale - math.log(100)) < 1e-3


def _fits_16_bits(tensor: Tensor) -> bool:
    return torch.equal(tensor.half().float(), tensor.float())


def _published_as(path: Path, tags: Mapping[str, dict]) -> dict | None:
    """The settings of the tag whose published file this is: from the Hugging Face cache, or by a name with a hash."""
    folders = {part for part in path.absolute().parts if part.startswith("models--")}
    for settings in tags.values():
        repo = hub_repository(settings)[0]
        address = str(settings.get("url", ""))
        named = re.search(r"-[0-9a-f]{8}\.pth?$", address) and address.endswith(f"/{path.name}")
        if named or (repo and f"models--{repo.replace('/', '--')}" in folders):
            return settings
    return None


def _model_of_run(run: str) -> str:
    """The model in the name that open_clip's training gives to a run; "" when it names none that is known."""
    match = re.search(r"model_(.+?)-lr_", run)
    return match[1] if match and match[1] in model_configs() else ""
