"""`coopt predict`: images in, classes out, a bounded number of them at a time."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import click

from coopt.cli.group import Interrupted
from coopt.cli.loading import Where, load_prompt
from coopt.cli.output import Output
from coopt.cli.prediction_file import PredictionFile
from coopt.cli.prediction_rows import (
    CsvPrinter,
    JsonlPrinter,
    PeoplePrinter,
    Printer,
    Row,
    as_dict,
    csv_header,
    csv_line,
    line_of,
)
from coopt.data import display_name, open_image
from coopt.data.finding import iter_images
from coopt.data.image_lists import listed_images
from coopt.errors import BadImageError, DataError, ParameterError, SkippedImageWarning
from coopt.methods.base import ClipClassifier
from coopt.progress import tracked

CHUNK = 512
"""Images at a time: rows appear early, and memory does not grow with their number."""

MOST_NAMED = 20
"""Images left out that are named on standard error too while rows go into a file, which names all of them."""


@dataclass(frozen=True)
class Request:
    """What `coopt predict` was asked for.

    Attributes:
        images: files, folders and globs; None: `listed` is taken.
        listed: a file that names images, one per line; "-": standard input.
        form: "csv", "jsonl", or None: for people.
        skip: leave out images that cannot be read.
        out: the file for the rows.
    """

    prompt: Path
    images: Sequence[str] | None
    listed: str | None
    topk: int
    form: Literal["csv", "jsonl"] | None
    class_names: Sequence[str] | None
    where: Where
    skip: bool
    cache: bool
    out: Path | None
    overwrite: bool

    def paths(self) -> Iterator[Path]:
        """The images, found as they are asked for.

        Raises:
            DataError: there are none, or the list cannot be read.
        """
        if self.listed is None:
            yield from iter_images(list(self.images or ()))
            return
        empty = True
        try:
            folder = None if self.listed == "-" else Path(self.listed).parent
            with click.open_file(self.listed, "rb") as lines:
                for path in listed_images(lines, display_name(self.listed), folder):
                    empty = False
                    yield path
        except OSError as error:
            name = display_name(self.listed)
            raise DataError(f"The list of images '{name}' cannot be read: {error.strerror or error}.") from error
        if empty:
            raise DataError(f"The list of images '{display_name(self.listed)}' names none. Expected one path per line.")

    def count(self) -> int | None:
        """How many images there are; None when it can be told only by reading them all from standard input."""
        return None if self.listed == "-" else sum(1 for _ in self.paths())


def run_predict(request: Request, output: Output) -> None:
    """Predicts and prints or writes rows in the order of the images; memory does not grow with their number.

    Raises:
        CooptError: anything wrong with the prompt or the images; also when none of the images could be read.
    """
    total = request.count()
    estimator = load_prompt(request.prompt, request.where, request.class_names)
    estimator.cache = request.cache
    topk = min(request.topk, len(estimator.class_names_))
    document = {"prompt": display_name(request.prompt), "class_names": list(estimator.class_names_)}
    if request.out is not None:
        written = _write(request, estimator, topk, total, output)
        output.result({**document, **written})
        return
    printer: Printer = {"csv": CsvPrinter, "jsonl": JsonlPrinter}.get(request.form or "", PeoplePrinter)(
        estimator.class_names_, topk, output
    )
    rows: list[dict[str, Any]] = []
    done = read = 0
    printer.begin()
    for chunk in predictions(estimator, request.paths(), topk, request.skip, total):
        for row in chunk:
            done, read = done + 1, read + (row.error is None)
            if row.error is not None:
                output.warn(f"Left out: {row.error}", SkippedImageWarning.__name__)
            if output.json:
                rows.append(as_dict(row))
            else:
                printer.row(row)
    _check_some_were_read(read, done)
    output.result({**document, "predictions": rows})


def _check_some_were_read(read: int, done: int) -> None:
    if read == 0:
        raise DataError(f"None of the {done} images could be read, so nothing was predicted.")


def _write(request: Request, estimator: ClipClassifier, topk: int, total: int | None, output: Output) -> dict[str, Any]:
    """Predicts into a file, from where an earlier run stopped."""
    assert request.out is not None
    settings = {
        "prompt": _digest(estimator),
        "backbone": estimator.backbone_.fingerprint,
        "classes": list(estimator.class_names_),
        "topk": topk,
        "form": request.form,
    }
    value_range = estimator.backbone_.preprocessing.value_range
    if value_range is not None:
        settings["value_range"] = list(value_range)
    file = PredictionFile(request.out, settings, request.overwrite)
    try:
        paths = request.paths()
        if file.rows:
            file.pass_over(paths)
            output.say(f"Going on after {file.rows} images, where an earlier run stopped.")
        elif request.form == "csv":
            file.write(csv_line(csv_header(topk)))
        for chunk in predictions(estimator, paths, topk, request.skip, total, file.rows):
            bad = [row.error for row in chunk if row.error is not None]
            for reason in bad[: max(0, MOST_NAMED - file.left_out)]:
                output.warn(f"Left out: {reason}", SkippedImageWarning.__name__)
            file.write(b"".join(line_of(row, topk, request.form) for row in chunk))
            file.commit([row.path for row in chunk], len(bad))
    except KeyboardInterrupt:
        raise Interrupted(
            f"Interrupted after {file.rows} images, whose rows are kept: the same command goes on from there."
        ) from None
    finally:
        file.close()
    file.finish()
    if file.left_out > MOST_NAMED:
        output.warn(
            f"{file.left_out} images were left out; the rows without a class name them all.",
            SkippedImageWarning.__name__,
        )
    _check_some_were_read(file.rows - file.left_out, file.rows)
    name = display_name(request.out)
    output.say(f"{file.rows - file.left_out} images classified, {file.left_out} left out: '{name}'.")
    return {"out": name, "images": file.rows, "left_out": file.left_out}


def _digest(estimator: ClipClassifier) -> str:
    """SHA-256 (hex) of what was learned, and how."""
    parameters = json.dumps([estimator.method, estimator.parameters], sort_keys=True, default=str)
    digest = hashlib.sha256(parameters.encode())
    for name, tensor in sorted(estimator._state().items()):
        digest.update(f"{name} {tuple(tensor.shape)} ".encode() + tensor.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()


def predictions(
    estimator: ClipClassifier, paths: Iterator[Path], topk: int, skip: bool, total: int | None, done: int = 0
) -> Iterator[list[Row]]:
    """One row per image, in order, a bounded number at a time.

    Args:
        estimator: a fitted one.
        paths: the images; no more are taken than are worked on.
        topk: classes per image.
        skip: give an image that cannot be read a row that says so.
        total: how many images there are; None: not known.
        done: images that an earlier run has done, for the progress shown.

    Raises:
        BadImageError: an image cannot be read, and `skip` is off.
    """
    alone = total is not None and total - done <= CHUNK  # its features have a bar of their own
    with nullcontext() if alone else tracked("predicting", total, done) as progress:
        while chunk := list(islice(paths, CHUNK)):
            yield list(_chunk(estimator, chunk, topk, skip))
            done += len(chunk)
            if progress is not None:
                progress.update(done)


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
    probabilities = estimator.predict_proba(found)
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
