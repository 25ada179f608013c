"""A CSV file as a data set: the columns path and label, optionally split."""

from __future__ import annotations

import csv
import io
import unicodedata
import warnings
from pathlib import Path
from typing import Literal

from coopt.data.folder import PART_NAMES
from coopt.data.images import display_name
from coopt.data.splits import Split
from coopt.errors import DataError, SkippedImageWarning

_DELIMITERS = (",", ";", "\t", "|")
_Row = tuple[int, str, str, str]  # line, path, label, split


def read_csv(file: Path, on_bad_image: Literal["fail", "skip"]) -> dict[str, Split]:
    """The parts of a data set named in a CSV: {"train": ...} when it has no column `split`.

    The header names the columns path, label and maybe split (train, val, test), in any order; others beside them are
    left alone. The delimiter is what fits the header: comma, semicolon, tab or bar. Paths are counted from the CSV's
    folder.

    Raises:
        DataError: the file is empty, a column is missing, or rows are wrong (with their line numbers).
    """
    name = display_name(file)
    try:
        # surrogateescape: a file name on disk may be of any bytes; labels are checked for it below.
        text = file.read_bytes().decode("utf-8-sig", "surrogateescape")
    except OSError as error:
        raise DataError(f"The CSV '{name}' cannot be read: {error.strerror}.") from error
    if not text.strip():
        raise DataError(f"The CSV '{name}' is empty. Expected a header path,label and one line per image.")
    rows = _read_rows(name, text)
    if not rows:
        raise DataError(f"The CSV '{name}' has a header but no images. Expected one line per image below it.")
    _check_rows(name, rows)
    return _to_parts(name, file.parent, rows, on_bad_image)


def _read_rows(name: str, text: str) -> list[_Row]:
    delimiter, header = _header_of(name, text)
    where = {column: header.index(column) for column in ("path", "label", "split") if column in header}
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    rows: list[_Row] = []
    wrong: list[str] = []
    try:
        for number, cells in enumerate(reader):
            if number == 0 or not any(cell.strip() for cell in cells):
                continue
            if len(cells) != len(header):
                wrong.append(f"line {reader.line_num} has {len(cells)} cells")
                continue
            split = cells[where["split"]].strip() if "split" in where else "train"
            rows.append((reader.line_num, cells[where["path"]].strip(), cells[where["label"]].strip(), split))
    except csv.Error as error:
        raise DataError(f"The CSV '{name}' is broken near line {reader.line_num}: {error}.") from error
    if wrong:
        raise DataError(
            f"The CSV '{name}' has {len(header)} columns, but {_first(wrong)}. "
            'Put quotes around a cell that holds the delimiter: "cats, big/1.jpg".'
        )
    return rows


def _header_of(name: str, text: str) -> tuple[str, list[str]]:
    """The delimiter that makes the first line a header with path and label, and that header in lower case."""
    headers: dict[str, list[str]] = {}
    for delimiter in _DELIMITERS:
        cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
        headers[delimiter] = [cell.strip().lower() for cell in cells]
        if {"path", "label"} <= set(headers[delimiter]):
            return delimiter, headers[delimiter]
    got = max(headers.values(), key=len)
    missing = " and ".join(repr(column) for column in ("path", "label") if column not in got)
    shown = ", ".join(repr(display_name(cell)) for cell in got[:8])
    raise DataError(
        f"The CSV '{name}' has no column {missing}. Its first line reads {shown}. "
        "Expected a header with the columns path,label (optionally split)."
    )


def _check_rows(name: str, rows: list[_Row]) -> None:
    """Every row has a path, a readable label and a known split, and no image has two labels."""
    known = ", ".join(sorted(set(PART_NAMES.values()), key=["train", "val", "test"].index))
    problems = {
        "without a path": [f"line {line}" for line, path, _, _ in rows if not path],
        "without a label": [f"line {line}" for line, _, label, _ in rows if not label],
        "with a label that is not UTF-8 (save the file as UTF-8)": [
            f"line {line} ('{display_name(label)}')" for line, _, label, _ in rows if not _is_unicode(label)
        ],
        f"with an unknown split (expected {known})": [
            f"line {line} ('{display_name(split)}')" for line, _, _, split in rows if split.lower() not in PART_NAMES
        ],
        "with another label for the same image": _conflicts(rows),
    }
    for problem, lines in problems.items():
        if lines:
            raise DataError(f"The CSV '{name}' has {len(lines)} rows {problem}: {_first(lines)}.")


def _conflicts(rows: list[_Row]) -> list[str]:
    first: dict[str, tuple[int, str]] = {}
    found: list[str] = []
    for line, path, label, _ in rows:
        earlier_line, earlier = first.setdefault(path, (line, label))
        if earlier != label:
            found.append(f"line {line} ('{display_name(path)}' is {label!r}, and {earlier!r} in line {earlier_line})")
    return found


def _to_parts(name: str, folder: Path, rows: list[_Row], on_bad_image: Literal["fail", "skip"]) -> dict[str, Split]:
    missing: list[str] = []
    parts: dict[str, list[tuple[Path, str]]] = {}
    for line, path, label, split in rows:
        file = folder / path
        if _is_file(file):
            item = (file, unicodedata.normalize("NFC", label))
            parts.setdefault(PART_NAMES[split.lower()], []).append(item)
        else:
            missing.append(f"line {line} ('{display_name(path)}')")
    if missing:
        what = f"The CSV '{name}' names {len(missing)} of {len(rows)} images that do not exist: {_first(missing)}."
        if on_bad_image == "fail" or not parts:
            raise DataError(
                f"{what} Paths are counted from the folder of the CSV, '{display_name(folder)}'. "
                "Correct them, or leave missing images out with on_bad_image='skip'."
            )
        warnings.warn(f"{what} They are left out.", SkippedImageWarning, stacklevel=4)
    return {
        part: Split(tuple(path for path, _ in parts[part]), tuple(label for _, label in parts[part]))
        for part in ("train", "val", "test")
        if part in parts
    }


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the system, or with a null byte
        return False


def _is_unicode(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _first(items: list[str], limit: int = 5) -> str:
    return ", ".join(items[:limit]) + (", ..." if len(items) > limit else "")
