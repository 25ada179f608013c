"""Saved prompts and labelled images, as requests name them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coopt import events
from coopt.app.requests import CompareRequest, EvaluateRequest, FitRequest, PromptOptions, ZeroShotRequest
from coopt.backbones import Backbone
from coopt.data import ImageDataset, Split, display_name, few_shot, load_dataset
from coopt.errors import CooptWarning, DataError, ParameterError
from coopt.methods.base import ClipClassifier
from coopt.methods.loading import load
from coopt.methods.reference_checkpoint import is_reference_checkpoint, load_reference_checkpoint
from coopt.methods.saving import describe
from coopt.runtime import Runtime
from coopt.wording import called, counted, setting


def load_prompt(request: PromptOptions, class_names: Sequence[str] | None = None) -> ClipClassifier:
    """A saved prompt or a reference checkpoint, with its own classes unless others are given.

    Raises:
        CooptError: see `coopt.load`.
    """
    estimator = _load_prompt(request, class_names)
    if request.value_range is not None:
        estimator.backbone_ = estimator.backbone_.with_value_range(request.value_range)
    return estimator


def _load_prompt(request: PromptOptions, class_names: Sequence[str] | None) -> ClipClassifier:
    prompt, runtime = request.prompt, Runtime(device=request.device, precision=request.precision)
    if is_reference_checkpoint(prompt):
        return load_reference_checkpoint(
            prompt,
            request.backbone,
            class_names,
            request.download,
            position=request.position or "end",
            runtime=runtime,
        )
    if request.position is not None:
        raise ParameterError(
            f"'{display_name(prompt)}' says itself where the class name stands. Leave out {called('position')}, which is "
            "for checkpoints of the reference implementation."
        )
    return load(prompt, request.backbone, class_names=class_names, download=request.download, runtime=runtime)


def load_sample(request: FitRequest | CompareRequest, test_fraction: float | int) -> tuple[ImageDataset, ImageDataset]:
    """The whole data set, and what is learned from of it.

    Args:
        request: which, and how it is read.
        test_fraction: of each class, held out where there is no test part; 0: none.

    Raises:
        DataError: see `coopt.load_dataset`.
    """
    whole = load_dataset(
        request.data,
        seed=request.seed,
        test_fraction=test_fraction,
        root=request.root,
        on_bad_image=request.on_bad_image,
        **request.reading,
    )
    return whole, whole if request.shots is None else few_shot(whole, request.shots, request.seed)


def load_split(request: EvaluateRequest | ZeroShotRequest, prompt: Path | None) -> tuple[ImageDataset, Split]:
    """The images to measure on, and the data set they are of; says which they are.

    A prompt that was learned from these very images is measured on those that were held out then.

    Raises:
        DataError: no images, or no such part.
    """
    split = request.split
    held_out = _held_out_then(request, prompt) if split == "test" else None
    if held_out is not None and held_out.test is not None:
        events.say(
            f"{held_out.name}: the {counted(len(held_out.test), 'image')} held out when the prompt was learned from "
            f"this data. ({setting('split', 'all')} takes all of them.)"
        )
        return held_out, held_out.test
    dataset = load_dataset(
        request.data,
        test_fraction=0,
        root=request.root,
        on_bad_image=request.on_bad_image,
        require_train=False,
        **request.reading,
    )
    parts = {"train": dataset.train or None, "val": dataset.val, "test": dataset.test}
    there = {name: part for name, part in parts.items() if part is not None}
    if split == "all" or (split == "test" and dataset.test is None):
        chosen = Split(
            tuple(path for part in there.values() for path in part.paths),
            tuple(label for part in there.values() for label in part.labels),
        )
        events.say(f"{dataset.name}: all {counted(len(chosen), 'image')}.")
    elif split in there:
        chosen = there[split]
        events.say(f"{dataset.name}: the {counted(len(chosen), 'image')} of the {split} part.")
    else:
        raise DataError(
            f"'{display_name(request.data)}' has no {split} part; it has {' and '.join(there)}. Choose another "
            f"{called('split')}."
        )
    return dataset, chosen


def _held_out_then(request: EvaluateRequest | ZeroShotRequest, prompt: Path | None) -> ImageDataset | None:
    """The data set with the held-out part of the prompt's own fit; None when it was learned from something else."""
    if prompt is None or is_reference_checkpoint(prompt):
        return None
    made = describe(prompt).get("learned_from")
    if not isinstance(made, dict) or not made.get("held_out_made"):
        return None
    with warnings.catch_warnings(record=True) as held_back:
        warnings.simplefilter("always", CooptWarning)
        try:
            dataset = load_dataset(
                request.data,
                seed=made["seed"],
                test_fraction=made["test_fraction"],
                on_bad_image=request.on_bad_image,
                require_train=False,
                **request.reading,
            )
        except (DataError, KeyError, TypeError):
            return None  # the message of the second attempt, without the prompt's settings, is the right one
    if dataset.hash != made.get("hash"):
        return None
    for warning in held_back:
        warnings.warn(warning.message, stacklevel=2)
    return dataset


@contextmanager
def preprocessed(backbone: Backbone, name: str | None) -> Iterator[None]:
    """Within this context the backbone prepares images as the preprocessing of this name does."""
    usual = backbone.preprocessing
    if name is not None:
        backbone.preprocessing = usual.variant(name)
    try:
        yield
    finally:
        backbone.preprocessing = usual
