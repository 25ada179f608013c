"""`coopt predict`: images in, classes out, a bounded number of them at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from coopt.cli.contact_sheet import ContactSheet, check_sheet
from coopt.cli.output import Output
from coopt.cli.placing import Placer
from coopt.cli.prediction_file import PredictionFile
from coopt.cli.prediction_request import Request
from coopt.cli.prediction_rows import (
    CsvPrinter,
    JsonlPrinter,
    PeoplePrinter,
    Printer,
    Row,
    Shape,
    as_dict,
    csv_header,
    csv_line,
    line_of,
    read_rows,
)
from coopt.data.images import display_name, why_unreadable
from coopt.errors import DataError, Interrupted, SavedFileError, SkippedImageWarning
from coopt.events import tracked
from coopt.locks import writing_file, writing_folder
from coopt.wording import counted

if TYPE_CHECKING:
    from coopt.methods.base import ClipClassifier

CHUNK = 512
"""Images at a time: rows appear early, and memory does not grow with their number."""

MOST_NAMED = 20
"""Images left out that are named on standard error too while rows go into a file, which names all of them."""


def run_predict(request: Request, output: Output) -> None:
    """Predicts and prints or writes rows in the order of the images; memory does not grow with their number.

    Raises:
        CooptError: anything wrong with the prompt or the images; also when none of the images could be read.
    """
    with ExitStack() as held:
        if request.placement is not None:
            held.enter_context(writing_folder(request.placement.folder, request.placement.option))
        if request.sheet is not None:
            held.enter_context(writing_file(request.sheet, "--contact-sheet"))
            check_sheet(request.sheet)
        document: dict[str, Any] = {"prompt": display_name(request.prompt)}
        if request.out is None:
            output.result({**document, **_show(request, output)})
            return
        with PredictionFile(request.out, request.settings(), request.overwrite) as file:
            document["class_names"] = list(request.names)
            document |= _complete(request, file, output) if file.finished else _write(request, file, output)
            document |= _use(request, file, output)
        output.result(document)


def _loaded(request: Request) -> tuple[ClipClassifier, Shape]:
    from coopt.cli.loading import load_prompt  # needs torch

    estimator = load_prompt(request.prompt, request.where, request.class_names)
    estimator.cache = request.cache
    topk = min(request.topk, len(estimator.class_names_))
    return estimator, Shape(topk, request.min_confidence is not None)


def _show(request: Request, output: Output) -> dict[str, Any]:
    """Predicts and prints; each image is copied, moved or shown once its row is printed."""
    total = _count(request, output)
    estimator, shape = _loaded(request)
    printers = {"csv": CsvPrinter, "jsonl": JsonlPrinter}
    printer: Printer = printers.get(request.form or "", PeoplePrinter)(estimator.class_names_, shape, output)
    sheet, placer = _sheet(request, estimator.class_names_), _placer(request, estimator.class_names_, output)
    uses = [use.add for use in (sheet, placer) if use is not None]
    rows: list[dict[str, Any]] = []
    done = read = 0
    printer.begin()
    for chunk in predictions(estimator, request, shape, request.paths(), total):
        for row in chunk:
            done, read = done + 1, read + (row.error is None)
            if row.error is not None:
                output.warn(f"Left out: {row.error}", SkippedImageWarning.__name__)
            if output.json:
                rows.append(as_dict(row))
            else:
                printer.row(row)
            for use in uses:
                use(row)
    if done == 0 and request.placed_before:
        _nothing_to_place(request, output)
    _check_some_were_read(read, done)
    used = {**_written(sheet, output), **_placed(placer, output)}
    return {"class_names": list(estimator.class_names_), "predictions": rows, **used}


def _check_some_were_read(read: int, done: int) -> None:
    if read == 0:
        raise DataError(f"None of the {done} images could be read, so nothing was predicted.")


def _count(request: Request, output: Output) -> int | None:
    total = request.count()
    if total == 0:
        _nothing_to_place(request, output)
    if request.placed_before:
        output.say(f"Left out, since in the folders of classes already: {counted(request.placed_before, 'image')}.")
    return total


def _nothing_to_place(request: Request, output: Output) -> NoReturn:
    """Ends well: the command was given again when all was done."""
    assert request.placement is not None
    folder = display_name(request.placement.folder)
    output.say(
        f"Nothing to do: all that was found ({counted(request.placed_before, 'image')}) lies in the folders of classes "
        f"in '{folder}' already."
    )
    output.result({"prompt": display_name(request.prompt), "class_names": list(request.names), "predictions": []})
    raise click.exceptions.Exit(0)


def _write(request: Request, file: PredictionFile, output: Output) -> dict[str, Any]:
    """Predicts into a file, from where an earlier run stopped."""
    total = _count(request, output)
    estimator, shape = _loaded(request)
    paths = request.paths()
    try:
        if file.rows:
            file.pass_over(paths)
            output.say(f"Going on after {counted(file.rows, 'image')}, where an earlier run stopped.")
        file.begin()
        if not file.rows and request.form == "csv":
            file.write(csv_line(csv_header(shape)))
        for chunk in predictions(estimator, request, shape, paths, total, file.rows):
            bad = [row.error for row in chunk if row.error is not None]
            for reason in bad[: max(0, MOST_NAMED - file.left_out)]:
                output.warn(f"Left out: {reason}", SkippedImageWarning.__name__)
            file.write(b"".join(line_of(row, shape, request.form) for row in chunk))
            file.commit([row.path for row in chunk], len(bad))
    except KeyboardInterrupt:
        same = "the same command without --overwrite" if request.overwrite else "the same command"
        raise Interrupted(
            f"Interrupted after {counted(file.rows, 'image')}, whose rows are kept: {same} goes on from there."
        ) from None
    if not file.rows and request.placed_before:
        _nothing_to_place(request, output)
    file.finish()
    if file.left_out > MOST_NAMED:
        output.warn(
            f"{file.left_out} images were left out; the rows without a class name them all.",
            SkippedImageWarning.__name__,
        )
    return _said(file, "", output)


def _complete(request: Request, file: PredictionFile, output: Output) -> dict[str, Any]:
    """A finished file of an earlier run: nothing is predicted."""
    moving = file.moved_to is not None
    other = str(request.placement or "") != file.moved_to
    if moving and other and (request.placement is not None or not file.moved):
        began = "its images were moved" if file.moved else "moving its images was stopped before the end"
        raise SavedFileError(
            f"'{display_name(file.path)}' is complete, but {began} ({display_name(file.moved_to or '')}). Give that "
            "option again, or choose another --out."
        )
    if not moving or file.moved:
        file.check_complete(_still_there(request) if moving else request.paths())
    return _said(file, "is complete: ", output)


def _still_there(request: Request) -> Iterator[Path]:
    """The images, of which none may be left once they were moved."""
    with suppress(DataError):
        yield from request.paths()


def _said(file: PredictionFile, how: str, output: Output) -> dict[str, Any]:
    read = file.rows - file.left_out
    _check_some_were_read(read, file.rows)
    name = display_name(file.path)
    if how:
        output.say(f"'{name}' {how}{counted(read, 'image')} classified, {file.left_out} left out.")
    else:
        output.say(f"{counted(read, 'image')} classified, {file.left_out} left out: '{name}'.")
    return {"out": name, "images": file.rows, "left_out": file.left_out}


def _use(request: Request, file: PredictionFile, output: Output) -> dict[str, Any]:
    """The contact sheet, and copying or moving, from the rows of the finished file: both can be had later too."""
    names = request.names
    used: dict[str, Any] = {}
    if request.sheet is not None and file.moved_to is not None:
        if not request.sheet.exists():
            output.warn(f"No contact sheet was made: the images were moved ({display_name(file.moved_to)}).")
    elif (sheet := _sheet(request, names)) is not None:
        for row in _rows_of(request, file):
            sheet.add(row)
        used |= _written(sheet, output)
    if file.moved or (placer := _placer(request, names, output)) is None:
        return used
    moving = placer.placement.how == "move"
    if moving:
        file.begin_moving(str(placer.placement))
    for row in _rows_of(request, file):
        placer.add(row)
    if moving:
        file.finish_moving(row.path for row in read_rows(file.path, request.form))
    return {**used, **_placed(placer, output)}


def _rows_of(request: Request, file: PredictionFile) -> Iterator[Row]:
    """The rows, with paths that lead to the images from here."""
    elsewhere = file.folder != Path.cwd()
    for row in read_rows(file.path, request.form):
        yield replace(row, path=file.folder / row.path) if elsewhere else row


def _sheet(request: Request, class_names: Sequence[str]) -> ContactSheet | None:
    if request.sheet is None:
        return None
    return ContactSheet(
        request.sheet, f"Images classified with '{request.prompt}'", class_names, request.min_confidence
    )


def _placer(request: Request, class_names: Sequence[str], output: Output) -> Placer | None:
    return None if request.placement is None else Placer(request.placement, class_names, output)


def _written(sheet: ContactSheet | None, output: Output) -> dict[str, Any]:
    if sheet is None:
        return {}
    sheet.write()
    output.say(f"Contact sheet: '{display_name(sheet.file)}'.")
    return {"contact_sheet": display_name(sheet.file)}


def _placed(placer: Placer | None, output: Output) -> dict[str, Any]:
    if placer is None:
        return {}
    output.say(placer.said())
    return {"placed": placer.placed, "there_already": placer.there, "missing": placer.missing}


def predictions(
    estimator: ClipClassifier,
    request: Request,
    shape: Shape,
    paths: Iterator[Path],
    total: int | None,
    done: int = 0,
) -> Iterator[list[Row]]:
    """One row per image, in order, a bounded number at a time.

    Args:
        estimator: a fitted one.
        request: what is asked for; with `skip`, an image that cannot be read is given a row that says so.
        shape: how many classes per image.
        paths: the images; no more are taken than are worked on.
        total: how many images there are; None: not known.
        done: images that an earlier run has done, for the progress shown.

    Raises:
        BadImageError: an image cannot be read, and is not to be left out.
    """
    alone = total is not None and total - done <= CHUNK  # its features have a bar of their own
    with nullcontext() if alone else tracked("predicting", total, done) as progress:
        while chunk := list(islice(paths, CHUNK)):
            yield list(_chunk(estimator, chunk, shape.topk, request.skip, request.min_confidence or 0.0))
            done += len(chunk)
            if progress is not None:
                progress.update(done)


def _chunk(estimator: ClipClassifier, paths: Sequence[Path], topk: int, skip: bool, least: float) -> Iterator[Row]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedImageWarning)  # every image is named by its row
        try:
            found = estimator.image_features(list(paths), "skip" if skip else "fail")
        except DataError:
            reasons = [why_unreadable(path) for path in paths] if skip else []
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
        best = tuple((estimator.class_names_[c], float(probabilities[row, c])) for c in order[row])
        yield Row(path, best, sure=best[0][1] >= least)
