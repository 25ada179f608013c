"""The few-shot protocol: every method on the same samples, at 1, 2, 4, 8 and 16 labelled images per class.

Zhou et al., IJCV 2022, section 4.1 and figure 3: hand-made prompts without any image; the linear probe and CoOp on the
few-shot sample of each seed; accuracy on the whole test part; mean and spread over the seeds.

    contenders = paper_contenders("a photo of a {}, a type of pet.")
    for result in few_shot_runs(dataset, contenders, backbone):
        print(result.method, result.shots, result.seed, result.accuracy)
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from sklearn.base import clone
from torch import Tensor

from coopt import __version__
from coopt.backbones import Backbone
from coopt.data import FeatureCache, ImageDataset, Split, extract_features, few_shot, linear_probe_indices
from coopt.errors import DataError, ParameterError, SavedFileError
from coopt.evaluation.metrics import evaluate, summarize
from coopt.methods.base import ClipClassifier
from coopt.methods.coop import CoOp
from coopt.methods.linear_probe import LinearProbe
from coopt.methods.zero_shot import ZeroShot
from coopt.prompts.templates import DEFAULT_TEMPLATE, ENSEMBLE
from coopt.training.recipe import Recipe

SHOTS = (1, 2, 4, 8, 16)
SEEDS = (1, 2, 3)
AVERAGE = "average"
"""Stands for the mean over all data sets where a data set's name would stand."""

NAIVE, HAND_MADE, ENSEMBLED, PROBE = "naive prompt", "hand-made prompt", "prompt ensemble", "linear probe"
"""The paper's baselines, as tables and figures call them."""


@dataclass(frozen=True)
class Contender:
    """One method of a comparison.

    Attributes:
        name: in results, tables and figures.
        estimator: with its parameters; it is cloned, and told backbone, classes, seed and cache.
        sampling: "none" (a `ZeroShot`: it sees no image and runs once, at 0 shots), "few-shot" (`coopt.data.few_shot`),
            or "linear-probe" (that baseline's own draw, with validation images for C).
    """

    name: str
    estimator: ClipClassifier
    sampling: Literal["none", "few-shot", "linear-probe"] = "few-shot"

    @property
    def parameters(self) -> dict[str, Any]:
        """What distinguishes it, ready for JSON."""
        found = {k: v for k, v in self.estimator.parameters.items() if k != "seed"}  # the protocol sets that
        return json.loads(json.dumps(found))  # tuples become lists, as they are when read back


def paper_contenders(
    template: str, recipe: str | dict[str, Any] | Recipe = "fast", n_ctx: Sequence[int] = (16,)
) -> tuple[Contender, ...]:
    """The methods of the paper's few-shot figure.

    Args:
        template: the data set's hand-made prompt; it also joins the seven templates of the ensemble.
        recipe: how CoOp is trained.
        n_ctx: context lengths, a curve each.
    """
    ensemble = ENSEMBLE if template in ENSEMBLE else (*ENSEMBLE, template)
    several = len(n_ctx) > 1
    return (
        Contender(NAIVE, ZeroShot(templates=DEFAULT_TEMPLATE), "none"),
        Contender(HAND_MADE, ZeroShot(templates=template), "none"),
        Contender(ENSEMBLED, ZeroShot(templates=ensemble), "none"),
        Contender(PROBE, LinearProbe(), "linear-probe"),
        *(Contender(f"CoOp (M={m})" if several else "CoOp", CoOp(n_ctx=m, recipe=recipe)) for m in n_ctx),
    )


