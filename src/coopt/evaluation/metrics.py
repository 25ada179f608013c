"""How good predictions are: accuracy, macro-F1, and where the mistakes lie.

Everything is in percent and unrounded (CoOp's reference implementation rounds before it averages over seeds).
Classes without an image say nothing and are left out of the means over classes, as in the reference.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import binomtest
from scipy.stats import t as student_t
from sklearn.metrics import accuracy_score, confusion_matrix, precision_recall_fscore_support

from coopt.data import as_class_names, encode_labels
from coopt.errors import DataError
from coopt.methods.base import ClipClassifier

MOST_COUNTED = 1000
"""Classes of a confusion matrix; of more, those are left out that have neither an image nor a prediction."""

_Seed = TypeVar("_Seed", bound=Hashable)


@dataclass(frozen=True)
class ClassAccuracy:
    """How one class fared: its name, its number of images, and the share of them that was recognised (percent)."""

    name: str
    n: int
    accuracy: float


@dataclass(frozen=True)
class Confusion:
    """How often images of the class `true` were taken for the class `predicted`."""

    true: str
    predicted: str
    count: int


@dataclass(frozen=True)
class Evaluation:
    """What predictions on labelled images were worth.

    Attributes:
        n: images.
        accuracy: share of images that were recognised (percent).
        macro_f1: mean of the classes' F1 scores (percent).
        mean_class_accuracy: mean of the classes' accuracies (percent).
        classes: every class that has images, in the order of the class names.
        confusions: pairs of classes that were mixed up, the most frequent first.
    """

    n: int
    accuracy: float
    macro_f1: float
    mean_class_accuracy: float
    classes: tuple[ClassAccuracy, ...]
    confusions: tuple[Confusion, ...]

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy (percent), as far as so many images can tell."""
        return accuracy_interval(self.accuracy, self.n)

    def chance(self, n_classes: int) -> float:
        """The accuracy (percent) of guessing among so many classes, or of naming the most frequent one each time."""
        return 100 * max(1 / n_classes, max(one.n for one in self.classes) / self.n)

    def worst_classes(self, k: int = 5) -> tuple[ClassAccuracy, ...]:
        """The `k` classes with the lowest accuracy, the worst first; of equals the one with more images."""
        return tuple(sorted(self.classes, key=lambda one: (one.accuracy, -one.n, one.name))[:k])

    def to_dict(self, confusions: int = 20) -> dict[str, Any]:
        """Ready for JSON, with at most so many `confusions`."""
        values = asdict(self)
        values["confusions"] = values["confusions"][:confusions]
        return {**values, "interval": list(self.interval)}


