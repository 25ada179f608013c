"""Classifying images with a saved prompt: images in, classes out, a bounded number of them at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coopt import events
from coopt.app.classifying import predictions
from coopt.app.contact_sheet import ContactSheet, check_sheet
from coopt.app.placing import Placer
from coopt.app.prediction_file import PredictionFile
from coopt.app.prediction_input import PredictionInput
from coopt.app.prediction_rows import (
    Predicted,
    PredictedRow,
    PredictionsBegun,
    Shape,
    as_dict,
    csv_header,
    csv_line,
    line_of,
    read_rows,
)
from coopt.app.requests import PredictRequest
from coopt.data.file_names import display_name
from coopt.errors import DataError, Interrupted, SavedFileError, SkippedImageWarning
from coopt.locks import writing_file, writing_folder
from coopt.wording import called, counted, on_command_line, setting

if TYPE_CHECKING:
    from coopt.methods.base import ClipClassifier

MOST_NAMED = 20
"""Images left out that are warned of one by one while rows go into a file, which names all of them."""


@dataclass(frozen=True)
class PredictionResult:
    """What came of a prediction.

    Attributes:
        prompt: its name for people.
        class_names: that were chosen among.
        rows: one for each image, in order; None where they are in a file, or were not to be kept.
        out: the file; None: there is none.
        images, left_out: rows in the file, and how many of them could not be read.
        contact_sheet: the page.
        placed, there_already, missing: images that were copied or moved, that lay there before, that are nowhere.
        warnings: what was warned of.
    """

    prompt: str
    class_names: tuple[str, ...]
    rows: tuple[PredictedRow, ...] | None = None
    out: Path | None = None
    images: int | None = None
    left_out: int | None = None
    contact_sheet: Path | None = None
    placed: int | None = None
    there_already: int | None = None
    missing: int | None = None
    warnings: tuple[events.Warned, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON, without what was not asked for."""
        files = {"out": self.out, "contact_sheet": self.contact_sheet}
        numbers = ("images", "left_out", "placed", "there_already", "missing")
        return {
            "prompt": self.prompt,
            "class_names": list(self.class_names),
            **({} if self.rows is None else {"predictions": [as_dict(row) for row in self.rows]}),
            **{name: display_name(file) for name, file in files.items() if file is not None},
            **{name: value for name in numbers if (value := getattr(self, name)) is not None},
            "warnings": [one.to_record() for one in self.warnings],
        }


def predict(
    prompt: PredictRequest | str | Path,
    images: str | PathLike[str] | Sequence[str | PathLike[str]] | None = None,
    **options: Any,
) -> PredictionResult:
    """Classifies images; memory does not grow with their number, as long as their rows are not kept.

    Args:
        prompt: a folder that a fit wrote; or the whole request.
        images: files, folders and globs.
        options: fields of `PredictRequest`.

    Raises:
        CooptError: anything wrong with the prompt or the images; also when none of the images could be read.
        Interrupted: Ctrl-C, while rows go into a file: says how many are kept.
    """
    given = {} if images is None else {"images": images}
    if isinstance(prompt, PredictRequest):
        request = PredictRequest.of(prompt, **given, **options)
    else:
        request = PredictRequest.of(prompt=prompt, **given, **options)
    if request.out is not None and request.form is None and request.out.suffix.lower() in (".csv", ".jsonl"):
        request = replace(request, form="csv" if request.out.suffix.lower() == ".csv" else "jsonl")
    with events.warnings_collected() as warned, ExitStack() as held:
        run = _Prediction(request)
        if run.input.placement is not None:
            held.enter_context(writing_folder(run.input.placement.folder, called(f"{run.input.placement.how}_to")))
        if request.contact_sheet is not None:
            held.enter_context(writing_file(request.contact_sheet, called("contact_sheet")))
            check_sheet(request.contact_sheet)
        return replace(run.run(), warnings=tuple(warned))


class _NothingToDo(Exception):  # noqa: N818 - all is well
    """All images that were named lie in the folders of classes already."""


