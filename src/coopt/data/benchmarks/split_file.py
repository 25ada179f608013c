"""Split files of the papers: `split_zhou_<data set>.json`, and what their content must fulfil.

{"train": [[path, label, class name], ...], "val": ..., "test": ...}, paths counted from the folder of the images.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from coopt.data.file_names import display_name
from coopt.data.text_files import decode_text
from coopt.errors import DataError
from coopt.files import write_bytes

PARTS = ("train", "val", "test")


class Item(NamedTuple):
    """One image of a split: its path from the folder of the images (with /), class index and class name."""

    path: str
    label: int
    name: str


Parts = dict[str, list[Item]]
"""The items of "train", "val" and "test"; a part that a data set does not have is empty."""


def read_split_file(file: Path) -> Parts:
    """The parts of a split file, checked one by one; `class_names_of` checks them together.

    Raises:
        DataError: the file cannot be read, is cut short, or is no split file.
    """
    name = display_name(file)
    try:
        content = json.loads(decode_text(file.read_bytes()))
    except OSError as error:
        raise DataError(f"The split file '{name}' cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise DataError(
            f"The split file '{name}' is cut short or not JSON ({error}). Fetch it again; without it a split is made."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(content.get(part), list) for part in PARTS):
        raise DataError(f"'{name}' is not a split file. Expected an object with the lists train, val and test.")
    return {part: [_item(entry, part, i, name) for i, entry in enumerate(content[part])] for part in PARTS}


def _item(entry: Any, part: str, position: int, name: str) -> Item:
    if not isinstance(entry, list) or [type(value) for value in entry] != [str, int, str] or not entry[0]:
        raise DataError(
            f"Entry {position} of the {part} part in '{name}' is {json.dumps(entry)[:100]}. "
            "Expected [path, label, class name]."
        )
    return Item(*entry)


def write_split_file(file: Path, parts: Parts) -> None:
    """Writes a split file in one step; one that holds the same already is left alone.

    Raises:
        SavedFileError: the folder cannot be written.
    """
    content = json.dumps({part: parts[part] for part in PARTS}).encode()
    if not (file.is_file() and file.read_bytes() == content):
        write_bytes(file, content)


def class_names_of(parts: Parts, source: str) -> tuple[str, ...]:
    """The class names in the order of their labels.

    Args:
        parts: of a whole data set.
        source: what messages call the place that the labels come from.

    Raises:
        DataError: no images, a label with two names, a name with two labels, or labels that are not 0, 1, 2, ...
    """
    names: dict[int, str] = {}
    labels: dict[str, int] = {}
    for item in (item for part in PARTS for item in parts[part]):
        if names.setdefault(item.label, item.name) != item.name:
            raise DataError(
                f"{source} gives label {item.label} two class names: {names[item.label]!r} and {item.name!r} "
                f"('{display_name(item.path)}'). Expected one; fetch the file again."
            )
        if labels.setdefault(item.name, item.label) != item.label:
            raise DataError(
                f"{source} gives the class name {item.name!r} two labels: {labels[item.name]} and {item.label} "
                f"('{display_name(item.path)}'). Expected one; fetch the file again."
            )
    if not names:
        raise DataError(f"{source} names no images. Expected at least a train or a test part.")
    gap = next((label for label in range(len(names)) if label not in names), None)
    if gap is not None:
        raise DataError(
            f"{source} has {len(names)} classes, but none with label {gap}. Expected labels from 0 to {len(names) - 1}."
        )
    return tuple(names[label] for label in range(len(names)))


def divide(items: Sequence[Item], shares: Sequence[float]) -> list[list[Item]]:
    """Each class's items in several groups: one for each share, and one for what is left.

    Which images go where depends on their paths alone (the order of their SHA-256), so the same files give the same
    split on every machine and in every version. Within a group, items keep their order.
    """
    by_label: dict[int, list[int]] = {}
    for i, item in enumerate(items):
        by_label.setdefault(item.label, []).append(i)
    groups: list[list[int]] = [[] for _ in (*shares, None)]
    for indices in by_label.values():
        drawn = sorted(indices, key=lambda i: hashlib.sha256(items[i].path.encode("utf-8", "surrogateescape")).digest())
        start = 0
        for group, share in zip(groups, shares, strict=False):
            end = start + round(share * len(drawn))
            group += sorted(drawn[start:end])
            start = end
        groups[-1] += sorted(drawn[start:])
    return [[items[i] for i in group] for group in groups]
