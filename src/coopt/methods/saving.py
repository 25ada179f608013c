"""Saved prompts: a folder with `prompt.json` (what it is) and `prompt.safetensors` (what was learned).

Kilobytes; no pickle; no frozen weights. The JSON is written last and names the tensors' SHA-256, so a folder is either
whole or refused.
"""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections.abc import Sequence
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as dump_tensors
from torch import Tensor

from coopt.backbones import Backbone, load_backbone
from coopt.backbones.precision import UsedPrecision, cost_described, is_slow
from coopt.backbones.protocol import Precision
from coopt.errors import BackboneError, BackboneMismatchError, PrecisionWarning, SavedFileError
from coopt.files import write_bytes, write_json
from coopt.locks import writing_folder
from coopt.methods.base import ClipClassifier
from coopt.methods.cocoop import CoCoOp
from coopt.methods.coop import CoOp
from coopt.methods.estimator import check_fitted
from coopt.methods.image_tuning import ImageEncoderTuning
from coopt.methods.kgcoop import KgCoOp
from coopt.methods.learned import LearnedMethod
from coopt.methods.linear_probe import LinearProbe
from coopt.methods.text_bias import TextBias
from coopt.methods.text_transformation import TextTransformation
from coopt.methods.tip_adapter import TipAdapter
from coopt.methods.zero_shot import ZeroShot
from coopt.runtime import Runtime, refuse_moved
from coopt.wording import setting

FORMAT = 1
PATIENCE = 10.0
"""Seconds that `save` waits for another writer of the same folder."""

JSON_NAME, TENSORS_NAME = "prompt.json", "prompt.safetensors"
CHECKPOINT_NAME, RUN_NAME = "checkpoint.safetensors", "checkpoint.json"
"""What a fit on the command line keeps until it is done: the state of training, and what run it is of."""

NEIGHBOURS = 1000
"""Entries of a folder that are looked at for the prompt that was meant."""

METHODS: dict[str, type[Any]] = {
    cls.method: cls
    for cls in (
        CoOp,
        CoCoOp,
        KgCoOp,
        TextBias,
        TextTransformation,
        ImageEncoderTuning,
        TipAdapter,
        LinearProbe,
        ZeroShot,
    )
}


def save(estimator: ClipClassifier, folder: Path, extra: dict[str, Any] | None = None) -> Path:
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
    file = _json_file(Path(path))
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


def load(
    path: str | Path,
    backbone: str | Backbone | None = None,
    *,
    class_names: Sequence[str] | None = None,
    download: bool = False,
    runtime: Runtime | None = None,
    **unexpected: Any,
) -> ClipClassifier:
    """Loads a saved prompt, ready to predict.

    Args:
        path: the folder that `save` wrote (or its `prompt.json`), or a checkpoint of CoOp's reference implementation
            (the folder that holds `prompt_learner/`, or a `model.pth.tar-N` file).
        backbone: another name or object for the *same* frozen weights (they may lie elsewhere on this machine); needed
            for a reference checkpoint, which does not say what it was trained with.
        class_names: other classes than the saved ones; needed for a reference checkpoint.
        download: may fetch the backbone's weights from the network.
        runtime: how the machine is used. Where its `precision` is None, it is what the prompt was learned with (fp32 for a
            reference checkpoint), but for bf16 where fp32 is faster, which is said.
        unexpected: refused.

    Raises:
        ParameterError: a precision for a method that has none, or an unknown one.
        SavedFileError: missing, damaged or changed files.
        BackboneMismatchError: the backbone is not the one that the prompt was learned with.
        WeightsNotFoundError: the backbone's weights are not on this machine.
    """
    from coopt.methods.reference_checkpoint import is_reference_checkpoint, load_reference_checkpoint

    for name, value in unexpected.items():
        refuse_moved(name, value, "coopt.load")
        raise TypeError(f"load() got an unexpected keyword argument {name!r}")
    runtime = runtime or Runtime()
    if is_reference_checkpoint(Path(path)):
        return load_reference_checkpoint(Path(path), backbone, class_names, download, runtime=runtime)
    description = describe(path)
    tensors = _read_tensors(_json_file(Path(path)).with_name(TENSORS_NAME), description.get("tensors_sha256"))
    found = _matching_backbone(description["backbone"], backbone, runtime.device, download)
    cls = METHODS[description["method"]]
    try:
        names = description["class_names"]
        estimator = cls.from_parameters(description["parameters"], runtime, backbone=found, class_names=names)
        saved = estimator.machine.precision or "fp32"
        instead = _instead_of_slow_bf16(saved, found) if runtime.precision is None else None
        estimator._set_classes(found, names, named=description["labels"] == "names", precision=instead)
        if isinstance(estimator, LearnedMethod):
            estimator.recipe_ = estimator.full_recipe
        estimator._check_state(tensors)
        estimator._set_state(tensors)
    except (TypeError, KeyError) as error:
        raise SavedFileError(f"{path} does not fit the method {description['method']!r}: {error}.") from error
    return estimator if class_names is None else estimator.with_classes(class_names)


def _instead_of_slow_bf16(precision: Precision, backbone: Backbone) -> UsedPrecision | None:
    """fp32 for a prompt that was learned in bf16 where that is slow; None: nothing need be changed."""
    if not is_slow(precision, backbone.device):
        return None
    warnings.warn(
        f"The prompt was learned in bf16, which {cost_described(backbone.device)}, so it predicts in fp32: features differ by "
        f"less than one percent, and about one answer in 400 with them. With {setting('precision', 'bf16')} it predicts as it "
        "was learned.",
        PrecisionWarning,
        stacklevel=3,
    )
    return "fp32"


def _json_file(path: Path) -> Path:
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


def _read_tensors(file: Path, sha256: str | None) -> dict[str, Tensor]:
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


def _matching_backbone(saved: dict[str, Any], given: str | Backbone | None, device: str, download: bool) -> Backbone:
    try:
        found = load_backbone(given if given is not None else saved["name"], device, download=download)
    except BackboneError as error:
        if given is not None:
            raise
        raise type(error)(
            f"The prompt was learned with the backbone {saved['name']!r}, which cannot be loaded. {error}"
        ) from error
    if found.fingerprint != saved.get("fingerprint"):
        raise BackboneMismatchError(
            f"The prompt was learned with the backbone {saved['name']!r} (fingerprint {str(saved.get('fingerprint'))[:12]}), "
            f"but {found.name!r} has fingerprint {found.fingerprint[:12]}: other weights, to which the learned vectors mean "
            "nothing. Give the original backbone, or fit a prompt for this one."
        )
    value_range = saved.get("value_range")
    if value_range is None or found.preprocessing.value_range is not None:
        return found
    return found.with_value_range(tuple(value_range) if isinstance(value_range, list) else value_range)
