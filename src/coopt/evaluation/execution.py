"""Doing a job: `execute(job)` learns, tests, and gives the record of it.

The record depends on the job alone. `Resources` holds what jobs of one process share (the backbone, data sets that are read,
features of test images), so that a thousand jobs read and encode nothing twice; a checkpoint lets a job that was stopped go
on. Neither changes a number.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone, load_backbone
from coopt.data import FeatureCache, display_name, extract_features
from coopt.errors import CooptError, ParameterError
from coopt.evaluation.estimators import distinguishing, estimator_of
from coopt.evaluation.job import Job
from coopt.evaluation.metrics import evaluate
from coopt.evaluation.protocols import Problem, Target
from coopt.evaluation.run_files import Record
from coopt.evaluation.runs import LEARNING, RunResult, Score, Setting
from coopt.methods.base import ClipClassifier
from coopt.prompts.words import distance_scale
from coopt.runtime import Precision


class Resources:
    """What the jobs of one process share; of data sets and backbones the latest is kept.

    Args:
        device: of the backbones: "auto", "cpu", "cuda", "cuda:1", "mps".
        download: whether the network may be used for weights that are not on this machine.
        cache: of image features.
        load: a backbone from its name, where that is not `coopt.load_backbone`'s matter.
        read: likewise a job's data set under its protocol, where that is not the job's own matter.
    """

    def __init__(
        self,
        device: str = "auto",
        download: bool = False,
        cache: bool | FeatureCache = True,
        load: Callable[[str], Backbone] | None = None,
        read: Callable[[Job], Problem] | None = None,
    ) -> None:
        self.cache: Literal[False] | FeatureCache = FeatureCache() if cache is True else cache
        self._load = load or (lambda name: load_backbone(name, device, download))
        self._read = read or Job.problem
        self._latest: dict[str, tuple[Any, Any]] = {}
        self._features: dict[tuple[str, Precision], Float[Tensor, "n dim"]] = {}

    def backbone(self, job: Job) -> Backbone:
        """The job's frozen model.

        Raises:
            BackboneError: it is unknown or not on this machine.
        """
        return self._kept("backbone", job.backbone, lambda: self._load(job.backbone))

    def problem(self, job: Job) -> Problem:
        """The job's data set under its protocol.

        Raises:
            DataError: a data set is missing, or not as the protocol needs it.
        """
        return self._kept("problem", job.data, lambda: self._read(job))

    def test_images(self, job: Job, target: Target, estimator: ClipClassifier) -> Any:
        """A target's images as the method takes them: features, or files for one that changes the image tower."""
        paths = list(target.images.paths)
        if not estimator.capabilities.features_only:
            return paths
        which = target.name, estimator.image_precision
        if which not in self._features:
            extracted = extract_features(self.backbone(job), paths, cache=self.cache or None, precision=which[1])
            self._features[which] = extracted.features[0].to(self.backbone(job).device)
        return self._features[which]

    def _kept(self, kind: str, key: Any, make: Callable[[], Any]) -> Any:
        """The latest thing of its kind, made anew for another key; what kept it from being made is kept likewise."""
        if kind not in self._latest or self._latest[kind][0] != key:
            self._features.clear()  # before another model is loaded beside
            self._latest.pop(kind, None)
            try:
                self._latest[kind] = key, make()
            except CooptError as error:
                self._latest[kind] = key, error
        latest = self._latest[kind][1]
        if isinstance(latest, CooptError):
            raise latest
        return latest


def setting_of(job: Job, resources: Resources) -> Setting:
    """All that decides the numbers of a job, with the fingerprint of its model and the hashes of its data.

    Raises:
        CooptError: its backbone or its data cannot be had here, or there is no such method.
    """
    problem, backbone = resources.problem(job), resources.backbone(job)
    return Setting(
        protocol=problem.protocol,
        method=job.method,
        estimator=job.estimator,
        parameters=distinguishing(estimator_of(job.estimator, job.parameters)),
        sampling=job.sampling,
        backbone=backbone.fingerprint,
        preprocessing=backbone.preprocessing.id,
        dataset=problem.dataset.name,
        dataset_hash=problem.dataset.hash,
        targets={target.name: target.hash for target in problem.targets},
        shots=job.shots,
        seed=job.seed,
    )


def execute(job: Job, resources: Resources | None = None, checkpoint: Path | None = None) -> Record:
    """Learns and tests.

    Args:
        job: what is to be done.
        resources: shared with other jobs of this process; None: the job's own.
        checkpoint: where methods that are trained keep their state; a job that was stopped goes on from there.

    Returns: the record, with the fitted method in `record.result.estimator`.

    Raises:
        CooptError: its backbone or its data cannot be had here, or the method cannot learn from the sample.
    """
    resources = resources or Resources()
    problem, backbone = resources.problem(job), resources.backbone(job)
    estimator: Any = estimator_of(job.estimator, job.parameters)
    for target in problem.targets:
        resources.test_images(job, target, estimator)  # outside of the time that is measured
    began = time.perf_counter()
    n_train = _fit(estimator, job, problem, backbone, resources.cache, checkpoint)
    scores = {target.name: _score(estimator, job, target, resources) for target in problem.targets}
    seconds = round(time.perf_counter() - began, 3)
    return Record(
        suite="",
        backbone=job.backbone_key,
        result=RunResult(
            setting_of(job, resources),
            scores,
            n_train,
            seconds,
            estimator,
            **{name: getattr(estimator, f"{name}_", None) for name in LEARNING},
        ),
        words=_words(estimator, backbone, job.words),
        made={"backbone_name": display_name(backbone.name), "device": str(backbone.device)},
    )


def _fit(
    estimator: Any,
    job: Job,
    problem: Problem,
    backbone: Backbone,
    cache: Literal[False] | FeatureCache,
    checkpoint: Path | None,
) -> int:
    """Learns from the job's sample; returns the number of its images."""
    names = list(problem.class_names)
    estimator.set_params(backbone=backbone, class_names=names, runtime__cache=cache, runtime__checkpoint=checkpoint)
    if job.seed is None:
        estimator.fit_classes(names)
        return 0
    if "seed" in estimator.get_params(deep=False):
        estimator.set_params(seed=job.seed)
    train, val = problem.sample(job.shots, job.seed, job.sampling)
    validation: tuple[Any, ...] = ()
    if job.sampling == "linear-probe" and len(val):
        validation = (list(val.paths), list(val.labels))
    estimator.fit(list(train.paths), list(train.labels), *validation)
    return len(train)


def _score(estimator: ClipClassifier, job: Job, target: Target, resources: Resources) -> Score | None:
    images = resources.test_images(job, target, estimator)
    try:
        return Score.of(evaluate(estimator, images, list(target.images.labels), target.class_names))
    except ParameterError:  # what was learned belongs to its classes
        return None


def _words(estimator: Any, backbone: Backbone, top_k: int) -> dict[str, Any] | None:
    """The nearest words of each learned vector, for each class where the context is class-specific."""
    if not top_k or not hasattr(estimator, "nearest_words"):
        return None
    near = estimator.nearest_words(top_k)
    rows = (
        {name: [[one._asdict() for one in row] for row in some] for name, some in near.items()}
        if isinstance(near, dict)
        else [[one._asdict() for one in row] for row in near]
    )
    return {"vectors": rows, "scale": distance_scale(backbone)}
