"""Rows of `coopt predict` on standard output: for people, as CSV, and as JSON."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from shutil import get_terminal_size

from rich.cells import cell_len

from coopt.app.prediction_rows import Row, Shape, as_dict, csv_cells, csv_header, csv_line
from coopt.cli.output import Output
from coopt.data.file_names import display_name

UNSURE = "(uncertain)"
"""What people see in the place of a class below `--min-confidence`."""


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
        self._write(csv_cells(row, self.shape))

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
