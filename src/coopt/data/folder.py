"""A folder of images as a data set: one sub-folder per class, optionally train/ val/ test/ above."""

from __future__ import annotations

import unicodedata
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Literal

from coopt.data.file_names import display_name, shown_names
from coopt.data.finding import FolderEntry, PassedOver, entries_of, walk_images
from coopt.data.images import IMAGE_EXTENSIONS
from coopt.data.splits import Split
from coopt.data.text_files import visible
from coopt.errors import CooptWarning, DataError
from coopt.wording import counted, setting

ClassFrom = Literal["top", "parent", "path"]
"""Which folder names the class of "animals/cats/1.jpg": the top one ("animals"), the image's own ("cats"), or all of its
path ("animals cats")."""

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


def read_folder(
    root: Path, class_from: ClassFrom | None = None, on_bad_image: Literal["fail", "skip"] = "fail"
) -> dict[str, Split]:
    """The parts of a data set in a folder: {"train": ...} when the class folders lie directly in it.

    Args:
        root: the folder, or a ZIP archive.
        class_from: see `ClassFrom`; None: "top", and folders within class folders are spoken of.
        on_bad_image: "skip" leaves out folders that may not be read.

    Raises:
        DataError: no images, no class folders, two folders for one part or class, or a folder that may not be read.
    """
    folders = [entry.path for entry in entries_of(root) if entry.is_folder]
    parts = _part_folders(root, folders)
    passed_over = PassedOver(refuse_folders=on_bad_image == "fail")
    ignored = [folder.name for folder in folders if folder not in parts.values()]
    if parts and ignored:
        taken = shown_names([folder.name for folder in parts.values()])
        _warn(
            f"In '{display_name(root)}', the folders {taken} are taken as parts of the data set, and {shown_names(ignored)} are "
            "left out."
        )
    splits = {
        part: _read_classes(folder, class_from, passed_over) for part, folder in (parts or {"train": root}).items()
    }
    passed_over.warn(stacklevel=4)
    return splits


def root_of_archive(archive: Path) -> Path:
    """The folder in a ZIP archive that holds the classes or parts: most have one folder around all that is in them."""
    root, entries = archive, entries_of(archive)
    while len(folders := [entry.path for entry in entries if entry.is_folder]) == 1:
        if folders[0].name.lower() in PART_NAMES or any(entry.is_image for entry in entries):
            break
        if not _has_class_folders(folders[0]):
            break
        root, entries = folders[0], entries_of(folders[0])
    return root


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
    entries = entries_of(folder)
    return any(entry.is_folder for entry in entries) and not any(_is_image(entry.path) for entry in entries)


def _read_classes(folder: Path, class_from: ClassFrom | None, passed_over: PassedOver) -> Split:
    """The images below each sub-folder, sorted by class and path."""
    entries = entries_of(folder)
    loose = [entry.path.name for entry in entries if entry.is_image]
    for entry in entries:
        if not entry.is_folder:
            passed_over.add(entry.path)
    images_in: dict[Path, list[Path]] = {}
    empty: list[str] = []
    for path in _class_folders(folder, entries):
        images = walk_images(path, passed_over)
        if images:
            images_in[path] = images
        else:
            empty.append(path.name)
    if not images_in:
        raise _nothing_found(folder, loose, empty, passed_over)
    if loose:
        _warn(
            f"Left out, being directly in '{display_name(folder)}' and so of no class: {counted(len(loose), 'image')} "
            f"({shown_names(loose)}). Move images into the folder of their class."
        )
    if empty:
        _warn(f"Folders in '{display_name(folder)}' without images are left out: {shown_names(empty)}.")
    by_class = _by_class(folder, images_in, class_from or "top")
    if len(by_class) == len(images_in) == 1:
        _refuse_wrapped(folder, next(iter(images_in)))
    if class_from is None:
        _say_nested(folder, images_in)
    labelled = [(path, name) for name in sorted(by_class) for path in by_class[name]]
    return Split(tuple(path for path, _ in labelled), tuple(name for _, name in labelled))


