"""Models in the format of the package transformers: folders, and those of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from coopt.backbones.source import LocalBackbone, Source
from coopt.backbones.sources.transformers_local import is_cached, local_models
from coopt.backbones.sources.transformers_names import find_transformers

if TYPE_CHECKING:
    import torch

    from coopt.backbones.protocol import Backbone


class Transformers(Source):
    """Serves "transformers:FOLDER" and "transformers:ORG/NAME"; see `transformers_names.py`."""

    scheme = "transformers"

    def load(self, spec: str, device: torch.device, download: bool = False) -> Backbone:
        from coopt.backbones.sources.transformers_loading import load_transformers

        return load_transformers(spec, device, download)

    def check(self, spec: str, download: bool = False) -> None:
        find_transformers(spec, download)

    def local(self) -> Sequence[LocalBackbone]:
        return local_models()

    def suggest(self, name: str) -> Sequence[str]:
        repo = name.removeprefix("https://huggingface.co/").partition(":")[2] or name
        return [f"transformers:{repo}"] if is_cached(repo) else []
