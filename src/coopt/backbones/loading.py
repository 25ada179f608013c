"""`load_backbone`: a backbone from its name."""

from __future__ import annotations

import collections
import functools
import threading
import weakref
from pathlib import Path

import torch

from coopt.backbones.names import find_source
from coopt.backbones.preprocessing import ValueRange
from coopt.backbones.protocol import Backbone
from coopt.errors import BackboneError, ParameterError
from coopt.events import busy

# One model per name and device while anybody holds it: scikit-learn's clones and a grid search share its memory.
_loaded: weakref.WeakValueDictionary[tuple[str, str, str], Backbone] = weakref.WeakValueDictionary()
# The last two stay even when nobody does, so that fits one after another do not load the same model again.
_recent: collections.deque[Backbone] = collections.deque(maxlen=2)
_lock = threading.RLock()


def load_backbone(
    name: str | Backbone, device: str = "auto", download: bool = False, value_range: ValueRange | None = None
) -> Backbone:
    """A frozen CLIP-like model by its name.

    Args:
        name: "bundled"; "openclip:MODEL/TAG", "openclip:MODEL/./weights.pt", "openclip:hf-hub:ORG/NAME",
            "openclip:local-dir:/path"; "openai:/path/ViT-B-16.pt"; "transformers:/path", "transformers:ORG/NAME"; "SCHEME:..." of another package's source; or a backbone, which
            is returned as it is.
        device: "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".
        download: whether the network may be used for weights that are not on this machine.
        value_range: which values are black and white in images with more than 8 bits per value, such as (0, 4095) for
            12-bit data in 16-bit files; None: (0, 65535) for integers and (0, 1) for floating-point numbers.

    Raises:
        BackboneError: the name is unknown or its weights are damaged.
        WeightsNotFoundError: the weights are not on this machine: says where they were looked for and how to get them.
        UnsupportedBackboneError: its text tower cannot carry prompts.
        ParameterError: there is no such device, or the value range is none.
    """
    if value_range is not None:
        return load_backbone(name, device, download).with_value_range(value_range)
    if isinstance(name, Backbone):
        return name
    if not isinstance(name, str):
        raise ParameterError(f"A backbone must be a name or a Backbone. Got {type(name).__name__} instead.")
    chosen = resolve_device(device)
    # The working folder is part of the key: a relative path means another file from another folder.
    key = (name, str(Path.cwd()), str(chosen))
    with _lock:
        backbone = _loaded.get(key)
        if backbone is None:
            with busy(f"Loading {name}"):
                backbone = _loaded[key] = _load(name, chosen, download)
                backbone.load_again = functools.partial(load_backbone, name, device)
        if backbone not in _recent:
            _recent.append(backbone)
    return backbone


def resolve_device(device: str | torch.device) -> torch.device:
    """The torch device of a name, "auto" included.

    Raises:
        ParameterError: torch knows no such device, or the machine has none.
    """
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ParameterError(
            f"The device {str(device)!r} is not on this machine. Use 'auto', 'cpu'"
            f"{', or cuda:0 to cuda:' + str(torch.cuda.device_count() - 1) if torch.cuda.is_available() else ''}."
        ) from error
    return chosen


def _load(name: str, device: torch.device, download: bool) -> Backbone:
    source, spec = find_source(name)
    source.check(spec, download)
    backbone = source.load(spec, device, download)
    if not isinstance(backbone, Backbone) or backbone.name != name:
        what = f"the name {backbone.name!r}" if isinstance(backbone, Backbone) else f"a {type(backbone).__name__}"
        raise BackboneError(
            f"{type(source).__name__}.load({spec!r}) must give the Backbone {name!r}. Got {what} instead."
        )
    return backbone
