"""Few-shot samples that the reference implementation cached beside a data set, where they agree with it."""

from __future__ import annotations

import re
import warnings
from dataclasses import replace
from typing import TYPE_CHECKING

from coopt.data.file_names import display_name
from coopt.data.splits import ImageDataset, Split, relative_name
from coopt.errors import CooptWarning, DataError, SavedFileError

if TYPE_CHECKING:
    from coopt.safe_pickle import Datum


def cached_or_drawn(dataset: ImageDataset, drawn: ImageDataset, shots: int, seed: int) -> ImageDataset:
    """The sample of `shot_{shots}-seed_{seed}.pkl` where there is one that fits (otherwise a warning says why), or `drawn`.

    It fits when each of its images is in the same part of the data set with the same label, and each class has as many
    as in `drawn`. The old absolute paths in it are matched by their ends.

    Args:
        dataset: the whole data set.
        drawn: its sample as the seed gives it.
        shots: training images per class.
        seed: of the sample.
    """
    if dataset.few_shot_caches is None:
        return drawn
    file = dataset.few_shot_caches / f"shot_{shots}-seed_{seed}.pkl"
    if not file.is_file():
        return drawn
    from coopt import safe_pickle  # it needs torch

    try:
        cached = safe_pickle.load_datums(file)
        train = _matched(cached.get("train", []), dataset, dataset.train, drawn.train)
        val = drawn.val
        if dataset.val is not None and val is not None and "val" in cached:  # ImageNet's caches have none
            val = _matched(cached["val"], dataset, dataset.val, val)
    except (SavedFileError, DataError) as error:
        warnings.warn(
            f"The few-shot cache '{display_name(file)}' is not used: {error} The sample is drawn from the seed.",
            CooptWarning,
            stacklevel=3,
        )
        return drawn
    note = f"The few-shot sample is that of '{display_name(file)}'."
    return replace(drawn, train=train, val=val, notes=(*drawn.notes, note))


def _matched(datums: list[Datum], dataset: ImageDataset, split: Split, drawn: Split) -> Split:
    """The images of one part that a cache names.

    Raises:
        DataError: they are no sample of it.
    """
    position = {relative_name(path, dataset.root): i for i, path in enumerate(split.paths)}
    chosen: list[int] = []
    for datum in datums:
        parts = re.split(r"[/\\]", datum.impath)
        ends = ("/".join(parts[start:]) for start in range(len(parts)))
        i = next((position[end] for end in ends if end in position), None)
        if i is None:
            raise DataError(f"'{display_name(datum.impath)}' is not in that part of the data set.")
        if dataset.class_names[datum.label : datum.label + 1] != (split.labels[i],):
            raise DataError(f"'{display_name(datum.impath)}' has label {datum.label} there, another one here.")
        chosen.append(i)
    if len(set(chosen)) < len(chosen):
        raise DataError("it names an image twice.")
    sample = split.take(chosen)
    if sample.counts != drawn.counts:
        raise DataError(f"it has {len(sample)} images where {len(drawn)} are drawn, or other numbers per class.")
    return sample
