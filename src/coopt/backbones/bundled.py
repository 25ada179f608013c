"""The small CLIP that comes with the package: for the demo, for trying things out, and for tests."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import torch

from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.openclip import load_openclip
from coopt.errors import WeightsNotFoundError


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


def load_bundled(device: torch.device | str = "cpu") -> ClipBackbone:
    """The bundled backbone, through the same code as any other model folder."""
    return load_openclip(f"local-dir:{bundled_folder()}", device, name="bundled")
