"""Data sets to paths and class names: by name, from folders or archives with one sub-folder per class, from CSV files.

`load_dataset` is the way in. What it decides for the user (a held-out part, what was left out) it says: as warnings,
and in `ImageDataset.notes`.
"""

from __future__ import annotations

import os
from contextlib import suppress
from difflib import get_close_matches
from pathlib import Path
from typing import Literal

from coopt.data.archives import ENDING
from coopt.data.benchmarks.registry import known_names, load_named
from coopt.data.bundled import PREFIX, bundled_datasets, hard_datasets, load_bundled
from coopt.data.class_names import ClassNames, renamed
from coopt.data.csv_columns import Columns
from coopt.data.file_kinds import no_data_set
from coopt.data.file_names import display_name
from coopt.data.finding import entries_of
from coopt.data.folder import ClassFrom
from coopt.data.images import IMAGE_EXTENSIONS
from coopt.data.reading import DEFAULT_TEST_FRACTION, TABLE_ENDINGS, column_options, read_dataset, refuse_for
from coopt.data.splits import ImageDataset, Split, hold_out
from coopt.errors import DataError, ParameterError
from coopt.wording import subject


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
    """A data set by its name, from a folder or a ZIP archive with one sub-folder per class, or from a CSV.

    Without a test part, the val part serves as one; without either, a part of each class is held out.

    Args:
        path: the folder (optionally with train/ val/ test/ above the classes), an archive of it (photos.zip, which is read
            where it is) or the CSV; one of the papers' data sets ("caltech101", see `coopt datasets`) or a registered one; "bundled:NAME" for one that comes with the
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
    named = _named(os.fspath(path), root, on_bad_image, require_train)
    if named is not None:
        refuse_for(named.name, class_from=class_from, **column_options(columns))
        return named if class_names is None else renamed(named, class_names)
    dataset = read_dataset(
        Path(path),
        seed,
        test_fraction,
        on_bad_image=on_bad_image,
        require_train=require_train,
        class_names=class_names,
        class_from=class_from,
        columns=columns,
    )
    if dataset is None:
        raise _no_dataset(Path(path))
    return dataset


def _named(
    name: str, root: str | os.PathLike[str] | None, on_bad_image: Literal["fail", "skip"], require_train: bool
) -> ImageDataset | None:
    """A data set that is asked for by its name; None when `name` is a path."""
    if name.startswith(PREFIX):
        return load_bundled(name)
    named = load_named(name, root, on_bad_image)
    if named is not None and require_train and not named.train.paths:
        raise DataError(f"{named.name} has a test part only: learn from another data set and measure on this one.")
    return named


def _no_dataset(path: Path) -> DataError:
    what = "does not exist"
    if path.exists():
        kind = no_data_set(path, IMAGE_EXTENSIONS)
        what = "is not a folder or a CSV" if kind is None else f"is {kind}"
    return DataError(
        f"'{display_name(path)}' {what}. {_meant(path)}Expected a folder with one sub-folder of images per class "
        "(optionally train/ val/ test/ above them), a ZIP archive of such a folder, a CSV file with the columns path,label "
        "(optionally split), or bundled:NAME or another name that `coopt datasets` lists."
    )


def _meant(path: Path) -> str:
    """What may have been meant by a path that does not exist, as a question; empty when nothing is near."""
    if path.exists():
        return ""
    names = {one.name.lower(): f"{PREFIX}{one.name}" for one in (*bundled_datasets(), *hard_datasets())}
    names |= {name.lower(): name for name in known_names()}
    near = {}
    if path.parent.is_dir():
        with suppress(DataError):
            near = {
                one.name.lower(): one for one, is_folder, _ in entries_of(path.parent) if is_folder or _is_data(one)
            }
    typed = path.name.lower()
    close = [names[name] for name in get_close_matches(typed, names, n=2, cutoff=0.75) if path.parent == Path()]
    paths = [near[name] for name in get_close_matches(typed, near, n=2, cutoff=0.75)]
    close += [f"the {'folder' if one.is_dir() else 'file'} '{display_name(one)}'" for one in paths]
    return f"Did you mean {' or '.join(close)}? " if close else ""


def _is_data(file: Path) -> bool:
    return file.suffix.lower() in (*TABLE_ENDINGS, ENDING)


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


__all__ = ["DEFAULT_TEST_FRACTION", "ImageDataset", "Split", "hold_out", "load_dataset"]
