"""Rows for images, a bounded number of images at a time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from coopt import events
from coopt.app.prediction_rows import PredictedRow, Shape
from coopt.app.requests import PredictRequest
from coopt.data.images import why_unreadable
from coopt.errors import DataError, SkippedImageWarning

if TYPE_CHECKING:
    from coopt.methods.base import ClipClassifier

CHUNK = 512
"""Images at a time: rows appear early, and memory does not grow with their number."""


def predictions(
    estimator: ClipClassifier,
    request: PredictRequest,
    shape: Shape,
    paths: Iterator[Path],
    total: int | None,
    done: int = 0,
) -> Iterator[list[PredictedRow]]:
    """One row per image, in order, a bounded number at a time.

    Args:
        estimator: a fitted one.
        request: what is asked for; with `on_bad_image="skip"`, an image that cannot be read is given a row that says so.
        shape: how many classes per image.
        paths: the images; no more are taken than are worked on.
        total: how many images there are; None: not known.
        done: images that an earlier run has done, for the progress.

    Raises:
        BadImageError: an image cannot be read, and is not to be left out.
    """
    alone = total is not None and total - done <= CHUNK  # its features tell their progress themselves
    skip, least = request.on_bad_image == "skip", request.min_confidence or 0.0
    with nullcontext() if alone else events.tracked("predicting", total, done) as progress:
        while chunk := list(islice(paths, CHUNK)):
            yield list(_chunk(estimator, chunk, shape.topk, skip, least))
            done += len(chunk)
            if progress is not None:
                progress.update(done)


def _chunk(
    estimator: ClipClassifier, paths: Sequence[Path], topk: int, skip: bool, least: float | int
) -> Iterator[PredictedRow]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SkippedImageWarning)  # every image is named by its row
        try:
            features = estimator.image_features(list(paths), "skip" if skip else "fail")
        except DataError:
            reasons = [why_unreadable(path) for path in paths] if skip else []
            if not reasons or None in reasons:
                raise
            yield from (PredictedRow(path, error=reason) for path, reason in zip(paths, reasons, strict=True))
            return
    probabilities = estimator.predict_proba(features)
    order = (-probabilities).argsort(axis=1, kind="stable")[:, :topk]
    row_of = {position: row for row, position in enumerate(features.kept)}
    reasons = iter(features.skipped)
    for position, path in enumerate(paths):
        if position not in row_of:
            yield PredictedRow(path, error=next(reasons)[1])
            continue
        row = row_of[position]
        best = tuple((estimator.class_names_[c], float(probabilities[row, c])) for c in order[row])
        yield PredictedRow(path, best, sure=best[0][1] >= least)
