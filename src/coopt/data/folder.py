"""A folder of images as a data set: one sub-folder per class, optionally train/ val/ test/ above."""

from __future__ import annotations

import unicodedata
import warnings
from pathlib import Path

from coopt.data.images import IMAGE_EXTENSIONS, display_name, unreadable, visible_entries, walk_images
from coopt.data.splits import Split
from coopt.errors import CooptWarning, DataError

PART_NAMES = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
}
"""Folder names (in lower case) that stand for a part of a data set."""


def read_folder(root: Path) -> dict[str, Split]:
    """The parts of a data set in a folder: {"train": ...} when the class folders lie directly in it.

    Raises:
        DataError: no images, no class folders, or two folders for one part or class.
    """
    try:
        folders = [entry for entry in visible_entries(root) if entry.is_dir()]
    except OSError as error:
        raise unreadable(root, error) from error
    parts = _part_folders(root, folders)
    if not parts:
        return {"train": _read_classes(root)}
    ignored = [folder.name for folder in folders if folder not in parts.values()]
    if ignored:
        warnings.warn(
            f"In '{display_name(root)}', the folders {_shown([folder.name for folder in parts.values()])} are taken "
            f"as parts of the data set, and {_shown(ignored)} are left out.",
            CooptWarning,
            stacklevel=4,
        )
    return {part: _read_classes(folder) for part, folder in parts.items()}


def _part_folders(root: Path, folders: list[Path]) -> dict[str, Path]:
    """The folders of the parts; empty when the folder names are class names ("train" beside "car" is a vehicle)."""
    named: dict[str, Path] = {}
    for folder in folders:
        part = PART_NAMES.get(folder.name.lower())
        if part is None:
            continue
        if part in named:
            raise DataError(
                f"'{display_name(root)}' has two folders for the {part} part: '{named[part].name}' and "
                f"'{folder.name}'. Expected one; rename or merge them."
            )
        named[part] = folder
    others = len(folders) - len(named)
    holds_classes = all(_has_class_folders(folder) for folder in named.values())
    if named and (others == 0 or (len(named) > 1 and holds_classes)):
        return {part: named[part] for part in ("train", "val", "test") if part in named}
    return {}


def _has_class_folders(folder: Path) -> bool:
    entries = visible_entries(folder)
    return any(entry.is_dir() for entry in entries) and not any(_is_image(entry) for entry in entries)


def _read_classes(folder: Path) -> Split:
    """The images below each sub-folder, sorted by class and path; the sub-folder's name is the class."""
    entries = visible_entries(folder)
    loose = [entry.name for entry in entries if not entry.is_dir() and _is_image(entry)]
    by_class: dict[str, list[Path]] = {}
    empty: list[str] = []
    for entry in entries:
        if not entry.is_dir():
            continue
        images = walk_images(entry)
        name = class_name_of(entry)
        if not images:
            empty.append(entry.name)
        elif name in by_class:
            raise DataError(
                f"Two folders in '{display_name(folder)}' give the class name {name!r}. Rename or merge them."
            )
        else:
            by_class[name] = images
    if not by_class:
        raise _nothing_found(folder, loose, empty)
    if loose:
        warnings.warn(
            f"{len(loose)} images lie directly in '{display_name(folder)}' and belong to no class: {_shown(loose)}. "
            "They are left out; move them into the folder of their class.",
            CooptWarning,
            stacklevel=5,
        )
    if empty:
        warnings.warn(
            f"Folders in '{display_name(folder)}' without images are left out: {_shown(empty)}.",
            CooptWarning,
            stacklevel=5,
        )
    if len(by_class) == 1:
        _refuse_wrapped(folder, next(iter(by_class)))
    labelled = [(path, name) for name in sorted(by_class) for path in by_class[name]]
    return Split(tuple(path for path, _ in labelled), tuple(name for _, name in labelled))


def _nothing_found(folder: Path, loose: list[str], empty: list[str]) -> DataError:
    if loose:
        what = f"has {len(loose)} images ({_shown(loose)}) but no sub-folder with images"
    elif empty:
        what = f"has {len(empty)} sub-folders ({_shown(empty)}), all without images"
    else:
        what = "is empty (or holds hidden files only)"
    return DataError(
        f"The folder '{display_name(folder)}' {what}. Expected one sub-folder per class with images ending in "
        f"{', '.join(sorted(IMAGE_EXTENSIONS))}."
    )


def _refuse_wrapped(folder: Path, only_class: str) -> None:
    """One class whose folder is full of folders is most often an unpacked archive with one folder too many."""
    inside = next(entry for entry in visible_entries(folder) if entry.is_dir() and class_name_of(entry) == only_class)
    below = [entry.name for entry in visible_entries(inside) if entry.is_dir()]
    if len(below) > 1 and _has_class_folders(inside):
        raise DataError(
            f"The folder '{display_name(folder)}' has only one class: {only_class!r}. Its own sub-folders are "
            f"{_shown(below)}: did you mean '{display_name(inside)}'?"
        )


def class_name_of(folder: Path) -> str:
    """The class name that a folder's name stands for: Unicode composed (macOS decomposes it), bad bytes escaped."""
    name = unicodedata.normalize("NFC", folder.name).strip()
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return display_name(name)
    return name


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS


def _shown(names: list[str], limit: int = 5) -> str:
    return ", ".join(f"'{display_name(name)}'" for name in names[:limit]) + (", ..." if len(names) > limit else "")