class _Prediction:
    """One run."""

    def __init__(self, request: PredictRequest) -> None:
        self.request, self.input = request, PredictionInput(request)

    def run(self) -> PredictionResult:
        """Into the file, or as events and a result."""
        request = self.request
        result = PredictionResult(display_name(request.prompt), self.input.names)
        try:
            if request.out is None:
                return replace(result, **self._tell())
            with PredictionFile(request.out, self.input.settings(), request.overwrite) as file:
                known = self._look_at(file) if file.finished else self._write(file)
                return replace(result, out=request.out, **known, **self._use(file))
        except _NothingToDo:
            return replace(result, rows=())

    def _loaded(self) -> tuple[ClipClassifier, Shape]:
        from coopt.app.loading import load_prompt  # needs torch

        request = self.request
        estimator = load_prompt(request, request.class_names)
        estimator.set_params(runtime__cache=request.cache)
        topk = min(request.topk, len(estimator.class_names_))
        return estimator, Shape(topk, request.min_confidence is not None)

    def _tell(self) -> dict[str, Any]:
        """Predicts and tells; each image is copied, moved or shown once its row is told."""
        total = self._count()
        estimator, shape = self._loaded()
        names = tuple(estimator.class_names_)
        sheet, placer = self._sheet(names), self._placer(names)
        uses = [use.add for use in (sheet, placer) if use is not None]
        kept: list[PredictedRow] = []
        done = read = 0
        events.emit(PredictionsBegun(names, shape))
        for chunk in predictions(estimator, self.request, shape, self.input.paths(), total):
            for row in chunk:
                done, read = done + 1, read + (row.error is None)
                if row.error is not None:
                    _warn_of_skipped(f"Left out: {row.error}")
                if self.request.keep_rows:
                    kept.append(row)
                events.emit(Predicted(row))
                for use in uses:
                    use(row)
        if done == 0 and self.input.placed_before:
            self._nothing_to_place()
        _check_some_were_read(read, done)
        rows = tuple(kept) if self.request.keep_rows else None
        return {"class_names": names, "rows": rows, **_written(sheet), **_placed(placer)}

    def _count(self) -> int | None:
        total = self.input.count()
        if total == 0:
            self._nothing_to_place()
        if self.input.placed_before:
            before = counted(self.input.placed_before, "image")
            events.say(f"Left out, since in the folders of classes already: {before}.")
        return total

    def _nothing_to_place(self) -> None:
        """Ends well: the same was asked for again when all was done."""
        assert self.input.placement is not None
        events.say(
            f"Nothing to do: all that was found ({counted(self.input.placed_before, 'image')}) lies in the folders of classes "
            f"in '{display_name(self.input.placement.folder)}' already."
        )
        raise _NothingToDo

    def _write(self, file: PredictionFile) -> dict[str, Any]:
        """Predicts into a file, from where an earlier run stopped."""
        total = self._count()
        estimator, shape = self._loaded()
        paths, form = self.input.paths(), self.request.form
        try:
            if file.rows:
                file.pass_over(paths)
                events.say(f"Going on after {counted(file.rows, 'image')}, where an earlier run stopped.")
            file.begin()
            if not file.rows and form == "csv":
                file.write(csv_line(csv_header(shape)))
            for chunk in predictions(estimator, self.request, shape, paths, total, file.rows):
                bad = [row.error for row in chunk if row.error is not None]
                for reason in bad[: max(0, MOST_NAMED - file.left_out)]:
                    _warn_of_skipped(f"Left out: {reason}")
                file.write(b"".join(line_of(row, shape, form) for row in chunk))
                file.commit([row.path for row in chunk], len(bad))
        except KeyboardInterrupt:
            same = "the same command" if on_command_line() else "the same call"
            same += f" without {setting('overwrite', True)}" if self.request.overwrite else ""
            raise Interrupted(
                f"Interrupted after {counted(file.rows, 'image')}, whose rows are kept: {same} goes on from there."
            ) from None
        if not file.rows and self.input.placed_before:
            self._nothing_to_place()
        file.finish()
        if file.left_out > MOST_NAMED:
            _warn_of_skipped(f"{file.left_out} images were left out; the rows without a class name them all.")
        return _said(file, "")

    def _look_at(self, file: PredictionFile) -> dict[str, Any]:
        """A finished file of an earlier run: nothing is predicted."""
        placement = self.input.placement
        moving = file.moved_to is not None
        other = str(placement or "") != file.moved_to
        if moving and other and (placement is not None or not file.moved):
            began = "its images were moved" if file.moved else "moving its images was stopped before the end"
            raise SavedFileError(
                f"'{display_name(file.path)}' is complete, but {began} ({display_name(file.moved_to or '')}). Give that "
                f"option again, or choose another {called('out')}."
            )
        if not moving or file.moved:
            file.check_complete(self._still_there() if moving else self.input.paths())
        return _said(file, "is complete: ")

    def _still_there(self) -> Iterator[Path]:
        """The images, of which none may be left once they were moved."""
        with suppress(DataError):
            yield from self.input.paths()

    def _use(self, file: PredictionFile) -> dict[str, Any]:
        """The contact sheet, and copying or moving, from the rows of the finished file: both can be had later too."""
        names, page = self.input.names, self.request.contact_sheet
        used: dict[str, Any] = {}
        if page is not None and file.moved_to is not None:
            if not page.exists():
                moved = f"the images were moved ({display_name(file.moved_to)})"
                events.emit(events.Warned(f"No contact sheet was made: {moved}."))
        elif (sheet := self._sheet(names)) is not None:
            for row in self._rows_of(file):
                sheet.add(row)
            used |= _written(sheet)
        if file.moved or (placer := self._placer(names)) is None:
            return used
        moving = placer.placement.how == "move"
        if moving:
            file.begin_moving(str(placer.placement))
        for row in self._rows_of(file):
            placer.add(row)
        if moving:
            file.finish_moving(row.path for row in read_rows(file.path, self.request.form))
        return {**used, **_placed(placer)}

    def _rows_of(self, file: PredictionFile) -> Iterator[PredictedRow]:
        """The rows, with paths that lead to the images from here."""
        elsewhere = file.folder != Path.cwd()
        for row in read_rows(file.path, self.request.form):
            yield replace(row, path=file.folder / row.path) if elsewhere else row

    def _sheet(self, class_names: Sequence[str]) -> ContactSheet | None:
        page = self.request.contact_sheet
        if page is None:
            return None
        title = f"Images classified with '{self.request.prompt}'"
        return ContactSheet(page, title, class_names, self.request.min_confidence)

    def _placer(self, class_names: Sequence[str]) -> Placer | None:
        return None if self.input.placement is None else Placer(self.input.placement, class_names)


def _warn_of_skipped(message: str) -> None:
    events.emit(events.Warned(message, SkippedImageWarning.__name__))


def _check_some_were_read(read: int, done: int) -> None:
    if read == 0:
        raise DataError(f"None of the {done} images could be read, so nothing was predicted.")


def _said(file: PredictionFile, how: str) -> dict[str, Any]:
    read = file.rows - file.left_out
    _check_some_were_read(read, file.rows)
    name = display_name(file.path)
    if how:
        events.say(f"'{name}' {how}{counted(read, 'image')} classified, {file.left_out} left out.")
    else:
        events.say(f"{counted(read, 'image')} classified, {file.left_out} left out: '{name}'.")
    return {"images": file.rows, "left_out": file.left_out}


def _written(sheet: ContactSheet | None) -> dict[str, Any]:
    if sheet is None:
        return {}
    sheet.write()
    events.say(f"Contact sheet: '{display_name(sheet.file)}'.")
    return {"contact_sheet": sheet.file}


def _placed(placer: Placer | None) -> dict[str, Any]:
    if placer is None:
        return {}
    events.say(placer.said())
    return {"placed": placer.placed, "there_already": placer.there, "missing": placer.missing}
