"""Which published models are on this machine already, best first: found without the network, torch or open_clip."""

from __future__ import annotations

import functools
import json
import zipfile
from pathlib import Path

from coopt.backbones.caches import (
    HUB_CONFIG,
    HUB_WEIGHTS,
    VOCABULARIES,
    find_tag,
    hub_cache,
    hub_repository,
    in_hub_cache,
)
from coopt.backbones.file_formats import weights_format
from coopt.backbones.source import LocalBackbone
from coopt.backbones.sources.openclip_models import model_configs, unsupported_reason, weight_tags
from coopt.backbones.sources.openclip_names import read_config
from coopt.backbones.sources.openclip_text_config import find_text_config, text_model_of
from coopt.backbones.zoo import has_transformers
from coopt.errors import BackboneError

IMAGENET = Path(__file__).with_name("openclip_imagenet.json")
# Where a model stands in the list whose accuracy is not known here.
_UNKNOWN = 65.0


@functools.cache
def imagenet() -> dict[str, dict[str, float]]:
    """Model to tag to the zero-shot accuracy on ImageNet in percent that open_clip publishes."""
    return json.loads(IMAGENET.read_text(encoding="utf-8"))["percent"]


def local_models() -> tuple[LocalBackbone, ...]:
    """The published models in the caches of Hugging Face, open_clip and OpenAI's package, best first.

    Only models that `load_backbone` can load, and each file once. Fast: reads names and configuration files only.
    """
    cached = {folder.name for folder in hub_cache().glob("models--*--*")}
    models: dict[Path, tuple[float, LocalBackbone]] = {}
    for model, tags in weight_tags().items():
        config = model_configs().get(model)
        if config is None or not _is_usable(config):
            continue
        for tag, settings in tags.items():
            repo = hub_repository(settings)[0]
            if settings.get("url") or f"models--{repo.replace('/', '--')}" in cached:
                path = find_tag(settings)[0]
                if path is not None:
                    _add(models, f"openclip:{model}/{tag}", path, *_quality(model, tag))
    for folder in sorted(cached):
        repo = folder.removeprefix("models--").replace("--", "/", 1)
        config_path, weights = in_hub_cache(repo, (HUB_CONFIG,)), in_hub_cache(repo, HUB_WEIGHTS)
        if config_path and weights and _is_usable_file(config_path):
            _add(models, f"openclip:hf-hub:{repo}", weights, _UNKNOWN, None)
    rows = sorted(models.values(), key=lambda row: (-row[0], -row[1].bytes, row[1].name))
    return tuple(row for _, row in rows)


def _add(
    models: dict[Path, tuple[float, LocalBackbone]], name: str, path: Path, order: float, known: float | None
) -> None:
    """Adds a model, unless its file was found before or is no whole weights file."""
    file = path.resolve()
    if file in models:
        return
    try:
        whole = weights_format(file) == "safetensors" or zipfile.is_zipfile(file)
    except BackboneError:
        return
    if whole:
        models[file] = (order, LocalBackbone(name, path, file.stat().st_size, known))


def _quality(model: str, tag: str) -> tuple[float, float | None]:
    """(a number to sort by, the published accuracy)."""
    plain = model.removesuffix("-quickgelu")
    known = imagenet().get(f"{plain}-quickgelu", {}).get(tag, imagenet().get(plain, {}).get(tag))
    return _UNKNOWN if known is None else known, known


def published_accuracy(model: str, tag: str) -> float | None:
    """Zero-shot accuracy on ImageNet in percent of one of open_clip's models; None where it is not known here."""
    return _quality(model, tag)[1]


def _is_usable_file(config_path: Path) -> bool:
    try:
        config = read_config(config_path)[0]
    except BackboneError:
        return False
    return _is_usable(config, config_path.parent)


def _is_usable(config: dict, folder: Path | None = None) -> bool:
    """Whether a model of this configuration can be loaded once its weights are there: its other files lie here too."""
    if unsupported_reason(config) or not _has_tokenizer(config):
        return False
    return not text_model_of(config) or (has_transformers() and find_text_config(config, folder)[0] is not None)


def _has_tokenizer(config: dict) -> bool:
    """Whether the tokenizer is at hand: CLIP's own comes with open_clip, others lie in the Hugging Face cache."""
    name = config["text_cfg"].get("hf_tokenizer_name")
    return not name or (has_transformers() and in_hub_cache(name, VOCABULARIES) is not None)
