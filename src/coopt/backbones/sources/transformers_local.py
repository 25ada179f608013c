"""Which models in the format of the package transformers are in the Hugging Face cache; fast, without that package or torch."""

from __future__ import annotations

import warnings
from pathlib import Path

from coopt.backbones.caches import hub_cache, in_hub_cache
from coopt.backbones.file_formats import of_openai
from coopt.backbones.source import LocalBackbone
from coopt.backbones.sources.openclip_local import published_accuracy
from coopt.backbones.sources.transformers_config import CONFIG
from coopt.backbones.sources.transformers_names import TransformersModel, find_transformers
from coopt.errors import BackboneError


def local_models() -> tuple[LocalBackbone, ...]:
    """The models of the cache that can be loaded, best first where it is known, the largest first among others."""
    rows = []
    for folder in sorted(hub_cache().glob("models--*--*")):
        repo = folder.name.removeprefix("models--").replace("--", "/", 1)
        model = _usable(repo)
        if model is not None:
            size = sum(path.stat().st_size for path in model.weights)
            path = model.weights[0] if len(model.weights) == 1 else Path(str(model.folder))
            rows.append(LocalBackbone(model.name, path, size, _imagenet(repo)))
    return tuple(sorted(rows, key=lambda row: (-(row.imagenet or 0.0), -row.bytes, row.name)))


def is_cached(repo: str) -> bool:
    """Whether a text names a model of the cache that can be loaded."""
    return repo.count("/") == 1 and _usable(repo) is not None


def _usable(repo: str) -> TransformersModel | None:
    try:
        if in_hub_cache(repo, (CONFIG,)) is None:
            return None
        with warnings.catch_warnings():  # of settings, which are for who loads it
            warnings.simplefilter("ignore")
            model = find_transformers(repo)
    except BackboneError:
        return None
    return model if model.repo else None


def _imagenet(repo: str) -> float | None:
    """The published accuracy of the same weights in open_clip's format."""
    model, _, tag = (of_openai(repo) or "").removeprefix("openclip:").partition("/")
    return published_accuracy(model, tag) if repo.startswith("openai/") else None
