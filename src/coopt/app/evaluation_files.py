"""What an evaluation leaves in a folder: the confusion matrix and the mistakes, to be looked at and to be counted with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from coopt.app.prediction_rows import csv_line
from coopt.evaluation import confusion_counts, surest_mistakes
from coopt.files import write_bytes, write_json

EVALUATION, CONFUSION, PICTURE, MISTAKES = "evaluation.json", "confusion.csv", "confusion.png", "mistakes.csv"


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
    counts, shown = confusion_counts(targets, predicted, names)
    write_bytes(folder / MISTAKES, _mistakes(paths, scores, targets, names))
    lines = [csv_line([r"true \ predicted", *shown])]
    lines += [csv_line([name, *map(str, row)]) for name, row in zip(shown, counts.tolist(), strict=True)]
    write_bytes(folder / CONFUSION, b"".join(lines))
    save_figure(confusion_figure(counts, shown), folder / Path(PICTURE).stem, formats=("png",))
    write_json(folder / EVALUATION, document)


def _mistakes(
    paths: Sequence[Path],
    scores: Float[np.ndarray, "n classes"],
    targets: Int[np.ndarray, " n"],
    names: Sequence[str],
) -> bytes:
    wrong = np.flatnonzero(
        scores.argmax(axis=1) != targets
    )  # few: probabilities of all would take the room of the scores twice
    shares = softmax(scores[wrong].astype(np.float64), axis=1)
    lines = [csv_line(["path", "true", "predicted", "probability_true", "probability_predicted"])]
    for row in surest_mistakes(shares, targets[wrong]).tolist():
        image = int(wrong[row])
        true, predicted = int(targets[image]), int(shares[row].argmax())
        cells = [os.fspath(paths[image]), names[true], names[predicted]]
        lines.append(csv_line([*cells, f"{shares[row, true]:.6f}", f"{shares[row, predicted]:.6f}"]))
    return b"".join(lines)
