"""Learned prompts and data for the commands that use them."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from coopt.backbones import Backbone
from coopt.cli.options import AS_USUAL, DataReading
from coopt.cli.output import Output
from coopt.cli.where import Where
from coopt.data import ImageDataset, Split, display_name, load_dataset
from coopt.errors import CooptWarning, DataError, ParameterError
from coopt.methods.base import ClipClassifier
from coopt.methods.reference_checkpoint import is_reference_checkpoint, load_reference_checkpoint
from coopt.methods.saving import describe, load
from coopt.wording import counted


def load_prompt(prompt: Path, where: Where, class_names: Sequence[str] | None = None) -> ClipClassifier:
    """A saved prompt or a reference checkpoint, with its own classes unless others are given.

    Raises:
        CooptError: see `coopt.load`.
    """
    estimator = _load_prompt(prompt, where, class_names)
    if where.value_range is not None:
        estimator.backbone_ = estimator.backbone_.with_value_range(where.value_range)
    return estimator


def _load_prompt(prompt: Path, where: Where, class_names: Sequence[str] | None) -> ClipClassifier:
    if is_reference_checkpoint(prompt):
        position: Any = where.position or "end"
        return load_reference_checkpoint(
            prompt,
            where.backbone,
            class_names,
            where.device,
            where.download,
            position=position,
            precision=where.precision or "fp32",
        )
    if where.position is not None:
        raise ParameterError(
            f"'{display_name(prompt)}' says itself where the class name stands. Leave out --position, which is for "
            "checkpoints of the reference implementation."
        )
    return load(prompt, where.backbone, where.device, class_names, where.download, where.precision)


def load_split(
    data: Path,
    split: str,
    prompt: Path | None,
    on_bad_image: Any,
    output: Output,
    root: Path | None = None,
    reading: DataReading = AS_USUAL,
) -> tuple[ImageDataset, Split]:
    """The images to measure on, and the data set they are of; says which they are.

    A prompt that `coopt fit` learned from these very images is measured on those that were held out then.

    Raises:
        DataError: no images, or no such part.
    """
    held_out = _held_out_then(data, prompt, on_bad_image, reading) if split == "test" else None
    if held_out is not None and held_out.test is not None:
        output.say(
            f"{held_out.name}: the {counted(len(held_out.test), 'image')} held out when the prompt was learned from "
            "this data. (--split all takes all of them.)"
        )
        return held_out, held_out.test
    dataset = load_dataset(
        data, test_fraction=0, root=root, on_bad_image=on_bad_image, require_train=False, **reading.of_dataset
    )
    parts = {"train": dataset.train or None, "val": dataset.val, "test": dataset.test}
    there = {name: part for name, part in parts.items() if part is not None}
    if split == "all" or (split == "test" and dataset.test is None):
        chosen = Split(
            tuple(path for part in there.values() for path in part.paths),
            tuple(label for part in there.values() for label in part.labels),
        )
        output.say(f"{dataset.name}: all {counted(len(chosen), 'image')}.")
    elif split in there:
        chosen = there[split]
        output.say(f"{dataset.name}: the {counted(len(chosen), 'image')} of the {split} part.")
    else:
        raise DataError(
            f"'{display_name(data)}' has no {split} part; it has {' and '.join(there)}. Choose another --split."
        )
    return dataset, chosen


def _held_out_then(data: Path, prompt: Path | None, on_bad_image: Any, reading: DataReading) -> ImageDataset | None:
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
                data,
                seed=made["seed"],
                test_fraction=made["test_fraction"],
                on_bad_image=on_bad_image,
                require_train=False,
                **reading.of_dataset,
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
