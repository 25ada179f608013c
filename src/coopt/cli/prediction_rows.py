"""Rows of `coopt predict`: for people, as CSV, and as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import get_terminal_size
from typing import Any

from rich.cells import cell_len

from coopt.cli.output import Output
from coopt.data.images import display_name

UNSURE = "(uncertain)"
"""What people see in the place of a class below `--min-confidence`."""


@dataclass(frozen=True)
class Shape:
    """What all rows of a run have in common.

    Attributes:
        topk: classes per image.
        decided: with `--min-confidence` an image may have no class; then a CSV of several classes says apart from them
            which one counts.
    """

    topk: int = 1
    decided: bool = False


@dataclass(frozen=True)
class Row:
    """What was found for one image: its most probable classes, or why it could not be read.

    Attributes:
        best: (class, probability), the most probable first; of a row that was read from a file, the first alone.
        sure: whether the first counts; see `--min-confidence`.
    """

    path: Path
    best: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    sure: bool = True


def as_dict(row: Row) -> dict[str, Any]:
    """The row for JSON: path, class (null when uncertain), probability (and `top` when there are several), or path and
    error."""
    path = os.fspath(row.path)
    if row.error is not None:
        return {"path": path, "error": row.error}
    top = [{"class": name, "probability": probability} for name, probability in row.best]
    decision = {**top[0], **({} if row.sure else {"class": None})}
    return {"path": path, **decision, **({"top": top} if len(top) > 1 else {})}


def csv_header(shape: Shape) -> list[str]:
    """path, class and probability (numbered when there are several), error."""
    several = [f"{name}_{i + 1}" for i in range(shape.topk) for name in ("class", "probability")]
    decision = ["class"] if shape.decided else []
    return ["path", *([*decision, *several] if shape.topk > 1 else ["class", "probability"]), "error"]


def _csv_cells(row: Row, shape: Shape) -> list[str]:
    cells = [cell for name, share in row.best for cell in (name, f"{share:.6f}")] or [""] * (2 * shape.topk)
    decision = cells[0] if row.sure else ""
    if shape.topk == 1:
        cells[0] = decision
    elif shape.decided:
        cells = [decision, *cells]
    return [os.fspath(row.path), *cells, row.error or ""]


def csv_line(cells: list[str]) -> bytes:
    """One row of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    # Names keep their bytes, so that what reads the file finds the images.
    return text.getvalue().encode("utf-8", "surrogateescape")


def line_of(row: Row, shape: Shape, form: str | None) -> bytes:
    """The row as it stands in a file of this form, "csv" or "jsonl"."""
    return csv_line(_csv_cells(row, shape)) if form == "csv" else json.dumps(as_dict(row)).encode() + b"\n"


def read_rows(file: Path, form: str | None) -> Iterator[Row]:
    """The rows of a file that `coopt predict` wrote, one after another."""
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        found: Iterator[dict[str, Any]] = csv.DictReader(lines) if form == "csv" else map(json.loads, lines)
        for one in found:
            first = one.get("class", one.get("class_1"))  # the class that counts, or there is no such column
            share = one.get("probability", one.get("probability_1"))
            if one.get("error"):
                yield Row(Path(one["path"]), error=one["error"])
            else:
                yield Row(Path(one["path"]), ((first or "", float(share or 0)),), sure=bool(first))


class Printer(ABC):
    """Prints rows as they come."""

    def __init__(self, class_names: Sequence[str], shape: Shape, output: Output) -> None:
        self.class_names, self.shape, self.output = class_names, shape, output

    @abstractmethod
    def begin(self) -> None:
        """What stands above the first row."""

    @abstractmethod
    def row(self, row: Row) -> None:
        """One row."""


class PeoplePrinter(Printer):
    """Class, percent and path in columns; several classes in lines below their image.

    On a terminal what is too long for a line is cut: of a class name the end, of a path the beginning.
    """

    def begin(self) -> None:
        """The header waits for the first row: an error may come instead."""
        self.columns = get_terminal_size().columns if _on_terminal() else None
        names = [*self.class_names, *([UNSURE] if self.shape.decided else [])]
        longest = max(cell_len(display_name(name)) for name in names)
        self.width = min(max(longest, 5), 30, *([] if self.columns is None else [max(8, self.columns // 3)]))
        self.waiting = [f"{_padded('class', self.width)}      %   image"] if self.shape.topk == 1 else []

    def row(self, row: Row) -> None:
        """Class, probability and path; an image that was left out has been named already."""
        if row.error is not None:
            return
        lines = self._one(row) if self.shape.topk == 1 else self._several(row)
        for line in [*self.waiting, *lines]:
            self.output.say(line)
        self.waiting = []

    def _one(self, row: Row) -> list[str]:
        name, share = row.best[0]
        cells = f"{_padded(display_name(name) if row.sure else UNSURE, self.width)}  {100 * share:5.1f}   "
        return [cells + self._path(row, cell_len(cells))]

    def _several(self, row: Row) -> list[str]:
        named = [f"  {100 * share:5.1f}  {self._cut(display_name(name), 9)}" for name, share in row.best]
        return [self._path(row, 0), *([] if row.sure else [f"         {UNSURE}"]), *named]

    def _path(self, row: Row, before: int) -> str:
        path = display_name(row.path)
        return path if self.columns is None else _fitted(path, max(8, self.columns - before), cut="start")

    def _cut(self, name: str, before: int) -> str:
        return name if self.columns is None else _fitted(name, max(8, self.columns - before), cut="end")


def _on_terminal() -> bool:
    return sys.stdout.isatty()


def _padded(text: str, width: int) -> str:
    """The text in this many columns of a terminal at least; on a terminal, at most."""
    fitted = _fitted(text, width, cut="end") if _on_terminal() else text
    return fitted + " " * (width - cell_len(fitted))


def _fitted(text: str, width: int, cut: str) -> str:
    """The text, or what of it fits into this many columns of a terminal."""
    if cell_len(text) <= width:
        return text
    while cell_len(text) > width - 1:
        text = text[1:] if cut == "start" else text[:-1]
    return f"\u2026{text}" if cut == "start" else f"{text}\u2026"


class CsvPrinter(Printer):
    """path, class, probability (numbered when there are several), error."""

    def begin(self) -> None:
        """The header."""
        self._write(csv_header(self.shape))

    def row(self, row: Row) -> None:
        """An image that was left out has empty cells and says why in the last one."""
        self._write(_csv_cells(row, self.shape))

    def _write(self, cells: list[str]) -> None:
        line = csv_line(cells)
        if self.output.json or sys.stdout.isatty():
            self.output.say(display_name(line.decode("utf-8", "surrogateescape").removesuffix("\n")))
            return
        sys.stdout.buffer.write(line)
        sys.stdout.buffer.flush()


class JsonlPrinter(Printer):
    """One JSON object per line."""

    def begin(self) -> None:
        """Nothing stands above."""

    def row(self, row: Row) -> None:
        """path, class, probability (and `top` when there are several), or path and error."""
        self.output.line(json.dumps(as_dict(row)))
