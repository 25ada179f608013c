"""A CSV file as a data set: the columns path and label, optionally split."""

from __future__ import annotations

import csv
import io
import os
import unicodedata
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Literal, NamedTuple

from coopt.data.archives import is_file
from coopt.data.csv_columns import Columns, CsvTable, find_columns
from coopt.data.file_names import display_name
from coopt.data.folder import PART_NAMES
from coopt.data.splits import Split
from coopt.data.text_files import decode_text, in_unicode, visible
from coopt.errors import CooptWarning, DataError, SkippedImageWarning
from coopt.wording import setting


class _Row(NamedTuple):
    line: int
    path: str
    label: str
    split: str


def read_csv(file: Path, on_bad_image: Literal["fail", "skip"], columns: Columns | None = None) -> dict[str, Split]:
    """The parts of a data set named in a CSV: {"train": ...} when it has no column `split`.

    The header names the columns path, label and maybe split (train, val, test), in any order; others beside them are
    left alone. Without them, one other usual name is taken for each ("file_name", "class"). The delimiter is what fits
    the header: comma, semicolon, tab or bar. Paths are counted from the CSV's folder; backslashes in them are slashes.
    The text may be UTF-8 or UTF-16; labels that are neither are read as Windows-1252.

    Raises:
        DataError: the file is empty, a column is missing, or rows are wrong (with their line numbers).
    """
    name = display_name(file)
    try:
        text = decode_text(file.read_bytes())
    except OSError as error:
        raise DataError(f"The CSV '{name}' cannot be read: {error.strerror}.") from error
    if not text.strip("\0 \t\r\n"):
        raise DataError(f"The CSV '{name}' is empty. Expected a header path,label and one line per image.")
    table = find_columns(name, text, columns or Columns())
    rows = _readable_labels(name, _read_rows(name, table))
    if not rows:
        raise DataError(f"The CSV '{name}' has a header but no images. Expected one line per image below it.")
    _check_rows(name, file.parent, rows)
    return _to_parts(name, file.parent, _each_once(name, file.parent, rows), on_bad_image)


def _read_rows(name: str, table: CsvTable) -> list[_Row]:
    rows: list[_Row] = []
    wrong: list[str] = []
    for line, cells in _cells(name, table):
        if len(cells) != len(table.header):
            wrong.append(f"line {line} has {len(cells)} cells")
            continue
        split = "train" if table.split is None else cells[table.split].strip()
        assert table.label is not None
        rows.append(_Row(line, cells[table.path].strip(), cells[table.label], split))
    if wrong:
        raise DataError(
            f"The CSV '{name}' has {len(table.header)} columns, but {_first(wrong)}. "
            'Put quotes around a cell that holds the delimiter: "cats, big/1.jpg".'
        )
    if table.split is not None and table.header[table.split].lower() != "split" and _is_no_split(rows):
        return [row._replace(split="train") for row in rows]  # a column "set" or "part" may mean anything
    return rows


def _is_no_split(rows: list[_Row]) -> bool:
    return not any(row.split.lower() in PART_NAMES for row in rows)


def _cells(name: str, table: CsvTable) -> Iterator[tuple[int, list[str]]]:
    """The rows below the header that are not blank, with their line numbers."""
    reader = csv.reader(io.StringIO(table.text, newline=""), delimiter=table.delimiter)
    try:
        for number, cells in enumerate(reader):
            if number > 0 and any(cell.strip() for cell in cells):
                yield reader.line_num + table.first_line - 1, cells
    except csv.Error as error:
        raise DataError(f"The CSV '{name}' is broken near line {reader.line_num}: {error}.") from error


def paths_in_csv(name: str, text: str) -> list[str]:
    """The paths that a CSV names, as they are written; labels need not be there.

    Raises:
        DataError: it has no column of paths, or is broken.
    """
    table = find_columns(name, text, Columns(), need_label=False)
    return [cells[table.path].strip() for _, cells in _cells(name, table) if len(cells) > table.path]


def _readable_labels(name: str, rows: list[_Row]) -> list[_Row]:
    """Labels in Unicode, composed, without blanks and invisible characters around them."""
    odd = [row for row in rows if in_unicode(row.label) is not row.label]
    if odd:
        shown = ", ".join(f"{in_unicode(row.label)!r} in line {row.line}" for row in odd[:3])
        warnings.warn(
            f"The CSV '{name}' is not UTF-8: {len(odd)} labels were read as Windows-1252 ({shown}). If that is wrong, save "
            "the file as UTF-8.",
            CooptWarning,
            stacklevel=5,
        )
    return [row._replace(label=visible(unicodedata.normalize("NFC", in_unicode(row.label)))) for row in rows]