@dataclass(frozen=True)
class RunResult:
    """One method on one data set, at one number of shots, from one seed.

    Attributes:
        method: the contender's name.
        dataset: the data set's name.
        shots: labelled images per class; 0 for a method that sees none.
        seed: of the sample and of learning; None for a method that sees no image.
        accuracy: test images that were recognised, in percent.
        macro_f1: mean of the classes' F1 scores, in percent.
        n_train, n_test: images learned from, and tested on.
        seconds: for fitting and predicting, with image features from the cache where they were there.
        parameters: the method's.
        run: SHA-256 of all that the result depends on: equal runs need not be done twice.
        estimator: the fitted method; None for a result that was read from a file.
    """

    method: str
    dataset: str
    shots: int
    seed: int | None
    accuracy: float
    macro_f1: float
    n_train: int
    n_test: int
    seconds: float
    parameters: dict[str, Any]
    run: str
    estimator: ClipClassifier | None = field(default=None, repr=False, compare=False)

    def to_dict(self) -> dict[str, Any]:
        """All but the estimator, ready for JSON."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "estimator"}

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> RunResult:
        """The result that `to_dict` described.

        Raises:
            SavedFileError: a field is missing or of another kind.
        """
        kinds = {
            "method": str,
            "dataset": str,
            "shots": int,
            "accuracy": int | float,
            "seconds": int | float,
            "run": str,
        }
        wrong = [name for name, kind in kinds.items() if not isinstance(value.get(name), kind)]
        if wrong:
            raise SavedFileError(f"Not a result of the few-shot protocol: {wrong[0]} is {value.get(wrong[0])!r}.")
        try:
            return cls(**{f.name: value[f.name] for f in fields(cls) if f.name != "estimator"})
        except KeyError as error:
            raise SavedFileError(f"Not a result of the few-shot protocol: it has no {error}.") from error


def few_shot_runs(
    dataset: ImageDataset,
    contenders: Sequence[Contender],
    backbone: Backbone,
    *,
    shots: Sequence[int] = SHOTS,
    seeds: Sequence[int] = SEEDS,
    cache: bool | FeatureCache = True,
    done: Iterable[RunResult] = (),
) -> Iterator[RunResult]:
    """Runs the protocol on one data set, giving each result as soon as it is there.

    Test images are encoded once for all methods, and training images once ever when there is a cache.

    Args:
        dataset: with a test part.
        contenders: the methods to compare; see `paper_contenders`.
        backbone: for all of them.
        shots: labelled images per class.
        seeds: of the samples and of learning.
        cache: of image features.
        done: results of an earlier run; those that would come out the same are given as they are.

    Raises:
        DataError: the data set has no test part.
        ParameterError: shots or seeds are out of their range.
    """
    _check_grid(shots, seeds)
    if dataset.test is None:
        raise DataError(f"'{dataset.name}' has no test part to measure accuracy on.")
    known = {result.run: result for result in done}
    task = _Task(dataset, backbone, cache)
    for k, seed, contender in _schedule(contenders, shots, seeds):
        run = task.run_hash(contender, k, seed)
        yield known[run] if run in known else task.result(contender, k, seed, run)


def count_runs(contenders: Sequence[Contender], shots: Sequence[int] = SHOTS, seeds: Sequence[int] = SEEDS) -> int:
    """How many results `few_shot_runs` gives."""
    return sum(1 for _ in _schedule(contenders, shots, seeds))


def _schedule(
    contenders: Sequence[Contender], shots: Sequence[int], seeds: Sequence[int]
) -> Iterator[tuple[int, int | None, Contender]]:
    """What needs no image first, then by shots and seeds, so that a stopped run has whole rows."""
    yield from ((0, None, c) for c in contenders if c.sampling == "none")
    yield from ((k, seed, c) for k in shots for seed in seeds for c in contenders if c.sampling != "none")


def _check_grid(shots: Sequence[int], seeds: Sequence[int]) -> None:
    for name, values, low in (("shots", shots, 1), ("seeds", seeds, 0)):
        valid = all(isinstance(v, int) and not isinstance(v, bool) and v >= low for v in values)
        if not values or not valid or len(set(values)) != len(values):
            raise ParameterError(
                f"The '{name}' of the few-shot protocol must be different ints >= {low}, at least one. "
                f"Got {tuple(values)!r} instead."
            )


class _Task:
    """One data set and backbone: what its runs share."""

    def __init__(self, dataset: ImageDataset, backbone: Backbone, cache: bool | FeatureCache) -> None:
        assert dataset.test is not None
        self.dataset, self.test, self.backbone = dataset, dataset.test, backbone
        self.cache: Literal[False] | FeatureCache = FeatureCache() if cache is True else cache
        self._test_features: Float[Tensor, "n dim"] | None = None

    def run_hash(self, contender: Contender, shots: int, seed: int | None) -> str:
        what = {
            "version": __version__,
            "method": [contender.name, type(contender.estimator).__name__, contender.parameters, contender.sampling],
            "backbone": [self.backbone.fingerprint, self.backbone.preprocessing.id],
            "dataset": [self.dataset.name, self.dataset.hash],
            "sample": [shots, seed],
        }
        return hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def result(self, contender: Contender, shots: int, seed: int | None, run: str) -> RunResult:
        features = self.test_features()
        began = time.perf_counter()
        estimator, n_train = self._fitted(contender, shots, seed)
        found = evaluate(estimator, features, list(self.test.labels))
        return RunResult(
            method=contender.name,
            dataset=self.dataset.name,
            shots=shots,
            seed=seed,
            accuracy=found.accuracy,
            macro_f1=found.macro_f1,
            n_train=n_train,
            n_test=found.n,
            seconds=round(time.perf_counter() - began, 3),
            parameters=contender.parameters,
            run=run,
            estimator=estimator,
        )

    def test_features(self) -> Float[Tensor, "n dim"]:
        """Features of the test images, computed when first asked for."""
        if self._test_features is None:
            found = extract_features(self.backbone, list(self.test.paths), cache=self.cache or None)
            self._test_features = found.features[0].to(self.backbone.device)
        return self._test_features

    def _fitted(self, contender: Contender, shots: int, seed: int | None) -> tuple[ClipClassifier, int]:
        names = list(self.dataset.class_names)
        estimator: Any = clone(contender.estimator)
        estimator.set_params(backbone=self.backbone, class_names=names, cache=self.cache)
        if seed is None:
            return estimator.fit_classes(names), 0
        if "seed" in estimator.get_params(deep=False):
            estimator.set_params(seed=seed)
        if contender.sampling == "linear-probe":
            train, val = self._probe_sample(shots, seed)
            validation = (list(val.paths), list(val.labels)) if len(val) else (None, None)
            return estimator.fit(list(train.paths), list(train.labels), *validation), len(train)
        train = few_shot(self.dataset, shots, seed).train
        return estimator.fit(list(train.paths), list(train.labels)), len(train)

    def _probe_sample(self, shots: int, seed: int) -> tuple[Split, Split]:
        index = {name: i for i, name in enumerate(self.dataset.class_names)}
        train, val = self.dataset.train, self.dataset.val or Split((), ())
        train_labels, val_labels = ([index[label] for label in part.labels] for part in (train, val))
        chosen_train, chosen_val = linear_probe_indices(train_labels, val_labels, shots, seed)
        return train.take(chosen_train), val.take(chosen_val)


@dataclass(frozen=True)
class FewShotSummary:
    """One method on one data set (or on their average) at one number of shots, over the seeds.

    Attributes:
        method, dataset, shots: as in `RunResult`; `dataset` may be `AVERAGE`.
        mean: accuracy in percent.
        std: its standard deviation over the seeds (divided by n).
        interval: half the width of the 95% interval of the mean.
        n: number of seeds.
    """

    method: str
    dataset: str
    shots: int
    mean: float
    std: float
    interval: float
    n: int

    def to_dict(self) -> dict[str, Any]:
        """All fields, ready for JSON."""
        return asdict(self)


def summarise(results: Iterable[RunResult]) -> list[FewShotSummary]:
    """Mean and spread over seeds, in the order in which data sets and methods come.

    With several data sets `AVERAGE` comes first: each seed's mean over the data sets, then mean and spread over seeds.
    A place of the average that some data set does not have yet is left out.
    """
    cells: dict[tuple[str, str, int], dict[int | None, float]] = defaultdict(dict)
    for result in results:
        cells[result.dataset, result.method, result.shots][result.seed] = result.accuracy
    datasets = list(dict.fromkeys(dataset for dataset, _, _ in cells))
    rows = list(dict.fromkeys((method, shots) for _, method, shots in cells))
    summaries = []
    for method, shots in rows if len(datasets) > 1 else ():
        found = [cells.get((dataset, method, shots), {}) for dataset in datasets]
        means = [float(np.mean([one[seed] for one in found])) for seed in found[0] if all(seed in one for one in found)]
        if means:
            summaries.append(FewShotSummary(method, AVERAGE, shots, **asdict(summarize(means))))
    for dataset in datasets:
        for method, shots in rows:
            if (dataset, method, shots) in cells:
                values = list(cells[dataset, method, shots].values())
                summaries.append(FewShotSummary(method, dataset, shots, **asdict(summarize(values))))
    return summaries
