"""Saved prompts: a folder with `prompt.json` (what it is) and `prompt.safetensors` (what was learned).

Kilobytes; no pickle; no frozen weights. The JSON is written last and names the tensors' SHA-256, so a folder is either
whole or refused.
"""

from __future__ import annotations

import hashlib
import json
import os
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from coopt.backbones import Backbone
from coopt.errors import SavedFileError
from coopt.files import write_bytes, write_json
from coopt.locks import writing_folder
from coopt.methods.estimator import check_fitted
from coopt.methods.registry import METHODS

FORMAT = 1
PATIENCE = 10.0
"""Seconds that `save` waits for another writer of the same folder."""

JSON_NAME, TENSORS_NAME = "prompt.json", "prompt.safetensors"
CHECKPOINT_NAME, RUN_NAME = "checkpoint.safetensors", "checkpoint.json"
"""What a fit on the command line keeps until it is done: the state of training, and what run it is of."""

NEIGHBOURS = 1000
"""Entries of a folder that are looked at for the prompt that was meant."""


def save(estimator: Any, folder: Path, extra: dict[str, Any] | None = None) -> Path:
    """Writes a fitted estimator; `extra` (metrics, how it was made) goes into the JSON beside it."""
    from coopt import __version__

    check_fitted(estimator, "class_names_")
    backbone = estimator.backbone_
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in estimator._state().items()}
    data = dump_tensors(tensors)
    description = {
        "format": FORMAT,
        "coopt_version": __version__,
        "method": estimator.method,
        "parameters": estimator.parameters,
        "class_names": list(estimator.class_names_),
        "labels": "names" if estimator.classes_.dtype.kind == "U" else "integers",
        "backbone": {
            "name": backbone.name,
            "fingerprint": backbone.fingerprint,
            "preprocessing": backbone.preprocessing.id,
            **_value_range_of(backbone),
        },
        "tensors_sha256": hashlib.sha256(data).hexdigest(),
        **(extra or {}),
    }
    with writing_folder(folder, wait=PATIENCE):  # or a prompt could be left with the tensors of another
        write_bytes(folder / TENSORS_NAME, data)
        write_json(folder / JSON_NAME, description)
    return folder


def _value_range_of(backbone: Backbone) -> dict[str, list[float | int]]:
    """What was black and white in images with more than 8 bits per value, when the user has said it."""
    value_range = backbone.preprocessing.value_range
    return {} if value_range is None else {"value_range": list(value_range)}


def describe(path: str | Path) -> dict[str, Any]:
    """What a saved prompt says of itself; the backbone is not loaded.

    Raises:
        SavedFileError: there is no saved prompt, or it is damaged or of a newer format.
    """
    file = json_file(Path(path))
    try:
        description = json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
        if not isinstance(description, dict):
            raise ValueError("not a mapping")
        version, method = description["format"], description["method"]
        names, backbone = description["class_names"], description["backbone"]
        valid = isinstance(names, list) and all(isinstance(n, str) for n in names) and isinstance(backbone["name"], str)
        if not valid or not isinstance(description["parameters"], dict):
            raise ValueError("a field has the wrong type")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SavedFileError(f"{file} is not a saved prompt of coopt ({type(error).__name__}: {error}).") from error
    if not isinstance(version, int) or version > FORMAT:
        raise SavedFileError(f"{file} has format {version}; this coopt reads up to {FORMAT}. Upgrade coopt to read it.")
    if method not in METHODS:
        raise SavedFileError(f"{file} holds the method {method!r}; this coopt knows {', '.join(METHODS)}.")
    return description


def json_file(path: Path) -> Path:
    file = path if path.name == JSON_NAME else path / JSON_NAME
    if file.is_file():
        return file
    if any((path / name).is_file() for name in (CHECKPOINT_NAME, RUN_NAME)):
        raise SavedFileError(
            f"The run in {path} was interrupted, so there is no prompt yet. Run {_command_of(path)} again: it goes on from "
            "where it was."
        )
    raise SavedFileError(
        f"There is no saved prompt at {path}: expected a folder with {JSON_NAME} and {TENSORS_NAME}, as written by "
        f"`coopt fit ... --out FOLDER` or `estimator.save(FOLDER)`.{_meant(path)}"
    )


def _command_of(path: Path) -> str:
    """How the unfinished run in a folder was started."""
    try:
        record = json.loads((path / RUN_NAME).read_text(encoding="utf-8"))
        command, folder = str(record["command"]), str(record["folder"])
    except (OSError, ValueError, KeyError, TypeError):
        return "`coopt fit`"
    return f"`{command}`" if folder == str(Path.cwd()) else f"`{command}` in {folder}"


def _meant(path: Path) -> str:
    """Prompts beside a path where none is, as a sentence that follows others."""
    try:
        with os.scandir(path.parent) as entries:
            there = sorted(one.name for one in islice(entries, NEIGHBOURS) if Path(one.path, JSON_NAME).is_file())
    except OSError:
        return ""
    close = get_close_matches(path.name, there, n=3, cutoff=0.5)
    if close:
        return f" Did you mean {' or '.join(str(path.with_name(name)) for name in close)}?"
    return f" Beside it there are {', '.join(there[:5])}{', ...' if len(there) > 5 else ''}." if there else ""


def read_tensors(file: Path, sha256: str | None) -> dict[str, Tensor]:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise SavedFileError(f"Cannot read {file}: {error.strerror}. The saved prompt is incomplete.") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise SavedFileError(
            f"{file} is not the file that was saved (its SHA-256 differs from {JSON_NAME}). It was changed or damaged; "
            "get the prompt again from where it came."
        )
    try:
        tensors = load_tensors(data)
    except (SafetensorError, ValueError) as error:
        raise SavedFileError(f"{file} is not a readable safetensors file: {error}.") from error
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise SavedFileError(f"{file}: the tensor {name!r} holds values that are not finite.")
    return tensors
