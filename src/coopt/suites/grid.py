"""Grids: which jobs a suite consists of, and which of them were asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from coopt.errors import ParameterError
from coopt.evaluation.job import Job
from coopt.evaluation.run_files import Record
from coopt.suites.datasets import SuiteDataset
from coopt.suites.suite import Entry, Model, Suite


@dataclass(frozen=True)
class Grid:
    """A suite, or a part of it.

    Attributes:
        suite: which.
        models, datasets, entries, shots, seeds: what was chosen of it.
    """

    suite: Suite
    models: tuple[Model, ...]
    datasets: tuple[SuiteDataset, ...]
    entries: tuple[Entry, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]

    def jobs(self, names: Mapping[str, str] | None = None) -> list[Job]:
        """All jobs: backbone by backbone, data set by data set; what needs no image first, then by shots and seeds.

        Args:
            names: a backbone's key to the name that loads it, where that is another than the suite's.

        Raises:
            ParameterError: this coopt has no such method, or it has no such parameter.
        """
        return [
            job
            for model in self.models
            for dataset in self.datasets
            for job in self._jobs_on(model, (names or {}).get(model.key, model.name), dataset)
        ]

    def _jobs_on(self, model: Model, backbone: str, dataset: SuiteDataset) -> list[Job]:
        parameters = {entry.name: dataset.given(entry) for entry in self.entries}
        return [
            Job(
                protocol=self.suite.protocol,
                method=entry.name,
                estimator=entry.method,
                parameters=parameters[entry.name],
                sampling=entry.sampling,
                backbone=backbone,
                backbone_key=model.key,
                dataset=dataset.reference,
                source=dataset.source,
                others=dataset.others,
                shots=shots,
                seed=seed,
                words=self.suite.words,
            )
            for shots, seed, entry in self._points()
        ]

    def _points(self) -> list[tuple[int, int | None, Entry]]:
        without = [entry for entry in self.entries if entry.sampling == "none"]
        learned = [entry for entry in self.entries if entry.sampling != "none"]
        points: list[tuple[int, int | None, Entry]] = [(0, None, entry) for entry in without]
        return points + [(k, seed, entry) for k in self.shots for seed in self.seeds for entry in learned]


def grid_of(
    suite: Suite,
    datasets: Sequence[SuiteDataset],
    only: Iterable[str] = (),
    shots: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> Grid:
    """The part of a suite that is asked for.

    Args:
        suite: which.
        datasets: its data sets.
        only: names of backbones, data sets or methods: of each kind that is named, the others are left out.
        shots: in the place of the suite's own.
        seeds: likewise.

    Raises:
        ParameterError: the suite has nothing of such a name, or shots or seeds are out of their range.
    """
    kinds: tuple[dict[str, list[object]], ...] = (
        _named((model, (model.key, model.title)) for model in suite.models),
        _named((dataset, (dataset.name, dataset.title)) for dataset in datasets),
        _named((entry, (entry.name, entry.method)) for entry in suite.entries),
    )
    chosen: list[list[object]] = [[], [], []]
    for name in only:
        kind = next((i for i, names in enumerate(kinds) if _key(name) in names), None)
        if kind is None:
            parts = (
                ("backbones", [model.key for model in suite.models]),
                ("data sets", [dataset.name for dataset in datasets]),
                ("methods", [entry.name for entry in suite.entries]),
            )
            known = "; ".join(f"{kind} {', '.join(names)}" for kind, names in parts)
            raise ParameterError(f"The suite {suite.name} has nothing called {name!r}. It has: {known}.")
        chosen[kind] += kinds[kind][_key(name)]
    wanted_shots, wanted_seeds = tuple(shots or suite.shots), tuple(seeds or suite.seeds)
    check_shots_and_seeds(wanted_shots, wanted_seeds)
    return Grid(
        suite,
        tuple(one for one in suite.models if not chosen[0] or one in chosen[0]),
        tuple(one for one in datasets if not chosen[1] or one in chosen[1]),
        tuple(one for one in suite.entries if not chosen[2] or one in chosen[2]),
        wanted_shots,
        wanted_seeds,
    )


def check_shots_and_seeds(shots: Sequence[int], seeds: Sequence[int]) -> None:
    """Refuses shots and seeds that make no grid.

    Raises:
        ParameterError: none, a repeated one, or one that is too small or no int.
    """
    for name, values, low in (("shots", shots, 1), ("seeds", seeds, 0)):
        valid = all(isinstance(v, int) and not isinstance(v, bool) and v >= low for v in values)
        if not values or not valid or len(set(values)) != len(values):
            raise ParameterError(
                f"The '{name}' of the few-shot protocol must be different ints >= {low}, at least one. "
                f"Got {tuple(values)!r} instead."
            )


def _named(things: Iterable[tuple[object, tuple[str, ...]]]) -> dict[str, list[object]]:
    by_name: dict[str, list[object]] = defaultdict(list)
    for thing, names in things:
        for name in {_key(name) for name in names}:
            by_name[name].append(thing)
    return by_name


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9=]", "", name.lower())


@dataclass(frozen=True)
class TimeEstimate:
    """How long jobs take.

    Attributes:
        seconds: of those that something is known about.
        unknown: how many jobs nothing is known about.
    """

    seconds: float
    unknown: int


def estimated_time(jobs: Iterable[Job], records: Iterable[Record]) -> TimeEstimate:
    """How long jobs take, from those that are done: of the same method, backbone and, if there are, shots and data set."""
    seconds: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for record in records:
        result = record.result
        for key in _likeness(record.backbone, result.method, result.shots, result.dataset):
            seconds[key].append(result.seconds)
    total, unknown = 0.0, 0
    for job in jobs:
        keys = _likeness(job.backbone_key, job.method, job.shots, job.dataset.name)
        known = next((seconds[key] for key in keys if key in seconds), None)
        if known is None:
            unknown += 1
        else:
            total += sum(known) / len(known)
    return TimeEstimate(total, unknown)


def _likeness(backbone: str, method: str, shots: int, dataset: str) -> list[tuple[object, ...]]:
    """What a job is compared by, the closest first."""
    return [
        (backbone, method, shots, dataset),
        (backbone, method, "any shots", dataset),
        (backbone, method, shots),
        (backbone, method),
    ]
