"""The small CLIP that comes with the package: for the demo, for trying things out, and for tests."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from coopt.backbones.source import Source
from coopt.errors import WeightsNotFoundError

if TYPE_CHECKING:
    import torch

    from coopt.backbones.protocol import Backbone


class BundledSource(Source):
    """Serves the one name "bundled", through the same code as any other model folder."""

    scheme = "bundled"
    alone = True

    def load(self, spec: str, device: torch.device, download: bool = False) -> Backbone:
        from coopt.backbones.sources.openclip_loading import load_openclip

        return load_openclip(f"local-dir:{bundled_folder()}", device, name=self.scheme)


def bundled_folder() -> Path:
    """The bundled model's folder, in open_clip's layout.

    Raises:
        WeightsNotFoundError: the installation lacks it.
    """
    folder = Path(str(resources.files("coopt") / "bundled" / "model"))
    if not folder.is_dir():
        raise WeightsNotFoundError(
            f"The bundled model is missing from this installation: {folder} does not exist. Reinstall coopt."
        )
    return folder
