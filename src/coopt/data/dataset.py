"""Data sets on disk to paths and class names: folders with one sub-folder per class, CSV files, the papers' data sets.

`load_dataset` is the way in. What it decides for the user (a held-out part, what was left out) it says: as warnings,
and in `ImageDataset.notes`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import asdict, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from coopt.data.benchmarks.registry import known_names, load_named
from coopt.data.bundled import PREFIX, bundled_datasets, load_bundled
from coopt.data.class_names import ClassNames, renamed, warn_of_codes
from coopt.data.csv_columns import Columns
from coopt.data.csv_file import read_csv
from coopt.data.file_kinds import no_data_set
from coopt.data.finding import visible_entries
from coopt.data.folder import ClassFrom, read_folder
from coopt.data.images import IMAGE_EXTENSIONS, display_name
from coopt.data.reference_cache import read_reference_cache
from coopt.data.splits import ImageDataset, Split, hold_out
from coopt.errors import DataError, ParameterError
from coopt.wording import counted, subject

DEFAULT_TEST_FRACTION = 0.2


def load_dataset(
    path: str | os.PathLike[str],
    seed: int = 1,
    test_fraction: float | int = DEFAULT_TEST_FRACTION,
    *,
    root: str | os.PathLike[str] | None = None,
    on_bad_image: Literal["fail", "skip"] = "fail",
    require_train: bool = True,
    class_names: ClassNames | None = None,
    class_from: ClassFrom | None = None,
    path_column: str | None = None,
    label_column: str | None = None,
    split_column: str | None = None,
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
        on_bad_image: "fail" when a file that a CSV or a split names is missing or a folder may not be read, or "skip" it
            with a warning.
        require_train: False to evaluate: a data set of a test part only, or of one class, is accepted then.
        class_names: names for classes whose folders or labels are numbers or codes: a mapping, such as
            {"n01440764": "tench"}; a list in the order of the sorted folders; or a file of either (JSON, CSV or text).
        class_from: of a folder: which folder of "animals/cats/1.jpg" names its class, "top" (animals), "parent" (cats)
            or "path" (animals cats); None: "top", and that there are folders within class folders is said.
        path_column: of a CSV: what the column of paths is called; None: path, or another usual name such as file_name.
        label_column: the same of labels; None: label, or another usual name such as class.
        split_column: the same of parts; None: split, or another usual name.

    Raises:
        DataError: what is there cannot be used; the message says why.
        ParameterError: a parameter out of its range, or one that is for another kind of data set.
    """
    _check_parameters(test_fraction, on_bad_image, class_from)
    columns = Columns(path_column, label_column, split_column)
    dataset = _named(os.fspath(path), root, on_bad_image, require_train)
    if dataset is not None:
        _refuse_for(dataset.name, class_from=class_from, **_options_of(columns))
    else:
        path = Path(path)
        if path.is_dir():
            _refuse_for(f"the folder '{display_name(path)}'", **_options_of(columns))
            parts, root = read_folder(path, class_from, on_bad_image), path
        elif path.is_file() and path.suffix.lower() in (".csv", ".tsv"):
            _refuse_for(f"the CSV '{display_name(path)}'", class_from=class_from)
            parts, root = read_csv(path, on_bad_image, columns), path.parent
        else:
            raise _no_dataset(path)
        name = display_name(path.resolve().stem if path.is_file() else path.resolve().name) or "data"
        dataset = _assemble(name, root, parts, seed, test_fraction, require_train)
        if class_names is None:
            warn_of_codes(dataset.class_names)
    return dataset if class_names is None else renamed(dataset, class_names)


def _named(
    name: str, root: str | os.PathLike[str] | None, on_bad_image: Literal["fail", "skip"], require_train: bool
) -> ImageDataset | None:
    """A data set that needs no reading of folders or CSVs; None when `name` is a path of such."""
    if name.startswith(PREFIX):
        return load_bundled(name)
    named = load_named(name, root, on_bad_image)
    if named is not None:
        if require_train and not named.train.paths:
            raise DataError(f"{named.name} has a test part only: learn from another data set and measure on this one.")
        return named
    path = Path(name)
    return read_reference_cache(path) if path.suffix.lower() == ".pkl" and path.is_file() else None


def _options_of(columns: Columns) -> dict[str, str | None]:
    return {f"{name}_column": value for name, value in asdict(columns).items()}


def _refuse_for(what: str, **given: str | None) -> None:
    """Refuses parameters that are for another kind of data set."""
    for name, value in given.items():
        if value is not None:
            kind = "a folder" if name == "class_from" else "a CSV"
            raise ParameterError(f"{subject(name, 'load_dataset')} is for {kind}, not for {what}. Leave it out.")


def _no_dataset(path: Path) -> DataError:
    what = "does not exist"
    if path.exists():
        kind = no_data_set(path, IMAGE_EXTENSIONS)
        what = "is not a folder or a CSV" if kind is None else f"is {kind}"
    return DataError(
        f"'{display_name(path)}' {what}. {_meant(path)}Expected a folder with one sub-folder of images per class "
        "(optionally train/ val/ test/ above them), a CSV file with the columns path,label (optionally split), or "
        "bundled:NAME or another name that `coopt datasets` lists."
    )


def _meant(path: Path) -> str:
    """What may have been meant by a path that does not exist, as a question; empty when nothing is near."""
    if path.exists():
        return ""
    names = {one.name.lower(): f"{PREFIX}{one.name}" for one in bundled_datasets()}
    names |= {name.lower(): name for name in known_names()}
    near = {}
    if path.parent.is_dir():
        with suppress(DataError):
            near = {one.name.lower(): one for one in visible_entries(path.parent) if _may_be_data(one)}
    typed = path.name.lower()
    close = [names[name] for name in get_close_matches(typed, names, n=2, cutoff=0.75) if path.parent == Path()]
    found = [near[name] for name in get_close_matches(typed, near, n=2, cutoff=0.75)]
    close += [f"the {'folder' if one.is_dir() else 'file'} '{display_name(one)}'" for one in found]
    return f"Did you mean {' or '.join(close)}? " if close else ""


def _may_be_data(path: Path) -> bool:
    return path.is_dir() or path.suffix.lower() in (".csv", ".tsv")


def _check_parameters(test_fraction: float | int, on_bad_image: str, class_from: str | None = None) -> None:
    if class_from not in (None, "top", "parent", "path"):
        raise ParameterError(
            f"{subject('class_from', 'load_dataset')} must be 'top', 'parent' or 'path'. Got {class_from!r} instead."
        )
    if not 0 <= test_fraction < 1:
        raise ParameterError(
            f"{subject('test_fraction', 'load_dataset')} must be >= 0 and < 1. Got {test_fraction!r} instead."
        )
    if on_bad_image not in ("fail", "skip"):
        raise ParameterError(
            f"{subject('on_bad_image', 'load_dataset')} must be 'fail' or 'skip'. Got {on_bad_image!r} instead."
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
        note = f"There is no test part, so the val part serves as one ({counted(len(val), 'image')})."
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
