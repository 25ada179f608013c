"""Several methods on the folds of one sample: who recognises which images when it has learned from the others."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from scipy.special import softmax

from coopt import events
from coopt.app.estimators import estimator_for, parameters_of
from coopt.app.requests import CompareRequest
from coopt.backbones import Backbone
from coopt.data import FeatureCache, ImageDataset, Split
from coopt.data.leakage import groups_that_show_the_same
from coopt.errors import CooptError, NothingHeldOutError
from coopt.evaluation import accuracy_interval, scores_among
from coopt.evaluation.choosing import ONE_THING, Candidate
from coopt.evaluation.folds import folds_of, groups_that_look_alike, share_of_one_thing
from coopt.evaluation.job import jsonable
from coopt.methods.base import ClipClassifier
from coopt.methods.learned import LearnedMethod
from coopt.methods.templated import HeldNearTemplates
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.descriptions import Descriptions

LATE = "not finished within the budget"


@dataclass(frozen=True)
class ComparedMethod:
    """One line of the table.

    Attributes:
        method: its name.
        parameters: those that were given.
        title: what tables call it.
        hits: which of the predicted images it recognised, in their order; empty where it failed or was not finished.
        probabilities: that it gave to the true class of each.
        seconds: of learning in one fold, on the mean; 0 for one that learns nothing.
        bytes: of what is saved, in one fold.
        memory: bytes that a step of learning holds above the model, by estimate; 0 where no text and no image passes a tower.
        new_classes: what it learns serves other classes, too.
        text: it learns words, and leaves image features as they are.
        near: what it learns is held near hand-made prompts.
        error: why it failed, or that it was not finished; None: it did well.
    """

    method: str
    parameters: Mapping[str, Any]
    title: str
    hits: tuple[bool, ...] = ()
    probabilities: tuple[float, ...] = ()
    seconds: float = 0.0
    bytes: int = 0
    memory: int = 0
    new_classes: bool = True
    text: bool = False
    near: bool = False
    error: str | None = None

    @property
    def accuracy(self) -> float:
        """Share of the predicted images that it recognised (percent); NaN where it was not measured."""
        return 100 * sum(self.hits) / len(self.hits) if self.hits else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """The 95% interval of the accuracy (percent)."""
        return accuracy_interval(self.accuracy, len(self.hits))

    def as_candidate(self) -> Candidate:
        """What there is to know for choosing."""
        return Candidate(
            title=self.title,
            hits=np.array(self.hits, dtype=bool),
            probabilities=np.array(self.probabilities),
            cost=self.seconds,
            text=self.text,
            near=self.near,
            baseline=self.method == ZeroShot.method,
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; `from_dict` makes the same of it."""
        names = ("method", "title", "seconds", "bytes", "memory", "new_classes", "text", "near", "error")
        measured = {"accuracy": self.accuracy, "interval": list(self.interval)} if self.hits else {}
        return {
            **{name: getattr(self, name) for name in names},
            "parameters": jsonable(self.parameters),
            **measured,
            "hits": "".join("01"[one] for one in self.hits),
            "probabilities": list(self.probabilities),
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> ComparedMethod:
        """What `to_dict` gave."""
        values = {one.name: document[one.name] for one in fields(cls)}
        hits, probabilities = tuple(one == "1" for one in values["hits"]), tuple(map(float, values["probabilities"]))
        return cls(**{**values, "hits": hits, "probabilities": probabilities})


class CrossValidation:
    """Runs methods on the folds of a sample, all on the same ones.

    Args:
        request: how to learn.
        backbone: the frozen model.
        dataset: whose training part is the sample.
        descriptions: texts about the classes, for the methods that take them; None: there are none.
        cache: of image features, so that each is computed once; None: there is none.

    Attributes:
        images: those of the sample that can be read.
        folds: the fold of each; see `coopt.evaluation.folds`.
        predicted: how many are in a fold, and so are predicted.
        one_thing: the images of most classes look like pictures of one thing each.

    Raises:
        NothingHeldOutError: no class has two different images, so that nothing can be held out.
    """

    def __init__(
        self,
        request: CompareRequest,
        backbone: Backbone,
        dataset: ImageDataset,
        descriptions: Descriptions | None,
        cache: FeatureCache | None,
    ) -> None:
        self.request, self.backbone, self.descriptions, self.cache = request, backbone, descriptions, cache
        self.class_names = dataset.class_names
        self.images, features = self._read(dataset.train)
        same = groups_that_show_the_same(self.images.paths, value_range=request.value_range)
        groups = groups_that_look_alike(features, self.images.labels, request.folds, same)
        self.folds = folds_of(self.images.labels, request.folds, request.seed, groups)
        first = sorted(set(same))
        self.one_thing = share_of_one_thing(features[first], [self.images.labels[i] for i in first]) >= ONE_THING
        self.predicted = int((self.folds >= 0).sum())
        if not self.predicted:
            raise NothingHeldOutError(
                f"No class of {dataset.name} has two different images, so none can be held out to compare methods on. Add "
                "images, or choose a method yourself."
            )
        self._deadline = time.monotonic() + (math.inf if request.budget is None else request.budget)

    def _read(self, train: Split) -> tuple[Split, Float[np.ndarray, "n dim"]]:
        """The images that can be read, and their features."""
        reader = self.estimator(ZeroShot.method, {})
        assert isinstance(reader, ZeroShot)
        read = reader.fit_classes(self.class_names).image_features(list(train.paths), self.request.on_bad_image)
        return train.take(read.kept), read.features[0].float().cpu().numpy()

    def estimator(self, method: str, parameters: Mapping[str, Any]) -> ClipClassifier:
        """A method that knows all but the images."""
        estimator = estimator_for(self.request, method, parameters, learns=False)
        if self.descriptions is not None and "descriptions" in parameters_of(method, learns=False):
            estimator.set_params(descriptions=self.descriptions)
        return estimator.set_params(
            backbone=self.backbone, class_names=self.class_names, runtime__cache=self.cache or False
        )

    def line(self, method: str, parameters: Mapping[str, Any]) -> ComparedMethod:
        """What a method is worth. Where it fails, or the budget ends before it does, the line says so."""
        estimator = self.estimator(method, parameters)
        can = estimator.capabilities
        line = ComparedMethod(method, parameters, titled(estimator, parameters), new_classes=can.new_classes)
        try:
            with self._until_the_deadline(estimator):
                return self._measured(line, estimator)
        except _OutOfTimeError:
            return replace(line, error=LATE)
        except CooptError as error:
            events.emit(events.Warned(f"{line.title} failed: {error}", "FailedRuns"))
            return replace(line, error=str(error))

    def _measured(self, line: ComparedMethod, estimator: ClipClassifier) -> ComparedMethod:
        memory = held_in_a_step(estimator, self.backbone, self.class_names)
        hits, probabilities = np.zeros(len(self.folds), dtype=bool), np.zeros(len(self.folds))
        seconds, size = [], 0
        for fitted, tested, took in self.fitted(line.method, line.parameters):
            seconds.append(took)
            out = self.images.take(tested.tolist())
            scores, targets, _ = scores_among(fitted, list(out.paths), out.labels)
            hits[tested] = scores.argmax(axis=1) == targets
            probabilities[tested] = softmax(scores.astype(np.float64), axis=1)[np.arange(len(targets)), targets]
            size = size or saved_bytes(fitted)
        held_out = self.folds >= 0
        return replace(
            line,
            hits=tuple(hits[held_out].tolist()),
            probabilities=tuple(np.round(probabilities[held_out], 6).tolist()),
            seconds=float(np.mean(seconds)) if estimator.capabilities.images else 0.0,
            bytes=size,
            memory=memory,
            text=memory > 0 and estimator.capabilities.features_only and not estimator.capabilities.image_tower,
            near=isinstance(estimator, HeldNearTemplates),
        )

    def fitted(
        self, method: str, parameters: Mapping[str, Any]
    ) -> Iterator[tuple[ClipClassifier, Int[np.ndarray, " tested"], float]]:
        """For each fold a method that has learned from the others, which images are in it, and the seconds that it took."""
        for fold in range(self.request.folds):
            tested = np.flatnonzero(self.folds == fold)
            if not len(tested):
                continue
            estimator = self.estimator(method, parameters)
            began = time.monotonic()
            sample = self.images.take(np.flatnonzero(self.folds != fold).tolist())
            estimator.fit(list(sample.paths), list(sample.labels))
            yield estimator, tested, time.monotonic() - began

    @contextmanager
    def _until_the_deadline(self, estimator: ClipClassifier) -> Iterator[None]:
        """Within this context learning is stopped at the deadline, at the next sign of life. Hand-made prompts are always
        measured: they are what all others are compared with."""
        if not estimator.capabilities.images:
            yield
            return

        def look_at_the_clock(event: events.Event | None = None) -> None:
            if time.monotonic() > self._deadline:
                raise _OutOfTimeError

        look_at_the_clock()
        with events.listening(look_at_the_clock):
            yield


class _OutOfTimeError(Exception):
    """The budget is spent."""


def titled(estimator: ClipClassifier, parameters: Mapping[str, Any]) -> str:
    """What tables call it: its title, and what sets it apart from others of the same method."""
    said = ", ".join(f"{name} {value}" for name, value in parameters.items())
    return f"{estimator.full_title} ({said})" if said else estimator.full_title


def held_in_a_step(estimator: ClipClassifier, backbone: Backbone, class_names: Sequence[str]) -> int:
    """Bytes that a step of learning holds above the model, at most; 0 for a method that passes nothing through a tower."""
    return estimator.step_bytes(backbone, class_names) if isinstance(estimator, LearnedMethod) else 0


def saved_bytes(estimator: ClipClassifier) -> int:
    """How large the files of a fitted method are."""
    with tempfile.TemporaryDirectory() as folder:
        return sum(file.stat().st_size for file in estimator.save(folder).iterdir())
