"""What an evaluation leaves in a folder: the confusion matrix and the mistakes, to be looked at and to be counted with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from coopt.app.prediction_rows import csv_line
from coopt.files import write_bytes, write_json

EVALUATION, CONFUSION, PICTURE, MISTAKES = "evaluation.json", "confusion.csv", "confusion.png", "mistakes.csv"
MOST_CLASSES = 1000
"""Of a confusion matrix; of more, those are left out that have neither an image nor a prediction."""


def write_evaluation(
    folder: Path,
    document: dict[str, Any],
    paths: Sequence[Path],
    scores: Float[np.ndarray, "n classes"],
    targets: Int[np.ndarray, " n"],
    names: Sequence[str],
) -> None:
    """Writes what is known of each image, all of it together, and as numbers.

    Args:
        folder: made if need be.
        document: the evaluation.
        paths: of the images.
        scores: before the softmax.
        targets: the true classes.
        names: of the classes.

    Raises:
        SavedFileError: a file cannot be written.
    """
    from coopt.report.confusion import confusion_figure
    from coopt.report.figures import save_figure

    predicted = scores.argmax(axis=1)
    counts, shown = _counted(targets, predicted, names)
    write_bytes(folder / MISTAKES, _mistakes(paths, scores, targets, predicted, names))
    lines = [csv_line([r"true \ predicted", *shown])]
    lines += [csv_line([name, *map(str, row)]) for name, row in zip(shown, counts.tolist(), strict=True)]
    write_bytes(folder / CONFUSION, b"".join(lines))
    save_figure(confusion_figure(counts, shown), folder / Path(PICTURE).stem, formats=("png",))
    write_json(folder / EVALUATION, document)


def _counted(
    targets: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], names: Sequence[str]
) -> tuple[Int[np.ndarray, "classes classes"], list[str]]:
    """Images by true and predicted class, and the names of these classes."""
    classes = np.arange(len(names)) if len(names) <= MOST_CLASSES else np.unique(np.concatenate([targets, predicted]))
    row_of = np.zeros(len(names), dtype=np.int64)
    row_of[classes] = np.arange(len(classes))
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (row_of[targets], row_of[predicted]), 1)
    return counts, [names[int(i)] for i in classes]


def _mistakes(
    paths: Sequence[Path],
    scores: Float[np.ndarray, "n classes"],
    targets: Int[np.ndarray, " n"],
    predicted: Int[np.ndarray, " n"],
    names: Sequence[str],
) -> bytes:
    wrong = np.flatnonzero(predicted != targets)
    shifted = scores[wrong].astype(np.float64)
    shares = np.exp(shifted - shifted.max(axis=1, keepdims=True)) if len(wrong) else shifted
    shares /= shares.sum(axis=1, keepdims=True)
    rows = np.arange(len(wrong))
    of_true, of_predicted = shares[rows, targets[wrong]], shares[rows, predicted[wrong]]
    lines = [csv_line(["path", "true", "predicted", "probability_true", "probability_predicted"])]
    for row in np.argsort(-of_predicted, kind="stable"):
        image = int(wrong[row])
        cells = [os.fspath(paths[image]), names[int(targets[image])], names[int(predicted[image])]]
        lines.append(csv_line([*cells, f"{of_true[row]:.6f}", f"{of_predicted[row]:.6f}"]))
    return b"".join(lines)
