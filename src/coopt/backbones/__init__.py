"""Frozen CLIP-like models behind one protocol: by name (`load_backbone`), or from weights at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from coopt.backbones.catalogue import BackboneInfo, list_backbones
from coopt.backbones.local import LocalBackbone, local_backbones
from coopt.backbones.names import check_backbone_name

if TYPE_CHECKING:
    from coopt.backbones.loading import load_backbone as load_backbone
    from coopt.backbones.openai_archive import from_state_dict as from_state_dict
    from coopt.backbones.preprocessing import Preprocessing as Preprocessing
    from coopt.backbones.preprocessing import to_rgb as to_rgb
    from coopt.backbones.protocol import Backbone as Backbone
    from coopt.backbones.protocol import TextTower as TextTower
    from coopt.backbones.protocol import Tokenizer as Tokenizer

# torch alone takes two seconds to import and open_clip six: both wait until something here needs them.
_LAZY = {
    "Backbone": "protocol",
    "Preprocessing": "preprocessing",
    "TextTower": "protocol",
    "Tokenizer": "protocol",
    "from_state_dict": "openai_archive",
    "load_backbone": "loading",
    "to_rgb": "preprocessing",
}

__all__ = [
    "Backbone",
    "BackboneInfo",
    "LocalBackbone",
    "Preprocessing",
    "TextTower",
    "Tokenizer",
    "check_backbone_name",
    "from_state_dict",
    "list_backbones",
    "load_backbone",
    "local_backbones",
    "to_rgb",
]


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
