"""Texts about classes, read from a file: what `--descriptions` takes."""

from __future__ import annotations

import json
import re
import warnings
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from coopt.data.file_names import display_name, shown_names
from coopt.data.text_files import decode_text, in_unicode, table_rows, visible
from coopt.errors import ClassNameWarning, DataError

_HEADERS = {"class", "class_name", "classname", "label", "name"}


def read_descriptions(file: Path, class_names: Sequence[str]) -> dict[str, list[str]]:
    """Texts by class name.

    JSON holds {class: text} or {class: [text, ...]}; CSV a row for each text, the class in the first column (or several
    texts in one row); any other file lines such as `tench: A large freshwater fish.`. Classes are named as in the data;
    capitals and underscores are not told apart where that leaves one class. Texts of classes that the data lack are kept, for
    these may be asked for later.

    Args:
        file: the file.
        class_names: those of the data. Classes that the file says nothing of are named in a warning.

    Raises:
        DataError: the file cannot be read, is of another form, or describes none of the classes.
    """
    name = display_name(file)
    try:
        text = in_unicode(decode_text(file.read_bytes()))
    except OSError as error:
        raise DataError(f"The descriptions '{name}' cannot be read: {error.strerror}.") from error
    known = {_plain(one): one for one in reversed(class_names)}
    read: dict[str, list[str]] = {}
    for key, texts in _entries(file, text, name, set(class_names)):
        is_text = isinstance(key, str) and all(isinstance(one, str) for one in texts)
        if not is_text:
            raise DataError(f"'{name}' must hold texts for each class. Got {texts!r} for {key!r}.")
        key = key if key in class_names else known.get(_plain(key), key)
        kept = [" ".join(visible(one).split()) for one in texts]
        read.setdefault(key, []).extend(one for one in kept if one)
    read = {key: list(dict.fromkeys(texts)) for key, texts in read.items() if texts}
    missing = [one for one in class_names if one not in read]
    if len(missing) == len(class_names):
        raise DataError(
            f"'{name}' describes none of the {len(class_names)} classes ({shown_names(class_names)}); "
            f"it speaks of {shown_names(list(read)) if read else 'none'}. Name them as the data do."
        )
    if missing:
        close = get_close_matches(missing[0], set(read) - set(class_names), n=1)
        hint = f" Is {close[0]!r} meant for {missing[0]!r}?" if close else ""
        warnings.warn(
            f"'{name}' says nothing of {len(missing)} of {len(class_names)} classes ({shown_names(missing)}), which have "
            f"their names alone.{hint}",
            ClassNameWarning,
            stacklevel=2,
        )
    return read


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").casefold().split())


def _entries(file: Path, text: str, name: str, class_names: set[str]) -> Iterable[tuple[Any, Sequence[Any]]]:
    suffix = file.suffix.lower()
    if suffix == ".json":
        return _from_json(text, name)
    if suffix in (".csv", ".tsv"):
        return _from_rows(text, "\t" if suffix == ".tsv" else None, name, class_names)
    return _from_lines(text, name)


def _from_json(text: str, name: str) -> list[tuple[Any, Sequence[Any]]]:
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"The descriptions '{name}' are not JSON: {error}.") from error
    if not isinstance(content, dict):
        raise DataError(f"'{name}' holds {type(content).__name__}. Expected an object {{class: [text, ...]}}.")
    return [(key, texts if isinstance(texts, list) else [texts]) for key, texts in content.items()]


def _from_rows(text: str, delimiter: str | None, name: str, class_names: set[str]) -> list[tuple[str, Sequence[str]]]:
    rows = table_rows(text, delimiter)
    if rows and rows[0][0].strip().lower() in _HEADERS and rows[0][0] not in class_names:
        rows = rows[1:]
    wrong = next((row for row in rows if len(row) < 2), None)
    if wrong is not None:
        raise DataError(
            f"'{name}' has a row of one cell: {shown_names(wrong)}. Expected the class, then a text about it."
        )
    return [(visible(row[0]), row[1:]) for row in rows]


def _from_lines(text: str, name: str) -> list[tuple[str, Sequence[str]]]:
    lines = [line for line in map(visible, text.splitlines()) if line]
    pairs = [re.split(r"\t+|\s*:\s+", line, maxsplit=1) for line in lines]
    wrong = next((line for line, pair in zip(lines, pairs, strict=True) if len(pair) != 2), None)
    if wrong is not None:
        raise DataError(
            f"'{name}' has the line {shown_names([wrong])}. Expected lines such as 'tench: A large freshwater fish.'."
        )
    return [(pair[0], [pair[1]]) for pair in pairs]
