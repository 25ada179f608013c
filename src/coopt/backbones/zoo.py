"""The one place where open_clip is imported: late, because it takes six seconds, and with an error that helps.

And what is said where the package transformers is missing.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
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


def require_transformers(what: str) -> None:
    """Says so where the package transformers is not installed. Does not import it.

    Args:
        what: needs it; the beginning of a sentence.

    Raises:
        BackboneError: it is not installed.
    """
    if not has_transformers():
        raise BackboneError(
            f"{what} needs the package transformers, which is not installed: pip install 'coopt[transformers]'."
        )


def has_transformers() -> bool:
    """Whether the package transformers is installed. Does not import it."""
    name = "transformers"
    return sys.modules[name] is not None if name in sys.modules else importlib.util.find_spec(name) is not None
