"""What came of a run, one method learned once and tested on every target of a protocol, and what decided it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from coopt.errors import SavedFileError
from coopt.evaluation.metrics import Evaluation
from coopt.methods.base import ClipClassifier

NUMBERS = 1
"""Raised when the same setting gives other numbers than it gave before: results of earlier versions are redone then."""


LEARNING = ("text_passes", "stopped")
"""What the results of runs say of learning, where there is something to say."""


@dataclass(frozen=True)
class Setting:
    """All that the numbers of a run depend on, ready for JSON.

    Attributes:
        protocol: see `coopt.evaluation.protocols`.
        method: its name in tables.
        estimator: the method's registered name, as in saved prompts.
        parameters: of the method, with the recipe.
        sampling: see `coopt.evaluation.protocols.Sampling`.
        backbone, preprocessing: fingerprint of the frozen model, and how images are prepared for it.
        dataset, dataset_hash: the data set's name, and SHA-256 of its split.
        targets: name to SHA-256 of the data set tested on.
        shots: labelled images per class; 0 for a method that sees none.
        seed: of the sample and of learning; None for a method that sees no image.
    """

    protocol: str
    method: str
    estimator: str
    parameters: dict[str, Any]
    sampling: str
    backbone: str
    preprocessing: str
    dataset: str
    dataset_hash: str
    targets: dict[str, str]
    shots: int
    seed: int | None

    @property
    def run(self) -> str:
        """SHA-256: runs of equal settings need not be done twice."""
        return hashlib.sha256(json.dumps([NUMBERS, asdict(self)], sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True)
class Score:
    """Accuracy, macro-F1 and mean per-class accuracy in percent, and the number of images."""

    accuracy: float
    macro_f1: float
    mean_class_accuracy: float
    n: int

    @classmethod
    def of(cls, evaluation: Evaluation) -> Score:
        """The numbers of an evaluation."""
        return cls(evaluation.accuracy, evaluation.macro_f1, evaluation.mean_class_accuracy, evaluation.n)


@dataclass(frozen=True)
class RunResult:
    """What came of one run.

    Attributes:
        setting: what was asked for.
        scores: one per target, in the protocol's order; None where the method cannot take the target's classes.
        n_train: images learned from.
        seconds: for fitting and predicting, with image features from the cache where they were there; of a run that was
            stopped, since it went on.
        estimator: the fitted method; None for a result that was read from a file.
        text_passes, stopped: what learning took and why it ended, see `coopt.methods.learned.LearnedMethod`; None where
            nothing was learned by a recipe, and for runs from before this was noted.
    """

    setting: Setting
    scores: Mapping[str, Score | None]
    n_train: int
    seconds: float
    estimator: ClipClassifier | None = field(default=None, repr=False, compare=False)
    text_passes: float | int | None = None
    stopped: str | None = None

    @property
    def method(self) -> str:
        """The method's name in tables."""
        return self.setting.method

    @property
    def dataset(self) -> str:
        """The data set's name."""
        return self.setting.dataset

    @property
    def shots(self) -> int:
        """Labelled images per class."""
        return self.setting.shots

    @property
    def seed(self) -> int | None:
        """Of the sample and of learning."""
        return self.setting.seed

    @property
    def run(self) -> str:
        """See `Setting.run`."""
        return self.setting.run

    @property
    def source_score(self) -> Score:
        """The score on the data set's own test images, which every method has."""
        score = next(iter(self.scores.values()))
        assert score is not None
        return score

    @property
    def accuracy(self) -> float:
        """On the data set's own test images."""
        return self.source_score.accuracy

    @property
    def n_test(self) -> int:
        """Number of the data set's own test images."""
        return self.source_score.n

    def to_dict(self) -> dict[str, Any]:
        """All but the estimator, ready for JSON."""
        return {
            "run": self.run,
            **asdict(self.setting),
            "accuracy": self.accuracy,
            "scores": {name: None if score is None else asdict(score) for name, score in self.scores.items()},
            "n_train": self.n_train,
            "seconds": self.seconds,
            **{name: getattr(self, name) for name in LEARNING if getattr(self, name) is not None},
        }

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> RunResult:
        """The result that `to_dict` described.

        Raises:
            SavedFileError: a field is missing, of another kind, or does not agree with the others.
        """
        try:
            setting = Setting(**{f.name: value[f.name] for f in fields(Setting)})
            scores = {n: None if s is None else _score(n, s) for n, s in value["scores"].items()}
            learning = {name: value.get(name) for name in LEARNING}
            result = cls(setting, scores, value["n_train"], float(value["seconds"]), **learning)
            agrees = result.run == value["run"] and result.accuracy == value["accuracy"]
            whole = agrees and [*scores] == [*setting.targets]
        except KeyError as error:
            raise SavedFileError(f"Not the result of a run: it has no {error}.") from error
        except (TypeError, ValueError, AttributeError, StopIteration, AssertionError) as error:
            raise SavedFileError(f"Not the result of a run: {error or type(error).__name__}.") from error
        if not whole:
            raise SavedFileError("The result of a run whose fields do not agree: it was changed.")
        return result


def _score(target: str, value: dict[str, Any]) -> Score:
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{name} on {target} is {number!r}")
    return Score(**value)
