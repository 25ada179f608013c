"""What a result depends on besides its request: versions, the machine, and the memory that was held."""

from __future__ import annotations

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from coopt import __version__


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    installed = {"coopt": __version__, "python": platform.python_version()}
    for name, package in (("torch", "torch"), ("open_clip", "open_clip_torch"), ("pillow", "pillow")):
        try:
            installed[name] = version(package)
        except PackageNotFoundError:
            installed[name] = "unknown"
    return installed


def machine(device: torch.device) -> dict[str, Any]:
    """What computes."""
    return {"device": str(device), "platform": platform.platform(), "threads": torch.get_num_threads()}


def peak_memory() -> int | None:
    """The most memory that this process has held so far, in bytes; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
