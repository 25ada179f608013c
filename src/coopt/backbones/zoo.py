"""The one place where open_clip is imported: late, because it takes six seconds, and with an error that helps."""

from __future__ import annotations

import importlib
from types import ModuleType

from coopt.errors import BackboneError


def import_open_clip(module: str = "open_clip") -> ModuleType:
    """open_clip, or one of its modules by its full name.

    Raises:
        BackboneError: it is not installed, or cannot be imported.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise BackboneError(f"The package {error.name} is not installed: pip install open_clip_torch.") from error
    except (ImportError, RuntimeError, OSError) as error:
        # A torchvision for another build of torch fails like this: "operator torchvision::nms does not exist".
        raise BackboneError(
            f"open_clip cannot be imported ({error}). torch and torchvision must be of one build: "
            "pip install --force-reinstall torch torchvision."
        ) from error
