"""Plans: which runs a suite consists of, and which of them were asked for."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from coopt.errors import ParameterError
from coopt.evaluation.few_shot import check_grid
from coopt.evaluation.run_files import Record, run_name
from coopt.suites.places import Place
from coopt.suites.suite import Entry, Model, Suite


@dataclass(frozen=True)
class Task:
    """One run that a suite asks for: a method on a data set with a backbone, at some shots, from a seed."""

    model: Model
    place: Place
    entry: Entry
    shots: int
    seed: int | None

    @property
    def name(self) -> str:
        """Of its file."""
        return run_name(self.model.key, self.place.name, self.entry.name, self.shots, self.seed)


@dataclass(frozen=True)
class Plan:
    """A suite, or a part of it.

    Attributes:
        suite: which.
        models, places, entries, shots, seeds: what was chosen of it.
    """

    suite: Suite
    models: tuple[Model, ...]
    places: tuple[Place, ...]
    entries: tuple[Entry, ...]
    shots: tuple[int, ...]
    seeds: tuple[int, ...]

    def tasks(self) -> list[Task]:
        """All runs: backbone by backbone, data set by data set; what needs no image first, then by shots and seeds."""
        return [
            Task(model, place, entry, shots, seed)
            for model in self.models
            for place in self.places
            for shots, seed, entry in self._grid()
        ]

    def _grid(self) -> list[tuple[int, int | None, Entry]]:
        without = [entry for entry in self.entries if entry.sampling == "none"]
        learned = [entry for entry in self.entries if entry.sampling != "none"]
        rows: list[tuple[int, int | None, Entry]] = [(0, None, entry) for entry in without]
        return rows + [(k, seed, entry) for k in self.shots for seed in self.seeds for entry in learned]


def plan_of(
    suite: Suite,
    places: Sequence[Place],
    only: Iterable[str] = (),
    shots: Sequence[int] | None = None,
    seeds: Sequence[int] | None = None,
) -> Plan:
    """The part of a suite that is asked for.

    Args:
        suite: which.
        places: its data sets.
        only: names of backbones, data sets or methods: of each kind that is named, the others are left out.
        shots: in the place of the suite's own.
        seeds: likewise.

    Raises:
        ParameterError: the suite has nothing of such a name, or shots or seeds are out of their range.
    """
    kinds: tuple[dict[str, list[object]], ...] = (
        _named((model, (model.key, model.title)) for model in suite.models),
        _named((place, (place.name, place.title)) for place in places),
        _named((entry, (entry.name, entry.method)) for entry in suite.entries),
    )
    chosen: list[list[object]] = [[], [], []]
    for name in only:
        found = next((i for i, kind in enumerate(kinds) if _key(name) in kind), None)
        if found is None:
            parts = (
                ("backbones", [model.key for model in suite.models]),
                ("data sets", [place.name for place in places]),
                ("methods", [entry.name for entry in suite.entries]),
            )
            known = "; ".join(f"{kind} {', '.join(names)}" for kind, names in parts)
            raise ParameterError(f"The suite {suite.name} has nothing called {name!r}. It has: {known}.")
        chosen[found] += kinds[found][_key(name)]
    wanted_shots, wanted_seeds = tuple(shots or suite.shots), tuple(seeds or suite.seeds)
    check_grid(wanted_shots, wanted_seeds)
    return Plan(
        suite,
        tuple(one for one in suite.models if not chosen[0] or one in chosen[0]),
        tuple(one for one in places if not chosen[1] or one in chosen[1]),
        tuple(one for one in suite.entries if not chosen[2] or one in chosen[2]),
        wanted_shots,
        wanted_seeds,
    )


def _named(things: Iterable[tuple[object, tuple[str, ...]]]) -> dict[str, list[object]]:
    found: dict[str, list[object]] = defaultdict(list)
    for thing, names in things:
        for name in {_key(name) for name in names}:
            found[name].append(thing)
    return found


def _key(name: str) -> str:
    return re.sub(r"[^a-z0-9=]", "", name.lower())


@dataclass(frozen=True)
class Estimate:
    """How long runs take.

    Attributes:
        seconds: of those that something is known about.
        unknown: how many runs nothing is known about.
    """

    seconds: float
    unknown: int


def estimate(tasks: Iterable[Task], records: Iterable[Record]) -> Estimate:
    """How long runs take, from those that are done: of the same method, backbone and, where there are, shots and place."""
    seconds: dict[tuple[object, ...], list[float]] = defaultdict(list)
    for record in records:
        result = record.result
        for key in _likeness(record.backbone, result.method, result.shots, result.dataset):
            seconds[key].append(result.seconds)
    total, unknown = 0.0, 0
    for task in tasks:
        keys = _likeness(task.model.key, task.entry.name, task.shots, task.place.name)
        known = next((seconds[key] for key in keys if key in seconds), None)
        if known is None:
            unknown += 1
        else:
            total += sum(known) / len(known)
    return Estimate(total, unknown)


def _likeness(backbone: str, method: str, shots: int, dataset: str) -> list[tuple[object, ...]]:
    """What a run is compared by, the closest first."""
    return [
        (backbone, method, shots, dataset),
        (backbone, method, "any shots", dataset),
        (backbone, method, shots),
        (backbone, method),
    ]
