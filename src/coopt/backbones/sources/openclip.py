"""open_clip's models: published ones, those on the Hugging Face hub, and folders and files in open_clip's layout."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coopt.backbones.source import BackboneInfo, LocalBackbone, Source
from coopt.backbones.sources.openclip_local import local_models
from coopt.backbones.sources.openclip_models import list_models
from coopt.backbones.sources.openclip_names import find_openclip
from coopt.backbones.sources.openclip_suggestions import meant

if TYPE_CHECKING:
    import torch

    from coopt.backbones.protocol import Backbone


class OpenClip(Source):
    """Serves "openclip:..."; see `openclip_names.py` for what may follow."""

    scheme = "openclip"
    title = "open_clip"

    def load(self, spec: str, device: torch.device, download: bool = False) -> Backbone:
        from coopt.backbones.sources.openclip_loading import load_openclip

        return load_openclip(spec, device, download)

    def check(self, spec: str, download: bool = False) -> None:
        find_openclip(spec, download)

    def list(self) -> Sequence[BackboneInfo]:
        return list_models()

    def local(self) -> Sequence[LocalBackbone]:
        return local_models()

    def suggest(self, name: str) -> Sequence[str]:
        return meant(name)
