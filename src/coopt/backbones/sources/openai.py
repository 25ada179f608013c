"""OpenAI's original files (`ViT-B-16.pt`), and other weights under OpenAI's names: "openai:PATH"."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from coopt.backbones.file_formats import weights_format
from coopt.backbones.source import Source, did_you_mean
from coopt.backbones.sources.openclip_suggestions import published
from coopt.errors import WeightsNotFoundError

if TYPE_CHECKING:
    import torch

    from coopt.backbones.protocol import Backbone


class OpenAI(Source):
    """Serves "openai:PATH"; the file says the architecture (`openai_archive.py`)."""

    scheme = "openai"

    def load(self, spec: str, device: torch.device, download: bool = False) -> Backbone:
        from coopt.backbones.sources.openai_archive import load_openai

        return load_openai(spec, device)

    def check(self, spec: str, download: bool = False) -> None:
        path = Path(spec).expanduser()
        if not path.exists() and (near := published(spec)):
            raise WeightsNotFoundError(
                f"The weights file {path.absolute()} does not exist. {did_you_mean(near)}Or give the path of a file as "
                "openai:PATH."
            )
        weights_format(path)
