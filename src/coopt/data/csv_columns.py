"""Which columns of a CSV hold the images' paths, their labels and their parts: named by the user, or known by name."""

from __future__ import annotations

import csv
import io
import re
import warnings
from dataclasses import dataclass
from difflib import get_close_matches

from coopt.data.file_names import display_name
from coopt.data.images import IMAGE_EXTENSIONS
from coopt.errors import CooptWarning, DataError
from coopt.wording import setting

_DELIMITERS = (",", ";", "\t", "|")
_OTHER_NAMES = {
    "path": (
        *(
            "file_name",
            "filename",
            "file",
            "filepath",
            "file_path",
            "image",
            "image_path",
            "imagepath",
            "img",
            "img_path",
        ),
        *("image_file", "image_name", "photo", "picture"),
    ),
    "label": (
        *("class", "category", "target", "label_name", "class_name", "classname", "category_name", "labels", "classes"),
        *("species", "tag", "y"),
    ),
    "split": ("subset", "partition", "set", "part", "phase", "fold"),
}
"""Names under which people have the columns that are called path, label and split here."""


@dataclass(frozen=True)
class Columns:
    """Names of columns, as the user gave them; None: known by name."""

    path: str | None = None
    label: str | None = None
    split: str | None = None


@dataclass(frozen=True)
class CsvTable:
    """A CSV's text below its header, and where its columns stand.

    Attributes:
        text: from the header on.
        first_line: the header's line number in the file.
        delimiter: between cells.
        header: as it is written, without blanks around.
        path, label, split: places of the columns; None: there is none.
    """

    text: str
    first_line: int
    delimiter: str
    header: tuple[str, ...]
    path: int
    label: int | None
    split: int | None


def find_columns(name: str, text: str, columns: Columns, need_label: bool = True) -> CsvTable:
    """The columns of a CSV; says which were taken when they are not called path and label.

    Args:
        name: of the file, for messages.
        text: the file's.
        columns: what the user says.
        need_label: False: a CSV without labels, or with several columns that may be labels, is fine.

    Raises:
        DataError: a column is missing, or several may be meant.
    """
    stated = re.match(r"(?i)sep=(.)\r?\n?", text)  # what Excel writes for other Excels
    text = text[stated.end() :] if stated else text
    headers = {one: _header(text, one) for one in ([stated[1]] if stated else _DELIMITERS)}
    wanted = ("path", "label") if need_label else ("path",)
    fitting = [one for one, header in headers.items() if all(_columns_at(header, kind, columns) for kind in wanted)]
    if not fitting:
        raise _missing(name, max(headers.values(), key=len), columns, wanted)
    header = headers[fitting[0]]
    columns_at = {kind: _columns_at(header, kind, columns) for kind in ("path", "label", "split")}
    for kind in wanted:
        if len(columns_at[kind]) > 1:
            raise _ambiguous(name, kind, [header[i] for i in columns_at[kind]])
    if not need_label and len(columns_at["label"]) != 1:
        columns_at["label"] = []
    _say(name, header, {kind: columns_at[kind][0] for kind in wanted}, columns)
    return CsvTable(
        text,
        2 if stated else 1,
        fitting[0],
        tuple(header),
        columns_at["path"][0],
        columns_at["label"][0] if columns_at["label"] else None,
        columns_at["split"][0] if len(columns_at["split"]) == 1 else None,
    )


def _header(text: str, delimiter: str) -> list[str]:
    cells = next(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter), [])
    return [cell.strip() for cell in cells]


def _columns_at(header: list[str], kind: str, columns: Columns) -> list[int]:
    """Where a column may stand: under the name that the user gave, its own, or else any of the others."""
    lower = [cell.lower() for cell in header]
    given = getattr(columns, kind)
    if given is not None:
        return [i for i, cell in enumerate(lower) if cell == given.strip().lower()]
    exact = [i for i, cell in enumerate(lower) if cell == kind]
    return exact or [i for i, cell in enumerate(lower) if cell.replace(" ", "_") in _OTHER_NAMES[kind]]


def _missing(name: str, header: list[str], columns: Columns, wanted: tuple[str, ...]) -> DataError:
    missing = [kind for kind in wanted if not _columns_at(header, kind, columns)]
    shown = ", ".join(repr(display_name(cell)) for cell in header[:8]) + (", ..." if len(header) > 8 else "")
    asked = [str(getattr(columns, kind) or kind) for kind in missing]
    close = [match for one in asked for match in get_close_matches(one, header, n=1)]
    hint = f" Did you mean {' and '.join(map(repr, close))}?" if close else ""
    if any(cell.lower().endswith(tuple(IMAGE_EXTENSIONS)) for cell in header):
        hint = " It has no header: put a line path,label above it."
    options = ", ".join(setting(f"{kind}_column", "NAME") for kind in missing)
    return DataError(
        f"The CSV '{name}' has no column {' and '.join(map(repr, asked))}. Its first line reads {shown}.{hint} Expected a "
        f"header with the columns path,label (optionally split); other names are given with {options}."
    )


def _ambiguous(name: str, kind: str, cells: list[str]) -> DataError:
    shown = " and ".join(repr(display_name(cell)) for cell in cells)
    what = "image's path" if kind == "path" else "label"
    if len(set(cells)) == 1:
        return DataError(f"The CSV '{name}' has {len(cells)} columns {cells[0]!r}. Rename all but one.")
    return DataError(
        f"The CSV '{name}' has several columns that may hold the {what}: {shown}. Say which with "
        f"{setting(f'{kind}_column', cells[0])}."
    )


def _say(name: str, header: list[str], columns_at: dict[str, int], columns: Columns) -> None:
    guessed = {k: header[i] for k, i in columns_at.items() if header[i].lower() != k and getattr(columns, k) is None}
    if guessed:
        taken = " and ".join(f"the column '{display_name(cell)}' is taken as {kind}" for kind, cell in guessed.items())
        warnings.warn(f"In the CSV '{name}', {taken}.", CooptWarning, stacklevel=6)