def _class_folders(folder: Path, entries: list[FolderEntry]) -> list[Path]:
    """The sub-folders, without links to a folder that holds them; says when two are one and the same."""
    here = folder.resolve()
    chosen: list[Path] = []
    by_target: dict[Path, Path] = {}
    for path, is_folder, is_link in entries:
        if not is_folder:
            continue
        target = path.resolve()
        if is_link and (target == here or target in here.parents):
            _warn(f"'{display_name(path)}' is a link to a folder that holds it, and no class: it is left out.")
            continue
        same = by_target.setdefault(target, path)
        if same != path:
            _warn(
                f"'{same.name}' and '{path.name}' in '{display_name(folder)}' are one folder (a link), so its images "
                "have both classes. Remove the link if that is not meant."
            )
        chosen.append(path)
    return chosen


def _by_class(folder: Path, images_in: dict[Path, list[Path]], class_from: ClassFrom) -> dict[str, list[Path]]:
    """The images of each class."""
    by_class: dict[str, list[Path]] = {}
    named_by: dict[str, Path] = {}
    for top, images in images_in.items():
        for image in images:
            holder = top if class_from == "top" else image.parent
            if class_from == "path":
                name = " ".join(_class_name(folder / part) for part in holder.relative_to(folder).parts)
            else:
                name = _class_name(holder)
            # Folders of one name in different places ("2023/cat", "2024/cat") are one class to "parent" alone.
            if class_from != "parent" and named_by.setdefault(name, holder) != holder:
                raise DataError(
                    f"Two folders in '{display_name(folder)}' give the class name {name!r}. Rename or merge them."
                )
            by_class.setdefault(name, []).append(image)
    return by_class


def _say_nested(folder: Path, images_in: dict[Path, list[Path]]) -> None:
    """Says that folders within class folders are no classes, unless all are called alike ("cat/images/1.jpg")."""
    nested = {
        top.name: sorted({image.relative_to(top).parts[0] for image in images if image.parent != top})
        for top, images in images_in.items()
    }
    if len({name for names in nested.values() for name in names}) < 2:
        return
    top, below = max(nested.items(), key=lambda item: len(item[1]))
    others = ", and so on" if sum(1 for names in nested.values() if names) > 1 else ""
    _warn(
        f"In '{display_name(folder)}', images in folders within a class folder belong to that class: those of "
        f"{shown_names(below)} to '{display_name(top)}'{others}. If the inner folders are the classes, add "
        f"{setting('class_from', 'parent')}; if all is right, {setting('class_from', 'top')}."
    )


def _nothing_found(folder: Path, loose: list[str], empty: list[str], passed_over: PassedOver) -> DataError:
    if loose:
        what = f"has {counted(len(loose), 'image')} ({shown_names(loose)}) but no sub-folder with images"
    elif empty:
        what = f"has {counted(len(empty), 'sub-folder')} ({shown_names(empty)}) and no images"
    else:
        what = "is empty (or holds hidden files only)"
    return DataError(
        f"The folder '{display_name(folder)}' {what}. Expected one sub-folder per class with images ending in "
        f"{', '.join(sorted(IMAGE_EXTENSIONS))}." + (f" {passed_over.files}" if passed_over.files else "")
    )


def _refuse_wrapped(folder: Path, inside: Path) -> None:
    """One class whose folder is full of folders is most often an unpacked archive with one folder too many."""
    below = [entry.path.name for entry in entries_of(inside) if entry.is_folder]
    if len(below) > 1 and _has_class_folders(inside):
        raise DataError(
            f"The folder '{display_name(folder)}' has only one class: {class_name_of(inside)!r}. Its own sub-folders are "
            f"{shown_names(below)}: did you mean '{display_name(inside)}'?"
        )


def _class_name(folder: Path) -> str:
    name = class_name_of(folder)
    if not name:
        raise DataError(
            f"The folder '{_escaped(folder.name)}' has a name of blanks and invisible characters only, which is no class "
            "name. Rename it."
        )
    return name


def _escaped(name: str) -> str:
    return name.encode("unicode_escape").decode("ascii")


@lru_cache(maxsize=1024)
def class_name_of(folder: Path) -> str:
    """The class name that a folder's name stands for: Unicode composed (macOS decomposes it), bad bytes escaped.

    Blanks and invisible characters around it are taken off; nothing is left of a name that has no others.
    """
    name = visible(unicodedata.normalize("NFC", folder.name))
    try:
        name.encode("utf-8")
    except UnicodeEncodeError:
        return display_name(name)
    return name


def _warn(message: str) -> None:
    warnings.warn(message, CooptWarning, stacklevel=7)


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_EXTENSIONS
