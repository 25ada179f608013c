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
    from coopt.data import FeatureCache, ImageDataset, load_dataset, register_dataset
    from coopt.methods.cocoop import CoCoOp
    from coopt.methods.coop import CoOp
    from coopt.methods.image_tuning import ImageEncoderTuning
    from coopt.methods.kgcoop import KgCoOp
    from coopt.methods.linear_probe import LinearProbe
    from coopt.methods.saving import describe, load
    from coopt.methods.text_bias import TextBias
    from coopt.methods.text_transformation import TextTransformation
    from coopt.methods.tip_adapter import TipAdapter
    from coopt.methods.zero_shot import ZeroShot
    from coopt.threads import Runtime
    from coopt.training.recipe import Recipe

try:
    __version__ = version("coopt")
except PackageNotFoundError:  # run from a source tree that was not installed
    __version__ = "0+unknown"

_HOMES = {
    "Backbone": "coopt.backbones",
    "CoCoOp": "coopt.methods.cocoop",
    "CoOp": "coopt.methods.coop",
    "FeatureCache": "coopt.data",
    "ImageDataset": "coopt.data",
    "ImageEncoderTuning": "coopt.methods.image_tuning",
    "KgCoOp": "coopt.methods.kgcoop",
    "LinearProbe": "coopt.methods.linear_probe",
    "Recipe": "coopt.training.recipe",
    "Runtime": "coopt.threads",
    "TextBias": "coopt.methods.text_bias",
    "TextTransformation": "coopt.methods.text_transformation",
    "TipAdapter": "coopt.methods.tip_adapter",
    "ZeroShot": "coopt.methods.zero_shot",
    "describe": "coopt.methods.saving",
    "list_backbones": "coopt.backbones",
    "load": "coopt.methods.saving",
    "load_backbone": "coopt.backbones",
    "load_dataset": "coopt.data",
    "register_dataset": "coopt.data",
}

__all__ = [
    "Backbone",
    "CoCoOp",
    "CoOp",
    "FeatureCache",
    "ImageDataset",
    "ImageEncoderTuning",
    "KgCoOp",
    "LinearProbe",
    "Recipe",
    "Runtime",
    "TextBias",
    "TextTransformation",
    "TipAdapter",
    "ZeroShot",
    "describe",
    "list_backbones",
    "load",
    "load_backbone",
    "load_dataset",
    "register_dataset",
]


def __getattr__(name: str) -> Any:
    # Imported at first use: torch and open_clip take seconds, and `coopt --help` needs neither.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'coopt' has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), *_HOMES]
