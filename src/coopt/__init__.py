"""coopt: learn the prompt of a CLIP-like model from a few labelled images.

import coopt

model = coopt.CoOp(n_ctx=4).fit(paths, labels)
model.predict(["new.jpg"])
model.save("my-prompt")
"""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from coopt.backbones import Backbone, list_backbones, load_backbone
    from coopt.data import FeatureCache, ImageDataset, load_dataset
    from coopt.methods.coop import CoOp
    from coopt.methods.linear_probe import LinearProbe
    from coopt.methods.saving import describe, load
    from coopt.methods.zero_shot import ZeroShot
    from coopt.training.recipe import Recipe

try:
    __version__ = version("coopt")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+unknown"

_HOMES = {
    "Backbone": "coopt.backbones",
    "CoOp": "coopt.methods.coop",
    "FeatureCache": "coopt.data",
    "ImageDataset": "coopt.data",
    "LinearProbe": "coopt.methods.linear_probe",
    "Recipe": "coopt.training.recipe",
    "ZeroShot": "coopt.methods.zero_shot",
    "describe": "coopt.methods.saving",
    "list_backbones": "coopt.backbones",
    "load": "coopt.methods.saving",
    "load_backbone": "coopt.backbones",
    "load_dataset": "coopt.data",
}

__all__ = [
    "Backbone",
    "CoOp",
    "FeatureCache",
    "ImageDataset",
    "LinearProbe",
    "Recipe",
    "ZeroShot",
    "describe",
    "list_backbones",
    "load",
    "load_backbone",
    "load_dataset",
]


def __getattr__(name: str) -> Any:
    # Imported at first use: torch and open_clip take seconds, and `coopt --help` needs neither.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'coopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
