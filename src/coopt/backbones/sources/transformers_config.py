"""What a `config.json` of the package transformers says about a CLIP-like model; read without that package or torch.

A model's kind is told by `model_type` (or `architectures`), never by a name. A configuration leaves out what is as
usual for its kind, so the usual values stand here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coopt.backbones.file_formats import foreign_content
from coopt.errors import BackboneError, UnsupportedBackboneError

CONFIG = "config.json"
ACTIVATIONS = ("gelu", "gelu_new", "gelu_pytorch_tanh", "quick_gelu", "relu")


@dataclass(frozen=True)
class Family:
    """One kind of model.

    Attributes:
        title: for messages.
        model: the class in transformers.
        text, vision: what a configuration need not say of the towers.
        projection: the usual width of the shared embedding space.
        tokens: the most tokens of a prompt that such models were trained with; 0: as many as there are positions.
    """

    title: str
    model: str
    text: Mapping[str, Any]
    vision: Mapping[str, Any]
    projection: int = 512
    tokens: int = 0


def _tower(width: int, layers: int, heads: int, act: str, eps: float, **others: Any) -> dict[str, Any]:
    sizes = {"hidden_size": width, "intermediate_size": 4 * width, "num_hidden_layers": layers}
    return {**sizes, "num_attention_heads": heads, "hidden_act": act, "layer_norm_eps": eps, **others}


_IMAGES = {"num_channels": 3, "image_size": 224, "patch_size": 32}
_CLIP_VISION = _tower(768, 12, 12, "quick_gelu", 1e-5, **_IMAGES)
_CLIP_TEXT = _tower(
    512, 12, 8, "quick_gelu", 1e-5, vocab_size=49408, max_position_embeddings=77, eos_token_id=49407
)  # fmt: skip
_BERT = _tower(
    768, 12, 12, "gelu", 1e-12, vocab_size=30522, max_position_embeddings=512, type_vocab_size=2, pad_token_id=0
)  # fmt: skip
_XLM_ROBERTA = _tower(
    1024, 24, 16, "gelu", 1e-5, vocab_size=250002, max_position_embeddings=514, type_vocab_size=1, pad_token_id=1,
    project_dim=768,
)  # fmt: skip
_SIGLIP_TEXT = _tower(768, 12, 12, "gelu_pytorch_tanh", 1e-6, vocab_size=32000, max_position_embeddings=64)
_SIGLIP_VISION = _tower(
    768, 12, 12, "gelu_pytorch_tanh", 1e-6, **{**_IMAGES, "patch_size": 16}, vision_use_head=True
)  # fmt: skip

FAMILIES = {
    "clip": Family("CLIP, MetaCLIP", "CLIPModel", _CLIP_TEXT, _CLIP_VISION),
    "metaclip_2": Family("MetaCLIP 2", "MetaClip2Model", _CLIP_TEXT, _CLIP_VISION),
    "siglip": Family("SigLIP, SigLIP 2", "SiglipModel", _SIGLIP_TEXT, _SIGLIP_VISION),
    "align": Family("ALIGN", "AlignModel", _BERT, {"num_channels": 3}, projection=640, tokens=64),
    "altclip": Family("AltCLIP", "AltCLIPModel", _XLM_ROBERTA, _CLIP_VISION, projection=768, tokens=77),
    "chinese_clip": Family("ChineseCLIP", "ChineseCLIPModel", _BERT, _CLIP_VISION, tokens=52),
}
"""By `model_type`."""


@dataclass(frozen=True)
class Config:
    """A model's configuration, completed.

    Attributes:
        path: of the file.
        kind: a key of `FAMILIES`.
        text, vision: of the towers.
        projection: width of the shared embedding space.
    """

    path: Path
    kind: str
    text: dict[str, Any] = field(repr=False)
    vision: dict[str, Any] = field(repr=False)
    projection: int

    @property
    def family(self) -> Family:
        """Its kind."""
        return FAMILIES[self.kind]

    @property
    def tokens(self) -> int:
        """The most tokens of a prompt."""
        positions = int(self.text["max_position_embeddings"])
        if self.kind == "altclip":  # positions are counted from behind the padding's id
            positions -= int(self.text["pad_token_id"]) + 1
        return min(positions, self.family.tokens or positions)


def read_config(path: Path) -> Config:
    """A configuration, whose kind is one that coopt reads.

    Raises:
        BackboneError: the file is no configuration.
        UnsupportedBackboneError: the model is of another kind, or has settings that coopt does not know.
    """
    content = read_object(path, "configuration")
    kind = _kind_of(content, path)
    family = FAMILIES[kind]
    try:
        config = Config(
            path,
            kind,
            _part(content, "text_config", family.text),
            _part(content, "vision_config", family.vision),
            int(content.get("projection_dim") or family.projection),
        )
        _refuse_unknown_settings(config)
    except (TypeError, ValueError, KeyError) as error:
        raise BackboneError(
            f"{path} is not the configuration of a {family.model}: expected text_config and vision_config with whole "
            f"numbers for sizes ({type(error).__name__}: {error})."
        ) from error
    return config


def read_object(path: Path, what: str) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        BackboneError: it does not; says what it is.
    """
    try:
        if foreign := foreign_content(path):
            raise BackboneError(f"The {what} {path} {foreign}")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError) as error:
        raise BackboneError(f"The {what} {path} cannot be read as JSON ({error}).") from error
    if not isinstance(content, dict):
        raise BackboneError(f"The {what} {path} must hold a JSON object. Got {type(content).__name__} instead.")
    return content


