"""Several methods on one data set: the same images to learn from, the same held-out images, one table."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coopt import events
from coopt.app.estimators import make_estimator
from coopt.app.requests import CompareRequest
from coopt.backbones import Backbone, load_backbone
from coopt.data import ImageDataset, Split, display_name, few_shot, load_dataset
from coopt.errors import CooptError, DataError, ParameterError
from coopt.evaluation import Evaluation, Summary, evaluate, summarize
from coopt.methods.base import ClipClassifier
from coopt.methods.zero_shot import ZeroShot
from coopt.wording import called, counted


@dataclass(frozen=True)
class ComparedMethod:
    """One line of the table.

    Attributes:
        method: its name.
        parameters: those that were given.
        title: what tables call it.
        evaluations: on the held-out images, one for each seed; one alone for a method that learns nothing; none where it failed.
        seconds: of learning, on the mean.
        error: why it failed; None: it did not.
    """

    method: str
    parameters: Mapping[str, Any]
    title: str
    evaluations: tuple[Evaluation, ...]
    seconds: float | None
    error: str | None = None

    @property
    def summary(self) -> Summary | None:
        """Accuracy over the seeds, in percent; None where it failed."""
        return summarize([one.accuracy for one in self.evaluations]) if self.evaluations else None

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        summary = self.summary
        return {
            "method": self.method,
            "parameters": dict(self.parameters),
            "title": self.title,
            "accuracy": None if summary is None else summary.mean,
            "std": None if summary is None else summary.std,
            "evaluations": [one.to_dict() for one in self.evaluations],
            "seconds": self.seconds,
            "error": self.error,
        }


@dataclass(frozen=True)
class CompareResult:
    """A comparison.

    Attributes:
        data, dataset_hash, backbone: what was learned from and with.
        train, test: images to learn from (of the first seed), and held out.
        shots, seeds: as asked for.
        methods: in the order in which they were asked for.
        warnings: what was warned of.
    """

    data: str
    dataset_hash: str
    backbone: str
    train: int
    test: int
    shots: int | None
    seeds: tuple[int, ...]
    methods: tuple[ComparedMethod, ...]
    warnings: tuple[events.Warned, ...] = ()

    @property
    def best(self) -> ComparedMethod:
        """The one with the highest accuracy; of equals the first."""
        return max(self.methods, key=lambda one: -1.0 if one.summary is None else one.summary.mean)

    def table(self) -> tuple[list[str], list[list[str]]]:
        """Headers and rows: accuracy with its 95% interval (of one seed) or its spread (of several), and seconds."""
        several = len(self.seeds) > 1
        headers = [f"On {counted(self.test, 'held-out image')}, %", "accuracy"]
        headers += ["std over seeds" if several else "95% interval", "seconds"]
        return headers, [[one.title, *_cells(one, several)] for one in self.methods]

    def __str__(self) -> str:
        headers, rows = self.table()
        widths = [max(map(len, column)) for column in zip(headers, *rows, strict=True)]
        return "\n".join(
            "   ".join(
                cell.ljust(width) if i == 0 else cell.rjust(width) for i, (cell, width) in enumerate(cells)
            ).rstrip()
            for cells in (list(zip(row, widths, strict=True)) for row in [headers, *rows])
        )

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        names = ("data", "dataset_hash", "backbone", "train", "test", "shots")
        return {
            **{name: getattr(self, name) for name in names},
            "seeds": list(self.seeds),
            "methods": [one.to_dict() for one in self.methods],
            "warnings": [one.to_record() for one in self.warnings],
        }


def _cells(one: ComparedMethod, several: bool) -> list[str]:
    summary = one.summary
    if summary is None:
        return ["failed", "", ""]
    low, high = one.evaluations[0].interval
    spread = f"{summary.std:.1f}" if summary.n > 1 else "" if several else f"{low:.1f} to {high:.1f}"
    return [f"{summary.mean:.1f}", spread, "" if one.seconds is None else f"{one.seconds:.1f}"]


def compare(data: CompareRequest | str | Path, **options: Any) -> CompareResult:
    """Learns with several methods from the same images and measures them on the same held-out images; saves nothing.

    Args:
        data: a folder, a CSV file or the name of a data set; or the whole request.
        options: fields of `CompareRequest`. A method is its name, or (name, parameters).

    Raises:
        CooptError: anything wrong with the data, the backbone or a parameter; also when all methods fail. Where one fails
            and others do not, its line says why.
    """
    is_request = isinstance(data, CompareRequest)
    request = CompareRequest.of(data, **options) if is_request else CompareRequest.of(data=data, **options)
    with events.warnings_collected() as warned:
        return replace(_compare(request), warnings=tuple(warned))


def _compare(request: CompareRequest) -> CompareResult:
    entries = [(one, {}) if isinstance(one, str) else (one[0], dict(one[1])) for one in request.methods]
    if not entries or not request.seeds:
        raise ParameterError(
            f"There is nothing to compare: give at least one of {called('methods')} and {called('seeds')}."
        )
    for method, parameters in entries:
        _estimator(request, method, parameters, request.seeds[0])  # wrong ones are refused before anything is loaded
    whole = load_dataset(
        request.data,
        seed=request.seeds[0],
        test_fraction=request.test_fraction,
        root=request.root,
        on_bad_image=request.on_bad_image,
        **request.reading,
    )
    if whole.test is None or not len(whole.test):
        raise DataError(f"{whole.name} has no test part and none is held out, so there is nothing to compare on.")
    samples = {seed: _sample(whole, request.shots, seed) for seed in request.seeds}
    train = len(samples[request.seeds[0]].train)
    events.say(
        f"{whole.name}: {counted(len(whole.class_names), 'class')}, {counted(train, 'image')} to learn from, "
        f"{len(whole.test)} held out."
    )
    backbone = load_backbone(request.backbone, request.device, request.download, request.value_range)
    comparison = _Comparison(request, backbone, whole.test, samples)
    compared = tuple(comparison.methods(entries))
    if all(one.error is not None for one in compared):
        raise DataError(f"Every method failed. {compared[0].title}: {compared[0].error}")
    return CompareResult(
        data=display_name(request.data),
        dataset_hash=whole.hash,
        backbone=backbone.name,
        train=train,
        test=len(whole.test),
        shots=request.shots,
        seeds=request.seeds,
        methods=compared,
    )


def _sample(whole: ImageDataset, shots: int | None, seed: int) -> ImageDataset:
    return whole if shots is None else few_shot(whole, shots, seed)


def _estimator(request: CompareRequest, method: str, parameters: Mapping[str, Any], seed: int) -> ClipClassifier:
    return make_estimator(
        method,
        parameters,
        learns=False,
        precision=request.precision,
        text_path=request.text_path,
        memory=request.memory,
        seed=seed,
    )


class _Comparison:
    """Runs the methods; the features of held-out images are computed once for each precision."""

    def __init__(
        self, request: CompareRequest, backbone: Backbone, test: Split, samples: Mapping[int, ImageDataset]
    ) -> None:
        self.request, self.backbone, self.test, self.samples = request, backbone, test, samples
        self._held_out: dict[str, Any] = {}

    def methods(self, entries: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[ComparedMethod]:
        """One line after the other."""
        with events.tracked("comparing", len(entries)) as work:
            for done, (method, parameters) in enumerate(entries, start=1):
                yield self._method(method, parameters)
                work.update(done)

    def _method(self, method: str, parameters: Mapping[str, Any]) -> ComparedMethod:
        title = _titled(_estimator(self.request, method, parameters, 0).full_title, parameters)
        evaluations, seconds = [], []
        for seed in self.request.seeds[:1] if method == ZeroShot.method else self.request.seeds:
            estimator = self._prepared(method, parameters, seed)
            began = time.monotonic()
            try:
                self._fit(estimator, self.samples[seed])
                seconds.append(time.monotonic() - began)
                evaluations.append(self._measured(estimator))
            except CooptError as error:
                events.emit(events.Warned(f"{title} failed: {error}", "FailedRuns"))
                return ComparedMethod(method, parameters, title, (), None, str(error))
        each = None if method == ZeroShot.method else sum(seconds) / len(seconds)
        result = ComparedMethod(method, parameters, title, tuple(evaluations), each)
        assert result.summary is not None
        events.say(f"{title}: {result.summary.mean:.1f} %")
        return result

    def _prepared(self, method: str, parameters: Mapping[str, Any], seed: int) -> ClipClassifier:
        estimator = _estimator(self.request, method, parameters, seed)
        return estimator.set_params(
            backbone=self.backbone,
            class_names=self.samples[seed].class_names,
            on_bad_image=self.request.on_bad_image,
            runtime__cache=self.request.cache,
        )

    def _fit(self, estimator: ClipClassifier, sample: ImageDataset) -> None:
        if isinstance(estimator, ZeroShot):
            estimator.fit_classes(sample.class_names)
        else:
            estimator.fit(list(sample.train.paths), list(sample.train.labels))

    def _measured(self, estimator: ClipClassifier) -> Evaluation:
        precision = estimator.image_precision
        if not estimator.capabilities.features_only:
            return evaluate(estimator, list(self.test.paths), list(self.test.labels))
        if precision not in self._held_out:
            self._held_out[precision] = estimator.image_features(list(self.test.paths), self.request.on_bad_image)
        held_out = self._held_out[precision]
        return evaluate(estimator, held_out.features[0], [self.test.labels[i] for i in held_out.kept])


def _titled(title: str, parameters: Mapping[str, Any]) -> str:
    """What sets a line apart from others of the same method."""
    said = ", ".join(f"{name} {value}" for name, value in parameters.items())
    return f"{title} ({said})" if said else title
