"""Runs: one method learned once and tested on every target of a protocol, and the record of it."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from sklearn.base import clone
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.protocol import Precision
from coopt.data import FeatureCache, extract_features
from coopt.errors import ParameterError, SavedFileError
from coopt.evaluation.contenders import Contender
from coopt.evaluation.metrics import Evaluation, evaluate
from coopt.evaluation.protocols import Problem, Target
from coopt.methods.base import ClipClassifier

NUMBERS = 1
"""Raised when the same setting gives other numbers than it gave before: results of earlier versions are redone then."""


@dataclass(frozen=True)
class Setting:
    """All that the numbers of a run depend on, ready for JSON.

    Attributes:
        protocol: see `coopt.evaluation.protocols`.
        method: the contender's name.
        estimator: its method, as in saved prompts.
        parameters: of the method, with the recipe.
        sampling: see `Contender`.
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
    def of(cls, found: Evaluation) -> Score:
        """The numbers of an evaluation."""
        return cls(found.accuracy, found.macro_f1, found.mean_class_accuracy, found.n)


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
    """

    setting: Setting
    scores: Mapping[str, Score | None]
    n_train: int
    seconds: float
    estimator: ClipClassifier | None = field(default=None, repr=False, compare=False)

    @property
    def method(self) -> str:
        """The contender's name."""
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
    def own(self) -> Score:
        """The score on the data set's own test images, which every method has."""
        score = next(iter(self.scores.values()))
        assert score is not None
        return score

    @property
    def accuracy(self) -> float:
        """On the data set's own test images."""
        return self.own.accuracy

    @property
    def n_test(self) -> int:
        """Number of the data set's own test images."""
        return self.own.n

    def to_dict(self) -> dict[str, Any]:
        """All but the estimator, ready for JSON."""
        return {
            "run": self.run,
            **asdict(self.setting),
            "accuracy": self.accuracy,
            "scores": {name: None if score is None else asdict(score) for name, score in self.scores.items()},
            "n_train": self.n_train,
            "seconds": self.seconds,
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
            found = cls(setting, scores, value["n_train"], float(value["seconds"]))
            whole = (
                found.run == value["run"] and found.accuracy == value["accuracy"] and [*scores] == [*setting.targets]
            )
        except KeyError as error:
            raise SavedFileError(f"Not the result of a run: it has no {error}.") from error
        except (TypeError, ValueError, AttributeError, StopIteration, AssertionError) as error:
            raise SavedFileError(f"Not the result of a run: {error or type(error).__name__}.") from error
        if not whole:
            raise SavedFileError("The result of a run whose fields do not agree: it was changed.")
        return found


def _score(target: str, value: dict[str, Any]) -> Score:
    for name, number in value.items():
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise ValueError(f"{name} on {target} is {number!r}")
    return Score(**value)


class Bench:
    """One problem and one backbone: does runs, and keeps what they share (the features of test images).

    Args:
        problem: a data set under a protocol.
        backbone: the frozen model.
        cache: of image features.
    """

    def __init__(self, problem: Problem, backbone: Backbone, cache: bool | FeatureCache = True) -> None:
        self.problem, self.backbone = problem, backbone
        self.cache: Literal[False] | FeatureCache = FeatureCache() if cache is True else cache
        self._features: dict[tuple[str, Precision], Float[Tensor, "n dim"]] = {}

    def setting(self, contender: Contender, shots: int, seed: int | None) -> Setting:
        """What decides the numbers of a run."""
        return Setting(
            protocol=self.problem.protocol,
            method=contender.name,
            estimator=contender.estimator.method,
            parameters=contender.parameters,
            sampling=contender.sampling,
            backbone=self.backbone.fingerprint,
            preprocessing=self.backbone.preprocessing.id,
            dataset=self.problem.dataset.name,
            dataset_hash=self.problem.dataset.hash,
            targets={target.name: target.hash for target in self.problem.targets},
            shots=shots,
            seed=seed,
        )

    def run(self, contender: Contender, shots: int, seed: int | None, checkpoint: Path | None = None) -> RunResult:
        """Learns and tests.

        Args:
            contender: what learns.
            shots: labelled images per class; 0 for a method that sees none.
            seed: of the sample and of learning; None for a method that sees no image.
            checkpoint: where methods that are trained keep their state; a run that was stopped goes on from there.

        Raises:
            CooptError: the method cannot learn from the sample.
        """
        for target in self.problem.targets:
            self._images_of(target, contender.estimator)  # outside of the time that is measured
        began = time.perf_counter()
        estimator, n_train = self._fitted(contender, shots, seed, checkpoint)
        scores = {target.name: self._score(estimator, target) for target in self.problem.targets}
        seconds = round(time.perf_counter() - began, 3)
        return RunResult(self.setting(contender, shots, seed), scores, n_train, seconds, estimator)

    def _images_of(self, target: Target, estimator: ClipClassifier) -> Any:
        paths = list(target.images.paths)
        if not estimator.uses_features:
            return paths
        which = target.name, estimator.image_precision
        if which not in self._features:
            found = extract_features(self.backbone, paths, cache=self.cache or None, precision=which[1])
            self._features[which] = found.features[0].to(self.backbone.device)
        return self._features[which]

    def _fitted(
        self, contender: Contender, shots: int, seed: int | None, checkpoint: Path | None
    ) -> tuple[ClipClassifier, int]:
        names = list(self.problem.class_names)
        estimator: Any = clone(contender.estimator)
        estimator.set_params(backbone=self.backbone, class_names=names, cache=self.cache)
        if seed is None:
            return estimator.fit_classes(names), 0
        known = estimator.get_params(deep=False)
        for name, value in (("seed", seed), ("checkpoint", checkpoint)):
            if name in known:
                estimator.set_params(**{name: value})
        train, val = self.problem.sample(shots, seed, contender.sampling)
        validation: tuple[Any, ...] = ()
        if contender.sampling == "linear-probe" and len(val):
            validation = (list(val.paths), list(val.labels))
        return estimator.fit(list(train.paths), list(train.labels), *validation), len(train)

    def _score(self, estimator: ClipClassifier, target: Target) -> Score | None:
        images = self._images_of(target, estimator)
        try:
            return Score.of(evaluate(estimator, images, list(target.images.labels), target.class_names))
        except ParameterError:  # what was learned belongs to its classes
            return None
