"""A path to a data set: a folder or a ZIP archive with one sub-folder per class, a CSV file, or a few-shot cache."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Literal

from coopt.data.archives import is_archive, is_folder
from coopt.data.class_names import ClassNames, renamed, warn_of_codes
from coopt.data.csv_columns import Columns
from coopt.data.csv_file import read_csv
from coopt.data.file_names import display_name
from coopt.data.folder import ClassFrom, read_folder, root_of_archive
from coopt.data.reference_cache import read_reference_cache
from coopt.data.splits import ImageDataset, Split, hold_out
from coopt.errors import DataError, ParameterError
from coopt.wording import counted, subject

DEFAULT_TEST_FRACTION = 0.2
TABLE_ENDINGS = (".csv", ".tsv")


def read_dataset(
    path: Path,
    seed: int = 1,
    test_fraction: float | int = DEFAULT_TEST_FRACTION,
    *,
    on_bad_image: Literal["fail", "skip"] = "fail",
    require_train: bool = True,
    class_names: ClassNames | None = None,
    class_from: ClassFrom | None = None,
    columns: Columns | None = None,
) -> ImageDataset | None:
    """The data set at a path; None when there is nothing that can be read as one.

    The arguments, and what is raised, are those of `load_dataset`.
    """
    columns = columns or Columns()
    if is_folder(path):
        kind = "archive" if is_archive(path) else "folder"
        refuse_for(f"the {kind} '{display_name(path)}'", **column_options(columns))
        root = root_of_archive(path) if is_archive(path) else path
        parts = read_folder(root, class_from, on_bad_image)
    elif path.is_file() and path.suffix.lower() in TABLE_ENDINGS:
        refuse_for(f"the CSV '{display_name(path)}'", class_from=class_from)
        parts, root = read_csv(path, on_bad_image, columns), path.parent
    elif path.is_file() and path.suffix.lower() == ".pkl":
        dataset = read_reference_cache(path)
        refuse_for(dataset.name, class_from=class_from, **column_options(columns))
        return dataset if class_names is None else renamed(dataset, class_names)
    else:
        return None
    name = display_name(path.resolve().stem if path.is_file() else path.resolve().name) or "data"
    dataset = _assemble(name, root, parts, seed, test_fraction, require_train)
    if class_names is None:
        warn_of_codes(dataset.class_names)
        return dataset
    return renamed(dataset, class_names)


def column_options(columns: Columns) -> dict[str, str | None]:
    """The parameters of `load_dataset` that name columns."""
    return {f"{name}_column": value for name, value in asdict(columns).items()}


def refuse_for(what: str, **given: str | None) -> None:
    """Refuses parameters that are for another kind of data set."""
    for name, value in given.items():
        if value is not None:
            kind = "a folder" if name == "class_from" else "a CSV"
            raise ParameterError(f"{subject(name, 'load_dataset')} is for {kind}, not for {what}. Leave it out.")


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