def _check_rows(name: str, folder: Path, rows: list[_Row]) -> None:
    """Every row has a path, a label and a known split, and no image has two labels."""
    known = ", ".join(sorted(set(PART_NAMES.values()), key=["train", "val", "test"].index))
    problems = {
        "without a path": [f"line {row.line}" for row in rows if not row.path],
        "without a label": [f"line {row.line}" for row in rows if not row.label],
        f"with an unknown split (expected {known})": [
            f"line {row.line} ('{display_name(row.split)}')" for row in rows if row.split.lower() not in PART_NAMES
        ],
        "with another label for the same image": _conflicts(folder, rows),
    }
    for problem, lines in problems.items():
        if lines:
            raise DataError(f"The CSV '{name}' has {len(lines)} rows {problem}: {_first(lines)}.")


def _conflicts(folder: Path, rows: list[_Row]) -> list[str]:
    first: dict[str, _Row] = {}
    conflicts: list[str] = []
    for row in rows:
        earlier = first.setdefault(_place(folder, row.path), row)
        if earlier.label != row.label:
            conflicts.append(
                f"line {row.line} ('{display_name(row.path)}' is {row.label!r}, and {earlier.label!r} in line {earlier.line})"
            )
    return conflicts


def _each_once(name: str, folder: Path, rows: list[_Row]) -> list[_Row]:
    """The rows without those that name an image of the same part again; says so."""
    seen: dict[tuple[str, str], _Row] = {}
    again: list[str] = []
    for row in rows:
        key = (_place(folder, row.path), PART_NAMES[row.split.lower()])
        first = seen.setdefault(key, row)
        if first is not row:
            again.append(f"line {row.line} ('{display_name(row.path)}', as in line {first.line})")
    if again:
        warnings.warn(
            f"The CSV '{name}' has {len(again)} rows that name an image again ({_first(again)}). Each image counts once.",
            CooptWarning,
            stacklevel=5,
        )
    return list(seen.values())


def _place(folder: Path, path: str) -> str:
    """What is equal for two names of one file, as far as the names tell: "a/../b.jpg" is "b.jpg"."""
    joined = os.path.join(folder, path.replace("\\", "/"))  # noqa: PTH118  (pathlib is slow on a million paths)
    return os.path.normcase(os.path.normpath(joined))


def _to_parts(name: str, folder: Path, rows: list[_Row], on_bad_image: Literal["fail", "skip"]) -> dict[str, Split]:
    missing: list[str] = []
    parts: dict[str, list[tuple[Path, str]]] = {}
    for row in rows:
        file = find_file(folder, row.path)
        if file is not None:
            parts.setdefault(PART_NAMES[row.split.lower()], []).append((file, row.label))
        else:
            missing.append(f"line {row.line} ('{display_name(row.path)}')")
    if missing:
        what = f"The CSV '{name}' names {len(missing)} of {len(rows)} images that do not exist: {_first(missing)}."
        if on_bad_image == "fail" or not parts:
            raise DataError(
                f"{what} Paths are counted from the folder of the CSV, '{display_name(folder)}'. "
                f"Correct them, or leave missing images out with {setting('on_bad_image', 'skip')}."
            )
        warnings.warn(f"{what} They are left out.", SkippedImageWarning, stacklevel=5)
    return {
        part: Split(tuple(path for path, _ in parts[part]), tuple(label for _, label in parts[part]))
        for part in ("train", "val", "test")
        if part in parts
    }


def find_file(folder: Path, path: str) -> Path | None:
    """The file that a path means, counted from a folder: as it is written, or as other systems and programs write it."""
    spellings = (
        lambda: path,
        lambda: path.replace("\\", "/"),
        lambda: in_unicode(path).replace("\\", "/"),
        lambda: unicodedata.normalize("NFC", path),
        lambda: unicodedata.normalize("NFD", path),
    )
    return next((file for spelling in spellings if is_file(file := folder / spelling())), None)


def _first(items: list[str], limit: int = 5) -> str:
    return ", ".join(items[:limit]) + (", ..." if len(items) > limit else "")