def accuracy_interval(accuracy: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval (percent) of an accuracy (percent) that was measured on `n` images."""
    interval = binomtest(round(n * accuracy / 100), n).proportion_ci(0.95, method="wilson")
    return 100 * float(interval.low), 100 * float(interval.high)


def evaluate(
    estimator: ClipClassifier, images: Any, labels: Any, class_names: Sequence[str] | None = None
) -> Evaluation:
    """Lets a fitted estimator predict and compares with the labels.

    Args:
        estimator: any method.
        images: whatever `estimator.predict` takes; features that were computed before save the image tower's work.
        labels: one per image, class names or integers.
        class_names: the classes to choose among; None: the estimator's.

    Raises:
        DataError: a label is not among the classes, or the numbers of images and labels differ.
        ParameterError: other classes than the estimator's are asked for, and what it learned belongs to its own.
    """
    scores, targets, names = scores_among(estimator, images, labels, class_names)
    return compare(targets, scores.argmax(axis=1), names)


def scores_among(
    estimator: ClipClassifier, images: Any, labels: Any, class_names: Sequence[str] | None = None
) -> tuple[Float[np.ndarray, "n classes"], Int[np.ndarray, " n"], tuple[str, ...]]:
    """Scores before the softmax, the true classes, and the names of the classes chosen among; see `evaluate`."""
    asked = estimator.class_names_ if class_names is None else as_class_names(class_names)
    scores, names = _logits_among(estimator, images, asked)
    targets, names = encode_labels(labels, list(names), len(scores))
    return scores, targets, tuple(names)


def _logits_among(
    estimator: ClipClassifier, images: Any, class_names: Sequence[str]
) -> tuple[Float[np.ndarray, "n classes"], tuple[str, ...]]:
    """Scores of the classes that are asked for: those learned, some of them, or others."""
    column = {name: i for i, name in enumerate(estimator.class_names_)}
    if all(name in column for name in class_names):
        return estimator.logits(images)[:, [column[name] for name in class_names]], tuple(class_names)
    other = estimator.with_classes(class_names)
    return other.logits(images), other.class_names_


def compare(targets: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], class_names: Sequence[str]) -> Evaluation:
    """The evaluation of class indices against the true ones.

    Raises:
        DataError: there are no images.
    """
    if len(targets) == 0:
        raise DataError("Got no images to evaluate on. Expected at least one.")
    present: list[int] = np.unique(targets).tolist()
    _, recall, f1, counts = precision_recall_fscore_support(targets, predicted, labels=present, zero_division=0)  # type: ignore[arg-type]
    per_class = 100 * np.asarray(recall)
    return Evaluation(
        n=len(targets),
        accuracy=100 * float(accuracy_score(targets, predicted)),
        macro_f1=100 * float(np.mean(f1)),
        mean_class_accuracy=float(per_class.mean()),
        classes=tuple(
            ClassAccuracy(class_names[c], int(n), float(share))
            for c, n, share in zip(present, np.asarray(counts), per_class, strict=True)
        ),
        confusions=_confusions(targets, predicted, class_names),
    )


def _confusions(
    targets: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> tuple[Confusion, ...]:
    occurring: list[int] = np.unique(np.concatenate([targets, predicted])).tolist()
    matrix = confusion_matrix(targets, predicted, labels=occurring)
    np.fill_diagonal(matrix, 0)
    # Stable: of equally frequent pairs the one whose classes come first is named first.
    pairs = sorted(np.argwhere(matrix).tolist(), key=lambda pair: -matrix[pair[0], pair[1]])
    return tuple(Confusion(class_names[occurring[t]], class_names[occurring[p]], int(matrix[t, p])) for t, p in pairs)


def confusion_counts(
    targets: Int[np.ndarray, " n"], predicted: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> tuple[Int[np.ndarray, "classes classes"], list[str]]:
    """Images by true and predicted class, and the names of these classes: all of them, or of many those that occur."""
    many = len(class_names) > MOST_COUNTED
    classes = np.unique(np.concatenate([targets, predicted])) if many else np.arange(len(class_names))
    row_of = np.zeros(len(class_names), dtype=np.int64)
    row_of[classes] = np.arange(len(classes))
    counts = np.zeros((len(classes), len(classes)), dtype=np.int64)
    np.add.at(counts, (row_of[targets], row_of[predicted]), 1)
    return counts, [class_names[int(i)] for i in classes]


def most_mistaken(counts: Int[np.ndarray, "classes classes"], most: int) -> Int[np.ndarray, " shown"]:
    """Rows of a confusion matrix, in their order: of more than so many those with the most mistakes."""
    if len(counts) <= most:
        return np.arange(len(counts))
    mistakes = counts.sum(axis=0) + counts.sum(axis=1) - 2 * counts.diagonal()
    return np.sort(np.argsort(-mistakes, kind="stable")[:most])


def surest_mistakes(
    probabilities: Float[np.ndarray, "n classes"], targets: Int[np.ndarray, " n"]
) -> Int[np.ndarray, " wrong"]:
    """Which images are taken for another class, the most probable mistake first."""
    wrong = np.flatnonzero(probabilities.argmax(axis=1) != targets)
    return wrong[np.argsort(-probabilities[wrong].max(axis=1, initial=0.0), kind="stable")]


@dataclass(frozen=True)
class Summary:
    """Several runs (seeds) of one thing in numbers.

    Of the two intervals, the papers' is for comparing with published ones. It takes the deviation of so few seeds for the
    true one, and covers the true mean less often than it says: at three seeds in 75% of cases. Student's covers it in
    95%, if seeds scatter normally (W. S. Gosset, "The Probable Error of a Mean", Biometrika 1908).

    Attributes:
        mean: their mean.
        std: their standard deviation (of the runs themselves: ddof=0).
        interval: half of the 95% interval of the mean as papers report it, 1.96 std / sqrt(n).
        n: how many runs.
        t_interval: half of Student's 95% interval of the mean, t s / sqrt(n), with the deviation s of ddof=1 and the
            quantile t of n - 1 degrees of freedom; None for a single run, which tells nothing of the spread.
    """

    mean: float
    std: float
    interval: float
    n: int
    t_interval: float | None = None


def summarize(values: Sequence[float]) -> Summary:
    """Mean, standard deviation and 95% intervals of one number over several runs.

    Raises:
        DataError: there are no values.
    """
    n = len(values)
    if n == 0:
        raise DataError("Got no values to summarize. Expected at least one.")
    std = float(np.std(values))
    t_interval = float(student_t.ppf(0.975, n - 1)) * float(np.std(values, ddof=1)) / math.sqrt(n) if n > 1 else None
    return Summary(float(np.mean(values)), std, 1.96 * std / math.sqrt(n), n, t_interval)


def means_over(several: Sequence[Mapping[_Seed, float]]) -> dict[_Seed, float]:
    """Each seed's mean over several things (data sets, targets); a seed that one of them lacks is left out."""
    first, *others = several
    return {
        seed: float(np.mean([one[seed] for one in several])) for seed in first if all(seed in other for other in others)
    }


def harmonic_mean(base: float, new: float) -> float:
    """Of base and new accuracy (Zhou et al., CVPR 2022, section 4.1); 0 when one of them is."""
    return 0.0 if base <= 0 or new <= 0 else 2 * base * new / (base + new)
