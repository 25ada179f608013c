"""`coopt predict`: images in, classes out, a bounded number of them at a time."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from coopt.cli.loading import Where, load_prompt
from coopt.cli.output import Output
from coopt.data import display_name, find_images, open_image
from coopt.errors import BadImageError, DataError, ParameterError, SkippedImageWarning
from coopt.methods.base import ClipClassifier
from coopt.progress import tracked

CHUNK = 512
"""Images at a time: rows appear early, and memory does not grow with their number."""


@dataclass(frozen=True)
class Row:
    """What was found for one image: its most probable classes, or why it could not be read."""

    path: Path
    best: tuple[tuple[str, float], ...] = ()
    error: str | None = None


def run_predict(
    prompt: Path,
    images: Sequence[str],
    topk: int,
    form: str | None,
    class_names: Sequence[str] | None,
    where: Where,
    skip: bool,
    cache: bool,
    output: Output,
) -> None:
    """Predicts and prints rows in the order of the images.

    Raises:
        CooptError: anything wrong with the prompt or the images; also when none of the images could be read.
    """
    paths = find_images(list(images))
    estimator = load_prompt(prompt, where, class_names)
    estimator.cache = cache
    topk = min(topk, len(estimator.class_names_))
    printer: Printer = {"csv": CsvPrinter, "jsonl": JsonlPrinter}.get(form or "", PeoplePrinter)(
        estimator.class_names_, topk, output
    )
    rows: list[dict[str, Any]] = []
    read = 0
    printer.begin()
    for row in predictions(estimator, paths, topk, skip):
        read += row.error is None
        if row.error is not None:
            output.warn(f"Left out: {row.error}", SkippedImageWarning.__name__)
        if output.json:
            rows.append(_as_dict(row))
        else:
            printer.row(row)
    if read == 0:
        raise DataError(f"None of the {len(paths)} images could be read, so nothing was predicted.")
    output.result({"prompt": display_name(prompt), "class_names": list(estimator.class_names_), "predictions": rows})


def predictions(estimator: ClipClassifier, paths: Sequence[Path], topk: int, skip: bool) -> Iterator[Row]:
    """One row per image, in order.

    Raises:
        BadImageError: an image cannot be read, and `skip` is off.
    """
    if len(paths) <= CHUNK:  # its features have a bar of their own
        yield from _chunk(estimator, paths, topk, skip)
        return
    with tracked("predicting", len(paths)) as progress:
        for start in range(0, len(paths), CHUNK):
            yield from _chunk(estimator, paths[start : start + CHUNK], topk, skip)
            progress.update(min(start + CHUNK, len(paths)))


def _chunk(estimator: ClipClassifier, paths: Sequence[Path], topk: int, skip: bool) -> Iterator[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedImageWarning)  # every image is named by its row
        try:
            found = estimator.image_features(list(paths), "skip" if skip else "fail")
        except DataError:
            reasons = [_reason(path) for path in paths] if skip else []
            if not reasons or None in reasons:
                raise
            yield from (Row(path, error=reason) for path, reason in zip(paths, reasons, strict=True))
            return
    probabilities = estimator.predict_proba(found.features[0])
    order = (-probabilities).argsort(axis=1, kind="stable")[:, :topk]
    place = {position: row for row, position in enumerate(found.kept)}
    reasons = iter(found.skipped)
    for position, path in enumerate(paths):
        if position not in place:
            yield Row(path, error=next(reasons)[1])
            continue
        row = place[position]
        yield Row(path, tuple((estimator.class_names_[c], float(probabilities[row, c])) for c in order[row]))


def _reason(path: Path) -> str | None:
    """Why an image cannot be read; None when it can."""
    try:
        open_image(path)
    except BadImageError as error:
        return str(error)
    return None


def _as_dict(row: Row) -> dict[str, Any]:
    path = os.fspath(row.path)
    if row.error is not None:
        return {"path": path, "error": row.error}
    top = [{"class": name, "probability": probability} for name, probability in row.best]
    return {"path": path, **top[0], **({"top": top} if len(top) > 1 else {})}


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
        several = [f"{name}_{i + 1}" for i in range(self.topk) for name in ("class", "probability")]
        self._write(["path", *(several if self.topk > 1 else ["class", "probability"]), "error"])

    def row(self, row: Row) -> None:
        """An image that was left out has empty cells and says why in the last one."""
        cells = [cell for name, share in row.best for cell in (name, f"{share:.6f}")] or [""] * (2 * self.topk)
        self._write([os.fspath(row.path), *cells, row.error or ""])

    def _write(self, cells: list[str]) -> None:
        text = io.StringIO()
        csv.writer(text, lineterminator="").writerow(cells)
        if self.output.json or sys.stdout.isatty():
            self.output.say(display_name(text.getvalue()))
            return
        # Names keep their bytes, so that what reads the file finds the images.
        sys.stdout.buffer.write((text.getvalue() + "\n").encode("utf-8", "surrogateescape"))
        sys.stdout.buffer.flush()


class JsonlPrinter(Printer):
    """One JSON object per line."""

    def begin(self) -> None:
        """Nothing stands above."""

    def row(self, row: Row) -> None:
        """path, class, probability (and `top` when there are several), or path and error."""
        self.output.line(json.dumps(_as_dict(row)))


def read_class_names(classes: str | None, file: Path | None) -> list[str] | None:
    """Class names of `--classes` or `--classes-file`; None when neither is given.

    Raises:
        ParameterError: both are given, or the file cannot be read.
    """
    if classes is not None and file is not None:
        raise ParameterError("--classes and --classes-file exclude each other: give one of them.")
    if file is not None:
        try:
            lines = file.read_text(encoding="utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or error
            raise ParameterError(f"The file of class names '{display_name(file)}' cannot be read: {reason}.") from error
    elif classes is not None:
        lines = classes.split(",")
    else:
        return None
    names = [line.strip() for line in lines if line.strip()]
    if not names:
        where = "--classes" if file is None else f"The file of class names '{display_name(file)}'"
        raise ParameterError(f"{where} names no class. Expected at least two.")
    return names
