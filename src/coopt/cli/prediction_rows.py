"""Rows of `coopt predict`: for people, as CSV, and as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coopt.cli.output import Output
from coopt.data import display_name


@dataclass(frozen=True)
class Row:
    """What was found for one image: its most probable classes, or why it could not be read."""

    path: Path
    best: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def as_dict(row: Row) -> dict[str, Any]:
    """The row for JSON: path, class, probability (and `top` when there are several), or path and error."""
    path = os.fspath(row.path)
    if row.error is not None:
        return {"path": path, "error": row.error}
    top = [{"class": name, "probability": probability} for name, probability in row.best]
    return {"path": path, **top[0], **({"top": top} if len(top) > 1 else {})}


def csv_header(topk: int) -> list[str]:
    """path, class and probability (numbered when there are several), error."""
    several = [f"{name}_{i + 1}" for i in range(topk) for name in ("class", "probability")]
    return ["path", *(several if topk > 1 else ["class", "probability"]), "error"]


def _csv_cells(row: Row, topk: int) -> list[str]:
    cells = [cell for name, share in row.best for cell in (name, f"{share:.6f}")] or [""] * (2 * topk)
    return [os.fspath(row.path), *cells, row.error or ""]


def csv_line(cells: list[str]) -> bytes:
    """One row of a CSV file."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    # Names keep their bytes, so that what reads the file finds the images.
    return text.getvalue().encode("utf-8", "surrogateescape")


def line_of(row: Row, topk: int, form: str | None) -> bytes:
    """The row as it stands in a file of this form, "csv" or "jsonl"."""
    return csv_line(_csv_cells(row, topk)) if form == "csv" else json.dumps(as_dict(row)).encode() + b"\n"


class Printer(ABC):
    """Prints rows as they come."""

    def __init__(self, class_names: Sequence[str], topk: int, output: Output) -> None:
        self.class_names, self.topk, self.output = class_names, topk, output

    @abstractmethod
    def begin(self) -> None:
        """What stands above the first row."""

    @abstractmethod
    def row(self, row: Row) -> None:
        """One row."""


class PeoplePrinter(Printer):
    """Columns; the path stands last, where it may be as long as it is."""

    def begin(self) -> None:
        """The header waits for the first row: an error may come instead."""
        longest = max(len(display_name(name)) for name in self.class_names)
        self.width = min(max(longest, 5), 30)
        header = "   ".join(f"{'class':<{self.width}}      %" for _ in range(self.topk))
        self.waiting = [f"{header}   image"]

    def row(self, row: Row) -> None:
        """Class, probability and path; an image that was left out has been named already."""
        if row.error is None:
            cells = [f"{display_name(name):<{self.width}}  {100 * share:5.1f}" for name, share in row.best]
            for line in [*self.waiting, "   ".join([*cells, display_name(row.path)])]:
                self.output.say(line)
            self.waiting = []


class CsvPrinter(Printer):
    """path, class, probability (numbered when there are several), error."""

    def begin(self) -> None:
        """The header."""
        self._write(csv_header(self.topk))

    def row(self, row: Row) -> None:
        """An image that was left out has empty cells and says why in the last one."""
        self._write(_csv_cells(row, self.topk))

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
