"""Saved prompts are loaded: a folder that `save` wrote, or a checkpoint of CoOp's reference implementation."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coopt.backbones import Backbone, load_backbone
from coopt.backbones.precision import UsedPrecision, cost_described, is_slow
from coopt.errors import BackboneError, BackboneMismatchError, PrecisionWarning, SavedFileError
from coopt.methods.base import ClipClassifier
from coopt.methods.learned import LearnedMethod
from coopt.methods.reference_checkpoint import is_reference_checkpoint, load_reference_checkpoint
from coopt.methods.registry import METHODS
from coopt.methods.saving import TENSORS_NAME, describe, json_file, read_tensors
from coopt.runtime import Precision, Runtime, refuse_moved
from coopt.wording import setting


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
    for name, value in unexpected.items():
        refuse_moved(name, value, "coopt.load")
        raise TypeError(f"load() got an unexpected keyword argument {name!r}")
    runtime = runtime or Runtime()
    if is_reference_checkpoint(Path(path)):
        return load_reference_checkpoint(Path(path), backbone, class_names, download, runtime=runtime)
    description = describe(path)
    tensors = read_tensors(json_file(Path(path)).with_name(TENSORS_NAME), description.get("tensors_sha256"))
    frozen_clip = _matching_backbone(description["backbone"], backbone, runtime.device, download)
    cls = METHODS.get(description["method"])
    try:
        names = description["class_names"]
        estimator = cls.from_parameters(description["parameters"], runtime, backbone=frozen_clip, class_names=names)
        saved = estimator.machine.precision or "fp32"
        instead = _instead_of_slow_bf16(saved, frozen_clip) if runtime.precision is None else None
        estimator._set_classes(frozen_clip, names, named=description["labels"] == "names", precision=instead)
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


def _matching_backbone(saved: dict[str, Any], given: str | Backbone | None, device: str, download: bool) -> Backbone:
    try:
        backbone = load_backbone(given if given is not None else saved["name"], device, download=download)
    except BackboneError as error:
        if given is not None:
            raise
        raise type(error)(
            f"The prompt was learned with the backbone {saved['name']!r}, which cannot be loaded. {error}"
        ) from error
    if backbone.fingerprint != saved.get("fingerprint"):
        raise BackboneMismatchError(
            f"The prompt was learned with the backbone {saved['name']!r} (fingerprint {str(saved.get('fingerprint'))[:12]}), "
            f"but {backbone.name!r} has fingerprint {backbone.fingerprint[:12]}: other weights, to which the learned vectors mean "
            "nothing. Give the original backbone, or fit a prompt for this one."
        )
    value_range = saved.get("value_range")
    if value_range is None or backbone.preprocessing.value_range is not None:
        return backbone
    return backbone.with_value_range(tuple(value_range) if isinstance(value_range, list) else value_range)
