"""Rows of predictions: as objects, as CSV, and as JSON."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coopt.events import Event


@dataclass(frozen=True)
class Shape:
    """What all rows of a run have in common.

    Attributes:
        topk: classes per image.
        decided: with a least confidence an image may have no class; then a CSV of several classes says apart from them
            which one counts.
    """

    topk: int = 1
    decided: bool = False


@dataclass(frozen=True)
class PredictedRow:
    """What was found for one image: its most probable classes, or why it could not be read.

    Attributes:
        best: (class, probability), the most probable first; of a row that was read from a file, the first alone.
        sure: whether the first counts; see `PredictRequest.min_confidence`.
    """

    path: Path
    best: tuple[tuple[str, float], ...] = ()
    error: str | None = None
    sure: bool = True


def as_dict(row: PredictedRow) -> dict[str, Any]:
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


def csv_cells(row: PredictedRow, shape: Shape) -> list[str]:
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


def line_of(row: PredictedRow, shape: Shape, form: str | None) -> bytes:
    """The row as it stands in a file of this form, "csv" or "jsonl"."""
    return csv_line(csv_cells(row, shape)) if form == "csv" else json.dumps(as_dict(row)).encode() + b"\n"


def read_rows(file: Path, form: str | None) -> Iterator[PredictedRow]:
    """The rows of a file that `line_of` wrote, one after another."""
    with file.open(encoding="utf-8", errors="surrogateescape", newline="") as lines:
        records: Iterator[dict[str, Any]] = csv.DictReader(lines) if form == "csv" else map(json.loads, lines)
        for one in records:
            first = one.get("class", one.get("class_1"))  # the class that counts, or there is no such column
            share = one.get("probability", one.get("probability_1"))
            if one.get("error"):
                yield PredictedRow(Path(one["path"]), error=one["error"])
            else:
                yield PredictedRow(Path(one["path"]), ((first or "", float(share or 0)),), sure=bool(first))


@dataclass(frozen=True)
class PredictionsBegun(Event):
    """Rows are about to come.

    Attributes:
        class_names: to choose among.
        shape: of the rows.
    """

    class_names: tuple[str, ...]
    shape: Shape

    def __str__(self) -> str:
        return f"classes: {', '.join(self.class_names)}"


@dataclass(frozen=True)
class Predicted(Event):
    """One image is classified, or could not be read."""

    row: PredictedRow

    def __str__(self) -> str:
        row = self.row
        if row.error is not None:
            return f"{row.path}: {row.error}"
        said = ", ".join(f"{name} {100 * share:.1f}%" for name, share in row.best)
        return f"{row.path}: {'' if row.sure else '(uncertain) '}{said}"

    def to_dict(self) -> dict[str, Any]:
        """As the row goes to JSON."""
        return {"event": type(self).__name__, **as_dict(self.row)}
