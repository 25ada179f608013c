"""What a report shows, as data: everything is measured here, and the page only draws it.

Notation: n images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from coopt.data import Split
from coopt.evaluation import Evaluation, compare, confusion_counts, most_mistaken, surest_mistakes
from coopt.methods.base import ClipClassifier
from coopt.methods.learned import LearnedMethod
from coopt.prompts.words import distance_scale

BINS = 10
"""Of a reliability diagram, of equal width."""

MOST_MISTAKES, MOST_SUSPICIOUS, MOST_CONFUSED = 24, 12, 25
"""Pictures of mistakes and of doubtful labels, and classes up to which all are in the confusion matrix."""


@dataclass(frozen=True)
class Seen:
    """What a classifier says of labelled images.

    Attributes:
        paths: the images.
        root: the folder that their names are counted from.
        probabilities: (n, C).
        targets: the true classes.
        names: of the classes.
    """

    paths: Sequence[Path]
    root: Path
    probabilities: Float[np.ndarray, "n classes"]
    targets: Int[np.ndarray, " n"]
    names: Sequence[str]

    @classmethod
    def of(cls, scores: Float[np.ndarray, "n classes"], images: Split, root: Path, names: Sequence[str]) -> Seen:
        """From scores before the softmax."""
        index = {name: i for i, name in enumerate(names)}
        targets = np.array([index[label] for label in images.labels], dtype=np.int64)
        return cls(images.paths, root, softmax(scores.astype(np.float64), axis=1), targets, names)

    @property
    def predicted(self) -> Int[np.ndarray, " n"]:
        """The most probable class of each."""
        return self.probabilities.argmax(axis=1)

    @property
    def evaluation(self) -> Evaluation:
        """The numbers."""
        return compare(self.targets, self.predicted, self.names)

    def contradicted(self, most: int) -> list[dict[str, Any]]:
        """The images that are taken for another class, the surest first."""
        order, predicted = surest_mistakes(self.probabilities, self.targets)[:most], self.predicted
        return [
            {
                "file": file_in(self.paths[i], self.root),
                "label": self.names[int(self.targets[i])],
                "taken_for": self.names[int(predicted[i])],
                "probability_of_label": float(self.probabilities[i, self.targets[i]]),
                "probability": float(self.probabilities[i, predicted[i]]),
            }
            for i in order.tolist()
        ]


def file_in(path: Path, root: Path) -> str:
    """The name of an image as a report has it, which goes to others: without the folders above the data."""
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name


def reliability(seen: Seen) -> dict[str, Any]:
    """How often the most probable class is the true one, by its probability.

    Returns:
        "bins": of equal width, each with "low", "high", "n", "confidence" (the mean probability) and "accuracy";
        "ece": the expected calibration error (Naeini et al., AAAI 2015): the mean distance of the two, by images.
    """
    sure = seen.probabilities.max(axis=1)
    right = seen.predicted == seen.targets
    places = np.minimum((sure * BINS).astype(int), BINS - 1)
    bins, error = [], 0.0
    for i in range(BINS):
        inside = places == i
        n = int(inside.sum())
        values = {"confidence": float(sure[inside].mean()), "accuracy": float(right[inside].mean())} if n else {}
        bins.append({"low": i / BINS, "high": (i + 1) / BINS, "n": n, **values})
        error += n * abs(values["confidence"] - values["accuracy"]) if n else 0.0
    return {"bins": bins, "ece": error / len(sure)}


def measured(name: str, seen: Seen) -> dict[str, Any]:
    """A line of the table of accuracies."""
    evaluation = seen.evaluation
    shown = {"accuracy": evaluation.accuracy, "interval": list(evaluation.interval), "macro_f1": evaluation.macro_f1}
    return {"name": name, "n": evaluation.n, **shown, "reliability": reliability(seen)}


def classes(learned: Seen, hand_made: Seen, train: Split | None) -> list[dict[str, Any]]:
    """Every class with images to measure on, the weakest first."""
    before = {one.name: one.accuracy for one in hand_made.evaluation.classes}
    learned_from = {} if train is None else train.counts
    rows = [
        {
            "name": one.name,
            "n": one.n,
            "learned_from": learned_from.get(one.name, 0),
            "learned": one.accuracy,
            "hand_made": before.get(one.name),
        }
        for one in learned.evaluation.classes
    ]
    return sorted(rows, key=lambda row: (row["learned"], row["name"]))


def confusion(seen: Seen) -> dict[str, Any]:
    """Images by true and predicted class; of many classes those with the most mistakes."""
    counts, names = confusion_counts(seen.targets, seen.predicted, seen.names)
    shown = most_mistaken(counts, MOST_CONFUSED)
    return {
        "names": [names[int(i)] for i in shown],
        "counts": counts[np.ix_(shown, shown)].tolist(),
        "left_out": len(seen.names) - len(shown),
        "pairs": [asdict(one) for one in seen.evaluation.confusions[:MOST_CONFUSED]],
    }


def words(estimator: ClipClassifier) -> dict[str, Any] | None:
    """The words nearest to each learned vector, and how near is near; None for a method without."""
    nearest = getattr(estimator, "nearest_words", None)
    if nearest is None:
        return None
    near = nearest(5)
    of_class = None
    if isinstance(near, dict):
        of_class = next(iter(near))
        near = near[of_class]
    return {
        "of_class": of_class,
        "vectors": [[{"word": one.word, "distance": one.distance} for one in row] for row in near],
        "scale": distance_scale(estimator.backbone_),
    }


def losses(estimator: ClipClassifier) -> list[float]:
    """Of every epoch; none for a method without."""
    return list(estimator.losses_) if isinstance(estimator, LearnedMethod) and "losses_" in vars(estimator) else []


def shown_pairs(pairs: Sequence[tuple[Path, Path]], root: Path) -> list[list[str]]:
    """Pairs of images that show the same, by name."""
    return [[file_in(one, root), file_in(other, root)] for one, other in pairs]
