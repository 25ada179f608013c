"""Few-shot samples: which images a learner may see. The same numbers as the papers' code, from the same seeds.

CoOp (IJCV 2022) draws with Python's generator, its linear probe with numpy's; both group the images by class and take k
of each, the training part first and the validation part after it, on the same stream.
"""

from __future__ import annotations

import math
import random
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np

from coopt.data.benchmarks.few_shot_cache import cached_or_drawn
from coopt.data.file_names import display_name
from coopt.data.splits import ImageDataset, Split
from coopt.errors import DataError, FewShotsWarning, ParameterError

MAX_VAL_SHOTS = 4
"""Validation images per class are as many as the shots, but never more than this."""

_Label = TypeVar("_Label", bound=Hashable)


def few_shot_indices(
    train_labels: Sequence[Hashable], val_labels: Sequence[Hashable], shots: int, seed: int
) -> tuple[list[int], list[int]]:
    """Which images of the training and the validation part make the few-shot sample.

    A class with fewer images than asked for gives them all. Classes come in the order in which they first appear.

    Args:
        train_labels: class of each training image, in the order of the split.
        val_labels: the same for the validation part; may be empty.
        shots: images per class, at least 1.
        seed: of the draw.

    Raises:
        ParameterError: shots is below 1.
    """
    _check_shots(shots)
    rng = random.Random(seed)
    return _draw(train_labels, shots, rng), _draw(val_labels, min(shots, MAX_VAL_SHOTS), rng)


def _draw(labels: Sequence[Hashable], shots: int, rng: random.Random) -> list[int]:
    chosen: list[int] = []
    for indices in _by_label(labels).values():
        # Nothing is drawn from the stream for a class that is taken whole: the reference does so too.
        chosen += rng.sample(indices, shots) if len(indices) >= shots else indices
    return chosen


def _by_label(labels: Sequence[_Label]) -> dict[_Label, list[int]]:
    grouped: dict[_Label, list[int]] = {}
    for i, label in enumerate(labels):
        grouped.setdefault(label, []).append(i)
    return grouped


def few_shot(dataset: ImageDataset, shots: int, seed: int) -> ImageDataset:
    """The data set with `shots` training images per class (and at most 4 validation images); the test part stays whole.

    A sample that the reference implementation cached beside one of the papers' data sets is taken where it fits.
    Warns (FewShotsWarning) of classes that have fewer training images than that.

    Raises:
        ParameterError: shots is below 1.
    """
    val = Split((), ()) if dataset.val is None else dataset.val
    train_indices, val_indices = few_shot_indices(dataset.train.labels, val.labels, shots, seed)
    _warn_of_few(dataset.train.labels, shots)
    drawn = replace(
        dataset,
        train=dataset.train.take(train_indices),
        val=None if dataset.val is None else val.take(val_indices),
    )
    return cached_or_drawn(dataset, drawn, shots, seed)


def _warn_of_few(labels: Sequence[str], shots: int) -> None:
    few = [f"{display_name(name)} ({len(i)})" for name, i in _by_label(labels).items() if len(i) < shots]
    if few:
        warnings.warn(
            f"Fewer than {shots} training images in {', '.join(few[:10])}"
            f"{f', ... ({len(few)} classes)' if len(few) > 10 else ''}: all they have are used.",
            FewShotsWarning,
            stacklevel=3,
        )


def linear_probe_indices(
    train_labels: Sequence[int] | np.ndarray, val_labels: Sequence[int] | np.ndarray, shots: int, seed: int
) -> tuple[list[int], list[int]]:
    """Which images CoOp's linear-probe baseline learns from and tunes its regulariser on.

    It draws otherwise than `few_shot_indices`: classes in ascending order, by numpy's old global generator.

    Raises:
        ParameterError: shots is below 1.
    """
    _check_shots(shots)
    rng = np.random.RandomState(seed)

    def draw(labels: np.ndarray, count: int) -> list[int]:
        chosen: list[int] = []
        for label in np.unique(labels):
            indices = np.flatnonzero(labels == label)
            chosen += rng.choice(indices, min(count, len(indices)), replace=False).tolist()
        return chosen

    return draw(np.asarray(train_labels), shots), draw(np.asarray(val_labels), min(shots, MAX_VAL_SHOTS))


def _check_shots(shots: int) -> None:
    if isinstance(shots, bool) or shots < 1:
        raise ParameterError(f"The 'shots' parameter must be an int >= 1. Got {shots!r} instead.")


@dataclass(frozen=True)
class BaseNewClasses:
    """The classes of base-to-new generalisation.

    Attributes:
        base: classes to learn from (the first half, rounded up); a class's new label is its place here.
        new: classes to generalise to, likewise.
    """

    base: tuple[int, ...]
    new: tuple[int, ...]


def base_and_new(labels: Sequence[int] | np.ndarray) -> BaseNewClasses:
    """The labels that occur, sorted, cut in halves (CoCoOp, CVPR 2022).

    Raises:
        DataError: fewer than two classes.
    """
    classes = sorted({int(label) for label in labels})
    if len(classes) < 2:
        raise DataError(f"Base-to-new needs at least two classes. Got {len(classes)}.")
    middle = math.ceil(len(classes) / 2)
    return BaseNewClasses(tuple(classes[:middle]), tuple(classes[middle:]))


def base_to_new(dataset: ImageDataset) -> tuple[ImageDataset, ImageDataset]:
    """The data set as two: its base classes and its new ones, each with all its parts. Sample (`few_shot`) before.

    The halves go by the order of `class_names`.

    Raises:
        DataError: fewer than two classes.
    """
    index = {name: i for i, name in enumerate(dataset.class_names)}
    halves = base_and_new([index[label] for label in dataset.train.labels])

    def only(classes: tuple[int, ...], half: str) -> ImageDataset:
        names = tuple(dataset.class_names[i] for i in classes)
        return replace(
            dataset,
            name=f"{dataset.name} ({half})",
            class_names=names,
            train=_only(dataset.train, names),
            val=None if dataset.val is None else _only(dataset.val, names),
            test=None if dataset.test is None else _only(dataset.test, names),
        )

    return only(halves.base, "base"), only(halves.new, "new")


def _only(split: Split, names: tuple[str, ...]) -> Split:
    wanted = set(names)
    return split.take([i for i, label in enumerate(split.labels) if label in wanted])
