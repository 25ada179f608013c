"""The configuration of a text tower that open_clip takes from the package transformers: found without the network.

open_clip's own configuration only names it ("hf_model_name"), and asks the Hugging Face hub for its `config.json`. Here it
is looked for in the model's folder and in the Hugging Face cache. Imports neither torch nor transformers.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from coopt.backbones.caches import hub_cache, in_hub_cache
from coopt.backbones.source import unsupported
from coopt.errors import BackboneError

TEXT_CONFIG = "config.json"
KINDS = ("bert", "m2m_100", "mt5", "roberta", "xlm-roberta")
"""The kinds ("model_type") of encoders that open_clip can make a text tower of."""

# Of a model that has a decoder too, only the encoder is kept: the decoder need not be built in full.
_SMALLEST_DECODER = {"m2m_100": {"decoder_layers": 1}, "mt5": {"num_decoder_layers": 1}}
# Code of others is never run, and weights are read in float32.
_DROPPED = ("auto_map", "dtype", "torch_dtype")


def text_model_of(config: dict) -> str:
    """What open_clip's configuration calls the encoder, such as "roberta-base"; "" where the tower is open_clip's own."""
    return str(config.get("text_cfg", {}).get("hf_model_name") or "")


def find_text_config(config: dict, folder: Path | None = None) -> tuple[Path | None, list[str]]:
    """(the `config.json` of the encoder, or None; the places where it was looked for, in words).

    Args:
        config: open_clip's, which names an encoder.
        folder: of the model, where it has one.
    """
    name = text_model_of(config)
    looked = []
    # The name may be that of a folder. The model's own folder may also have a config.json of the whole model.
    places = [Path(name) / TEXT_CONFIG] if folder is None else [folder / name / TEXT_CONFIG, folder / TEXT_CONFIG]
    for path in places:
        if path.is_file() and (folder is None or path.parent != folder or _kind(path) in KINDS):
            return path, looked
    if folder is not None:
        looked.append(f"{TEXT_CONFIG} of the text tower in {folder}")
    if (cached := _cached(name)) is not None:
        return cached, looked
    looked.append(f"{TEXT_CONFIG} of {name} in the Hugging Face cache {hub_cache()}")
    return None, looked


def _cached(name: str) -> Path | None:
    try:
        return in_hub_cache(name, (TEXT_CONFIG,))
    except BackboneError:  # a path, and no name of a repository
        return None


def _kind(path: Path) -> str:
    try:
        return str(json.loads(path.read_text(encoding="utf-8")).get("model_type"))
    except (OSError, ValueError, AttributeError):
        return ""


def read_text_config(path: Path, name: str) -> dict[str, Any]:
    """The encoder's configuration: what is to be built of it.

    Args:
        path: of the `config.json`.
        name: of the backbone, for messages.

    Raises:
        BackboneError: it is no configuration.
        UnsupportedBackboneError: it is that of another kind of model; says which kinds there are.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        kind = content["model_type"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BackboneError(
            f"{path} is not the configuration of a text tower: expected a JSON object with model_type "
            f"({type(error).__name__}: {error})."
        ) from error
    if kind not in KINDS:
        known = ", ".join(KINDS)
        raise unsupported(
            name, f"its text tower is a model of the kind {kind!r} ({path}), and open_clip knows the kinds {known}"
        )
    kept = {key: value for key, value in content.items() if key not in _DROPPED}
    return {**kept, **_SMALLEST_DECODER.get(kind, {})}