def _kind_of(content: dict[str, Any], path: Path) -> str:
    classes = [str(one) for one in content.get("architectures") or ()]
    of_class = {family.model: kind for kind, family in FAMILIES.items()}
    kind = content.get("model_type") or next((of_class[one] for one in classes if one in of_class), None)
    if kind == "siglip2":
        raise UnsupportedBackboneError(
            f"{path} describes a SigLIP 2 of the NaFlex kind (model_type siglip2), which takes images of any shape as "
            "lists of patches, so coopt cannot prepare them. Use a SigLIP 2 of fixed resolution, whose model_type is "
            "siglip, such as google/siglip2-base-patch16-224."
        )
    if kind not in FAMILIES:
        known = ", ".join(f"{name} ({family.title})" for name, family in FAMILIES.items())
        what = f"the type {kind!r}" if kind else "no type"
        named = f" ({', '.join(classes)})" if classes else ""
        raise UnsupportedBackboneError(
            f"{path} describes a model of {what}{named}, which coopt does not read. It reads the model types {known}."
        )
    if classes and any(part in classes[0] for part in ("TextModel", "VisionModel", "For")):
        raise UnsupportedBackboneError(
            f"{path} describes a {classes[0]}, which is a part of a model or made for another task. Expected a whole "
            f"{FAMILIES[kind].model}, with both towers."
        )
    return str(kind)


def _part(content: dict[str, Any], key: str, usual: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of one tower; in old files a second one under another name counts instead."""
    given = content.get(f"{key}_dict")
    if given is None:
        given = content.get(key) or {}
    return {**usual, **{name: value for name, value in dict(given).items() if value is not None or name not in usual}}


_SIZES = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")


def _refuse_unknown_settings(config: Config) -> None:
    towers = {"text_config": config.text}
    if config.kind != "align":  # whose image tower transformers builds
        towers["vision_config"] = config.vision
        sizes = [config.vision["image_size"], config.vision["patch_size"]]
        if not all(type(size) is int and size > 0 for size in sizes):
            raise _unknown(config, "vision_config.image_size and patch_size", sizes, "one whole number each")
    for where, tower in towers.items():
        if not all(type(tower[size]) is int and tower[size] > 0 for size in _SIZES):
            raise TypeError(f"{where}: {', '.join(f'{size} is {tower[size]!r}' for size in _SIZES)}")
        if tower["hidden_size"] % tower["num_attention_heads"]:
            raise ValueError(f"{where}: hidden_size is no multiple of num_attention_heads")
        if tower["hidden_act"] not in ACTIVATIONS:
            raise _unknown(config, f"{where}.hidden_act", tower["hidden_act"], " or ".join(ACTIVATIONS))
    if config.vision["num_channels"] != 3:
        raise _unknown(config, "vision_config.num_channels", config.vision["num_channels"], "3")
    if config.vision.get("vision_use_head") is False:
        raise _unknown(config, "vision_config.vision_use_head", False, "true")
    position = config.text.get("position_embedding_type", "absolute")
    if position != "absolute":
        raise _unknown(config, "text_config.position_embedding_type", position, "absolute")


def _unknown(config: Config, setting: str, value: Any, expected: str) -> UnsupportedBackboneError:
    return UnsupportedBackboneError(
        f"{config.path}: {setting} is {value!r}, and coopt reads a {config.family.model} with {expected} alone."
    )
