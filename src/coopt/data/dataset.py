"""Data sets on disk to paths and class names: folders with one sub-folder per class, CSV files, the papers' data sets.

`load_dataset` is the way in. What it decides for the user (a held-out part, what was left out) it says: as warnings,
and in `ImageDataset.notes`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Literal

from coopt.data.benchmarks.registry import load_named
from coopt.data.bundled import PREFIX, load_bundled
from coopt.data.csv_file import read_csv
from coopt.data.folder import read_folder
from coopt.data.images import display_name
from coopt.data.reference_cache import read_reference_cache
from coopt.data.splits import ImageDataset, Split, hold_out
from coopt.errors import DataError, ParameterError

DEFAULT_TEST_FRACTION = 0.2


def load_dataset(
    path: str | os.PathLike[str],
    seed: int = 1,
    test_fraction: float | int = DEFAULT_TEST_FRACTION,
    *,
    root: str | os.PathLike[str] | None = None,
    on_bad_image: Literal["fail", "skip"] = "fail",
    require_train: bool = True,
) -> ImageDataset:
    """A data set by its name, from a folder with one sub-folder per class, or from a CSV.

    Without a test part, the val part serves as one; without either, a part of each class is held out.

    Args:
        path: the folder (optionally with train/ val/ test/ above the classes) or the CSV; one of the papers' data sets
            ("caltech101", see `coopt datasets`) or a registered one; "bundled:NAME" for one that comes with the
            package; or a few-shot cache (.pkl) of CoOp's reference implementation, taken as it is.
        seed: of the held-out part.
        test_fraction: of each class, when a part is held out; 0 holds nothing out.
        root: the folder that holds the papers' data sets; None: what the variable COOPT_DATA_ROOT names.
        on_bad_image: "fail" when a file that a CSV or a split names is missing, or "skip" it with a warning.
        require_train: False to evaluate: a data set of a test part only, or of one class, is accepted then.

    Raises:
        DataError: what is there cannot be used; the message says why.
        ParameterError: a parameter out of its range.
    """
    _check_parameters(test_fraction, on_bad_image)
    if os.fspath(path).startswith(PREFIX):
        return load_bundled(os.fspath(path))
    named = load_named(os.fspath(path), root, on_bad_image)
    if named is not None:
        if require_train and not named.train.paths:
            raise DataError(f"{named.name} has a test part only: learn from another data set and measure on this one.")
        return named
    path = Path(path)
    if path.suffix.lower() == ".pkl" and path.is_file():
        return read_reference_cache(path)
    if path.is_dir():
        parts = read_folder(path)
        root = path
    elif path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
        parts = read_csv(path, on_bad_image)
        root = path.parent
    else:
        what = "is not a folder or a CSV" if path.exists() else "does not exist"
        raise DataError(
            f"'{display_name(path)}' {what}. Expected a folder with one sub-folder of images per class (optionally "
            "train/ val/ test/ above them), a CSV file with the columns path,label (optionally split), or bundled:NAME "
            "or another name that `coopt datasets` lists."
        )
    name = display_name(path.resolve().stem if path.is_file() else path.resolve().name) or "data"
    return _assemble(name, root, parts, seed, test_fraction, require_train)


def _check_parameters(test_fraction: float | int, on_bad_image: str) -> None:
    if not 0 <= test_fraction < 1:
        raise ParameterError(
            f"The 'test_fraction' parameter of load_dataset must be >= 0 and < 1. Got {test_fraction!r} instead."
        )
    if on_bad_image not in ("fail", "skip"):
        raise ParameterError(
            f"The 'on_bad_image' parameter of load_dataset must be 'fail' or 'skip'. Got {on_bad_image!r} instead."
        )


def _assemble(
    name: str, root: Path, parts: dict[str, Split], seed: int, test_fraction: float | int, require_train: bool
) -> ImageDataset:
    """The parts, checked, with a held-out part when there is none."""
    train, val, test = parts.get("train", Split((), ())), parts.get("val"), parts.get("test")
    if require_train and not train.paths:
        raise DataError(f"'{name}' has no training images. Expected a train part, or images without parts.")
    everything = [split for split in (train, val, test) if split is not None]
    sources = [train] if train.paths else everything
    class_names = tuple(sorted({label for split in sources for label in split.labels}))
    if not class_names:
        raise DataError(
            f"'{name}' has no images. Expected one sub-folder of images per class, or a CSV that names them."
        )
    if require_train and len(class_names) < 2:
        raise DataError(
            f"'{name}' has only one class: {next(iter(class_names))!r}. Expected at least two, "
            "one sub-folder (or label) each."
        )
    for part, split in (("val", val), ("test", test)):
        _check_known(part, split, class_names)
    dataset = ImageDataset(name, root, class_names, train, val, test)
    if test is not None:
        return dataset
    if val is not None:
        note = f"There is no test part, so the {len(val)} images of the val part serve as held-out images."
        return replace(dataset, val=None, test=val, notes=(note,))
    return hold_out(dataset, test_fraction, seed) if train.paths and test_fraction > 0 else dataset


def _check_known(part: str, split: Split | None, class_names: tuple[str, ...]) -> None:
    unknown = sorted(set(split.labels) - set(class_names)) if split is not None else []
    if unknown:
        shown = ", ".join(map(repr, unknown[:5])) + (", ..." if len(unknown) > 5 else "")
        raise DataError(
            f"The {part} part has {len(unknown)} classes that the train part does not have: {shown}. "
            "Add training images of them, or take them out (are they spelled alike?)."
        )


__all__ = ["DEFAULT_TEST_FRACTION", "ImageDataset", "Split", "hold_out", "load_dataset"]
