"""`coopt predict`."""

from __future__ import annotations

import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from shutil import get_terminal_size
from typing import Any, Literal

import click
from rich.cells import cell_len

from coopt import events
from coopt.app.prediction_rows import (
    Predicted,
    PredictedRow,
    PredictionsBegun,
    Shape,
    as_dict,
    csv_cells,
    csv_header,
    csv_line,
)
from coopt.cli.options import CACHE, PROMPT, VALUE_RANGE, backbone_options, on_bad_image, precision
from coopt.cli.output import Output, command
from coopt.data.file_names import display_name
from coopt.errors import ParameterError

UNSURE = "(uncertain)"
"""What people see in the place of a class below `--min-confidence`."""


@command("predict")
@PROMPT
@click.argument("images", nargs=-1, metavar="[IMAGES...]")
@click.option("--from-list", metavar="FILE", help="Images named in a file, one path per line; '-': standard input.")
@click.option("--topk", type=click.IntRange(min=1), default=1, show_default=True, help="Classes per image.")
@click.option("--csv", is_flag=True, help="Print CSV rows as they come.")
@click.option("--jsonl", is_flag=True, help="Print one JSON object per image as they come.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the rows to FILE (.csv or .jsonl). A run that is stopped goes on when it is started again.",
)
@click.option("--overwrite", is_flag=True, help="Begin FILE anew.")
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="P",
    help="Give no class to images whose most probable one is below P, such as 0.6.",
)
@click.option("--copy-to", type=click.Path(path_type=Path), metavar="DIR", help="Copy images into DIR/CLASS.")
@click.option("--move-to", type=click.Path(path_type=Path), metavar="DIR", help="Move images into DIR/CLASS.")
@click.option(
    "--contact-sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write an HTML page of small pictures by class.",
)
@click.option("--classes", metavar="A,B,C", help="Other classes than those the prompt was learned for.")
@click.option("--classes-file", type=click.Path(path_type=Path), metavar="FILE", help="The same, one per line.")
@backbone_options(None)
@VALUE_RANGE
@on_bad_image("skip")
@CACHE
@precision(None)
def predict(output: Output, csv: bool, jsonl: bool, **options: Any) -> None:
    """Classify images with a learned prompt.

    PROMPT is a folder written by `coopt fit` (or `coopt zero-shot --out`). IMAGES are image files, folders and ZIP
    archives (searched with all that is below them) and globs, in any mix.

    --copy-to and --move-to never write over a file: one whose name is taken gets a number. Images below
    --min-confidence go into DIR/_uncertain; those that cannot be read stay where they are.

    \b
    Examples:
      coopt predict coopt-photos new.jpg
      coopt predict coopt-photos holidays/ --topk 3
      coopt predict coopt-photos "scans/**/*.png" --csv > found.csv
      find / -name "*.jpg" | coopt predict coopt-photos --from-list - --out all.csv
      coopt predict coopt-photos new.jpg --classes "red kite,grey heron"
      coopt predict coopt-photos inbox/ --move-to sorted --min-confidence 0.6
    """
    out, images = options["out"], options.pop("images")
    forms = [name for name, given in (("json", output.json and not out), ("csv", csv), ("jsonl", jsonl)) if given]
    if len(forms) > 1:
        raise click.UsageError(f"--{forms[0]} and --{forms[1]} exclude each other: give one of them.")
    if bool(images) == (options["from_list"] is not None):
        raise click.UsageError("Give either IMAGES... or --from-list FILE.")
    form = "csv" if csv else "jsonl" if jsonl else _form_of(out)
    if options["overwrite"] and out is None:
        raise click.UsageError("--overwrite is for a file: give --out FILE.")
    if options["copy_to"] is not None and options["move_to"] is not None:
        raise click.UsageError("--copy-to and --move-to exclude each other: give one of them.")
    from coopt.app.predicting import predict as run_predict
    from coopt.app.requests import PredictRequest

    names = _class_names(options.pop("classes"), options.pop("classes_file"))
    request = PredictRequest.of(images=images or None, class_names=names, form=form, keep_rows=output.json, **options)
    with events.listening(_Rows(form, output)):
        result = run_predict(request)
    output.result(result.to_dict())


class _Rows:
    """Prints rows as they come."""

    def __init__(self, form: str | None, output: Output) -> None:
        self.form, self.output = form, output
        self.printer: Printer | None = None

    def __call__(self, event: events.Event) -> None:
        if isinstance(event, PredictionsBegun) and not self.output.json:
            printers = {"csv": CsvPrinter, "jsonl": JsonlPrinter}
            printer = printers.get(self.form or "", PeoplePrinter)(event.class_names, event.shape, self.output)
            printer.begin()
            self.printer = printer
        elif isinstance(event, Predicted) and self.printer is not None:
            self.printer.row(event.row)


def _form_of(out: Path | None) -> Literal["csv", "jsonl"] | None:
    """How rows are written into a file, by its ending."""
    if out is None:
        return None
    ending = out.suffix.lower()
    if ending not in (".csv", ".jsonl"):
        raise click.UsageError(f"--out ends in {ending or 'nothing'!r}: add --csv or --jsonl to say what to write.")
    return "csv" if ending == ".csv" else "jsonl"


def _class_names(classes: str | None, file: Path | None) -> list[str] | None:
    """Class names of `--classes` or `--classes-file`; None when neither is given.

    Raises:
        ParameterError: both are given, or the file cannot be read.
    """
    from coopt.data.text_files import decode_text, in_unicode, visible

    if classes is not None and file is not None:
        raise ParameterError("--classes and --classes-file exclude each other: give one of them.")
    if file is not None:
        try:
            lines = in_unicode(decode_text(file.read_bytes())).splitlines()
        except OSError as error:
            raise ParameterError(
                f"The file of class names '{display_name(file)}' cannot be read: {error.strerror or error}."
            ) from error
    elif classes is not None:
        lines = classes.split(",")
    else:
        return None
    names = [name for line in lines if (name := visible(line))]
    if not names:
        where = "--classes" if file is None else f"The file of class names '{display_name(file)}'"
        raise ParameterError(f"{where} names no class. Expected at least two.")
    return names


class Printer(ABC):
    """Prints rows as they come."""

    def __init__(self, class_names: Sequence[str], shape: Shape, output: Output) -> None:
        self.class_names, self.shape, self.output = class_names, shape, output

    @abstractmethod
    def begin(self) -> None:
        """What stands above the first row."""

    @abstractmethod
    def row(self, row: PredictedRow) -> None:
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

    def row(self, row: PredictedRow) -> None:
        """Class, probability and path; an image that was left out has been named already."""
        if row.error is not None:
            return
        lines = self._one(row) if self.shape.topk == 1 else self._several(row)
        for line in [*self.waiting, *lines]:
            self.output.say(line)
        self.waiting = []

    def _one(self, row: PredictedRow) -> list[str]:
        name, share = row.best[0]
        cells = f"{_padded(display_name(name) if row.sure else UNSURE, self.width)}  {100 * share:5.1f}   "
        return [cells + self._path(row, cell_len(cells))]

    def _several(self, row: PredictedRow) -> list[str]:
        named = [f"  {100 * share:5.1f}  {self._cut(display_name(name), 9)}" for name, share in row.best]
        return [self._path(row, 0), *([] if row.sure else [f"         {UNSURE}"]), *named]

    def _path(self, row: PredictedRow, before: int) -> str:
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

    def row(self, row: PredictedRow) -> None:
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

    def row(self, row: PredictedRow) -> None:
        """path, class, probability (and `top` when there are several), or path and error."""
        self.output.line(json.dumps(as_dict(row)))
