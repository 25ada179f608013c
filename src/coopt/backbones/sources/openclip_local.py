"""Which published models are on this machine already, best first: found without the network, torch or open_clip."""

from __future__ import annotations

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

# Zero-shot accuracy on ImageNet in percent, as open_clip's docs/openclip_results.csv publishes it.
_IMAGENET = {
    "ViT-H-14-378": {"dfn5b": 84.4},
    "ViT-H-14": {"dfn5b": 83.4, "metaclip_fullcc": 80.5, "laion2b_s32b_b79k": 78.0},
    "EVA02-E-14-plus": {"laion2b_s9b_b144k": 82.0},
    "EVA02-E-14": {"laion2b_s4b_b115k": 82.0},
    "EVA02-L-14-336": {"merged2b_s6b_b61k": 80.4},
    "EVA02-L-14": {"merged2b_s4b_b131k": 79.8},
    "EVA02-B-16": {"merged2b_s8b_b131k": 74.7},
    "EVA01-g-14-plus": {"merged2b_s11b_b114k": 79.3},
    "EVA01-g-14": {"laion400m_s11b_b41k": 78.5},
    "ViT-bigG-14": {"laion2b_s39b_b160k": 80.1},
    "ViT-g-14": {"laion2b_s34b_b88k": 78.5, "laion2b_s12b_b42k": 76.6},
    "ViT-L-14-336": {"openai": 76.6},
    "ViT-L-14": {
        "dfn2b": 81.4,
        "datacomp_xl_s13b_b90k": 79.2,
        "metaclip_fullcc": 79.2,
        "commonpool_xl_clip_s13b_b90k": 76.4,
        "metaclip_400m": 76.2,
        "openai": 75.5,
        "commonpool_xl_laion_s13b_b90k": 75.5,
        "laion2b_s32b_b82k": 75.3,
        "laion400m_e32": 72.8,
        "laion400m_e31": 72.7,
        "commonpool_xl_s13b_b90k": 72.3,
    },
    "ViT-B-16": {
        "dfn2b": 76.2,
        "datacomp_xl_s13b_b90k": 73.5,
        "metaclip_fullcc": 72.1,
        "metaclip_400m": 70.8,
        "laion2b_s34b_b88k": 70.2,
        "openai": 68.3,
        "laion400m_e32": 67.1,
        "laion400m_e31": 67.0,
        "datacomp_l_s1b_b8k": 63.1,
    },
    "ViT-B-16-plus-240": {"laion400m_e32": 69.2, "laion400m_e31": 69.0},
    "ViT-B-32-256": {"datacomp_s34b_b86k": 72.8},
    "ViT-B-32": {
        "datacomp_xl_s13b_b90k": 69.2,
        "metaclip_fullcc": 67.7,
        "laion2b_s34b_b79k": 66.6,
        "laion2b_e16": 65.7,
        "metaclip_400m": 65.6,
        "openai": 63.3,
        "laion400m_e32": 62.9,
        "laion400m_e31": 62.9,
    },
    "RN50x64": {"openai": 73.9},
    "RN50x16": {"openai": 70.7},
    "RN50x4": {"openai": 66.3},
    "RN101": {"openai": 62.3, "yfcc15m": 34.9},
    "RN50": {"openai": 59.8, "cc12m": 36.5, "yfcc15m": 32.8},
}
# Tags of the data filtering benchmark, learned from small parts of its data: up to 30 and 58 percent.
_SMALL_DATA = {"_s_": 5.0, "_m_": 25.0, "_l_": 55.0}
_UNKNOWN = 65.0


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
    known = _IMAGENET.get(model.removesuffix("-quickgelu"), {}).get(tag)
    small = [value for part, value in _SMALL_DATA.items() if part in tag and tag.startswith(("datacomp", "commonpool"))]
    return known if known is not None else small[0] if small else _UNKNOWN, known


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
