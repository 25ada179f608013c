"""Tables of a suite: our mean and spread over seeds beside the published number, and what is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any, Literal

from coopt.evaluation.metrics import Summary, harmonic_mean, means_over, summarize
from coopt.evaluation.protocols import BASE, NEW
from coopt.evaluation.run_files import Record
from coopt.suites.plan import Plan
from coopt.suites.suite import AVERAGE, Axis, Entry
from coopt.wording import counted

HARMONIC, SHIFTED = "harmonic", "shifted"
"""Targets that are computed: the harmonic mean of base and new, and the mean over all but the source."""

Seeds = dict[int | None, float]


@dataclass(frozen=True)
class Spot:
    """A place in the tables of a suite; `dataset` may be `AVERAGE`, and `target` one that is computed."""

    backbone: str
    dataset: str
    method: str
    shots: int
    target: str


@dataclass(frozen=True)
class Cell:
    """Our number and the published one.

    Attributes:
        state: "measured"; "missing": not run yet, or not on all data sets of a mean; "none": there can be no number,
            since the method cannot take the target's classes.
        ours: mean, spread and number of seeds, where measured.
        published: the paper's number, where it is in print.
        planned: how many seeds it should have.
    """

    state: Literal["measured", "missing", "none"]
    ours: Summary | None = None
    published: float | None = None
    planned: int = 1

    @property
    def difference(self) -> float | None:
        """Ours minus the published one."""
        return None if self.ours is None or self.published is None else self.ours.mean - self.published


@dataclass(frozen=True)
class Row:
    """A method's cells, one per column of its table."""

    method: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Section:
    """Rows under one heading.

    Attributes:
        place: what the heading is made of: backbone, dataset, shots, target, as far as tables differ in them.
        title: the heading.
        rows: one per method.
    """

    place: dict[str, Any]
    title: str
    rows: tuple[Row, ...]

    @property
    def tells(self) -> bool:
        """Whether there is a number in it, ours or a published one."""
        return any(cell.ours is not None or cell.published is not None for row in self.rows for cell in row.cells)


@dataclass(frozen=True)
class Table:
    """What came of a suite.

    Attributes:
        columns: titles.
        keys: what the columns stand for: a number of shots, a target, a backbone, a data set.
        sections: parts of the table; those without any number are named in the notes.
        notes: what is to be known about the numbers.
        made: what they were made with, and how long runs took.
        measured, planned: how many runs there are, and should be.
    """

    columns: tuple[str, ...]
    keys: tuple[Any, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    made: tuple[str, ...]
    measured: int
    planned: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "columns": list(self.keys),
            "sections": [
                {
                    **section.place,
                    "rows": [
                        {
                            "method": row.method,
                            "cells": [
                                {
                                    "state": cell.state,
                                    **({} if cell.ours is None else asdict(cell.ours)),
                                    "published": cell.published,
                                    "difference": cell.difference,
                                }
                                for cell in row.cells
                            ],
                        }
                        for row in section.rows
                    ],
                }
                for section in self.sections
            ],
            "notes": list(self.notes),
            "made": list(self.made),
            "measured": self.measured,
            "planned": self.planned,
        }


class Scores:
    """The accuracies of a suite's runs, by place and seed.

    Args:
        plan: the suite.
        records: its files.

    Attributes:
        records: those of the plan.
        outdated: how many are not among them since their method has other parameters now.
    """

    def __init__(self, plan: Plan, records: Iterable[Record]) -> None:
        self.plan = plan
        self._places = {place.name: place for place in plan.places}
        self._methods = {entry.name: entry for entry in plan.entries}
        self._expected: dict[tuple[str, str], dict[str, Any]] = {}
        self._found: dict[Spot, Seeds] = defaultdict(dict)
        self._impossible: set[Spot] = set()
        known = [record for record in records if self._is_known(record)]
        self.records = [record for record in known if self._is_current(record)]
        self.outdated = len(known) - len(self.records)
        for record in self.records:
            self._add(record)

    def _is_known(self, record: Record) -> bool:
        return (
            record.suite == self.plan.suite.name
            and record.backbone in {model.key for model in self.plan.models}
            and record.result.dataset in self._places
            and record.result.method in self._methods
        )

    def _is_current(self, record: Record) -> bool:
        place, entry = self._places[record.result.dataset], self._methods[record.result.method]
        key = (place.name, entry.name)
        if key not in self._expected:
            self._expected[key] = place.contender(entry).parameters
        return record.result.setting.parameters == self._expected[key]

    def _add(self, record: Record) -> None:
        result = record.result
        for target, score in result.scores.items():
            spot = Spot(record.backbone, result.dataset, result.method, result.shots, target)
            if score is None:
                self._impossible.add(spot)
            else:
                self._found[spot][result.seed] = score.accuracy

    def seeds(self, spot: Spot) -> Seeds:
        """Accuracy by seed; of a mean, of the seeds that all have."""
        if spot.target == HARMONIC:
            base, new = (self.seeds(_moved(spot, target=target)) for target in (BASE, NEW))
            return {seed: harmonic_mean(base[seed], new[seed]) for seed in base if seed in new}
        if spot.dataset == AVERAGE:
            return means_over([self.seeds(_moved(spot, dataset=place.name)) for place in self.plan.places])
        if spot.target == SHIFTED:
            return means_over([self.seeds(_moved(spot, target=name)) for name in self._places[spot.dataset].others])
        return self._found.get(spot, {})

    def cell(self, spot: Spot, published: float | None) -> Cell:
        """The cell of a place."""
        found = self.seeds(spot)
        planned = 1 if self._methods[spot.method].sampling == "none" else len(self.plan.seeds)
        if not found:
            return Cell("none" if self._impossible_at(spot) else "missing", None, published, planned)
        ours = summarize(list(found.values()))
        if spot.target == HARMONIC:  # of the means, as the papers have it; the spread is that of the seeds
            base, new = (summarize([*self.seeds(_moved(spot, target=target)).values()]) for target in (BASE, NEW))
            ours = Summary(harmonic_mean(base.mean, new.mean), ours.std, ours.interval, ours.n)
        return Cell("measured", ours, published, max(planned, ours.n))

    def _impossible_at(self, spot: Spot) -> bool:
        targets = {HARMONIC: {BASE, NEW}, SHIFTED: {*self._others()}}.get(spot.target, {spot.target})
        return any(
            (one.backbone, one.method, one.shots) == (spot.backbone, spot.method, spot.shots)
            and spot.dataset in (AVERAGE, one.dataset)
            and one.target in targets
            for one in self._impossible
        )

    def _others(self) -> Sequence[str]:
        return [name for place in self.plan.places for name in place.others]


def _moved(spot: Spot, **change: Any) -> Spot:
    return Spot(**{**asdict(spot), **change})


def table_of(scores: Scores) -> Table:
    """The suite's table from what there is."""
    plan = scores.plan
    axes = _axes(scores)
    published = {
        Spot(one.backbone, one.dataset, one.method, one.shots, one.target): one.value for one in plan.suite.published
    }
    column = plan.suite.columns
    keys = axes[column]
    outer = [name for name in ("backbones", "datasets", "shots", "targets") if name != column]
    sections = []
    for values in product(*([*axes[name]] for name in outer)):
        at = dict(zip(outer, values, strict=True))
        rows = []
        for entry in plan.entries:
            spots = [_spot(entry, {**at, column: key}, column) for key in keys]
            cells = [Cell("none") if s is None else scores.cell(s, published.get(s)) for s in spots]
            rows.append(Row(entry.name, tuple(cells)))
        place = {_SINGULAR[name]: value for name, value in at.items() if len(axes[name]) > 1 or name == "backbones"}
        sections.append(Section(place, _title(plan, place), tuple(rows)))
    columns = tuple(_column_title(plan, column, key) for key in keys)
    told = [section for section in sections if section.tells]
    nothing = [section.title for section in sections if not section.tells]
    notes = [f"Nothing is there yet for: {'; '.join(nothing)}."] if nothing else []
    return Table(
        columns,
        tuple(keys),
        tuple(told),
        (*notes, *_notes(scores)),
        _made(scores),
        len(_done(scores)),
        len(plan.tasks()),
    )


_SINGULAR = {"backbones": "backbone", "datasets": "dataset", "shots": "shots", "targets": "target"}


def _axes(scores: Scores) -> dict[str, list[Any]]:
    """The values of each dimension, in order; more shots than planned are shown where they were run."""
    plan = scores.plan
    datasets = [place.name for place in plan.places]
    found = {record.result.shots for record in scores.records} - {0}
    shots = sorted({*plan.shots, *found})
    if plan.suite.columns == "shots" and any(entry.sampling == "none" for entry in plan.entries):
        shots = [0, *shots]
    targets = list(dict.fromkeys(target for place in plan.places for target in place.targets(plan.suite)))
    return {
        "backbones": [model.key for model in plan.models],
        "datasets": ([AVERAGE] if len(datasets) > 1 else []) + datasets,
        "shots": shots,
        "targets": targets + ([plan.suite.derived] if plan.suite.derived else []),
    }


def _spot(entry: Entry, at: Mapping[str, Any], column: Axis) -> Spot | None:
    """Where a method's number stands; None where it can have none: a method that sees no image has one at 0 shots."""
    sees_none = entry.sampling == "none"
    if column == "shots" and sees_none != (at["shots"] == 0):
        return None
    return Spot(at["backbones"], at["datasets"], entry.name, 0 if sees_none else at["shots"], at["targets"])


def _title(plan: Plan, place: Mapping[str, Any]) -> str:
    names = {model.key: model.title for model in plan.models}
    titles = {one.name: one.title for one in plan.places} | {AVERAGE: f"mean of {len(plan.places)} data sets"}
    parts = []
    if "dataset" in place:
        parts.append(titles[place["dataset"]])
    if "backbone" in place and not plan.suite.bundled:
        parts.append(names[place["backbone"]])
    if "shots" in place:
        parts.append(f"{place['shots']} shots")
    if "target" in place:
        parts.append(str(place["target"]))
    return ", ".join(parts) or (plan.places[0].title if len(plan.places) == 1 else "accuracy, %")


def _column_title(plan: Plan, axis: str, key: Any) -> str:
    if axis == "shots":
        return f"{key} shot{'s' * (key != 1)}"
    if axis == "backbones":
        return next(model.title for model in plan.models if model.key == key)
    if axis == "datasets":
        return "mean" if key == AVERAGE else next(place.title for place in plan.places if place.name == key)
    return {HARMONIC: "H", SHIFTED: "mean of the others"}.get(key, str(key))


def _done(scores: Scores) -> set[str]:
    planned = {task.name for task in scores.plan.tasks()}
    return {record.name for record in scores.records} & planned


def _notes(scores: Scores) -> tuple[str, ...]:
    """What readers must know: numbers of several models or data in one table, and where published ones are from."""
    notes = []
    models: dict[str, set[str]] = defaultdict(set)
    data: dict[str, set[str]] = defaultdict(set)
    for record in scores.records:
        models[record.backbone].add(record.result.setting.backbone)
        data[record.result.dataset].add(record.result.setting.dataset_hash)
    for what, found in (("backbone", models), ("data set", data)):
        notes += [
            f"The results of the {what} {name} are of {len(kinds)} different ones: run the suite again."
            for name, kinds in found.items()
            if len(kinds) > 1
        ]
    if scores.outdated:
        notes.append(
            f"Left out: {counted(scores.outdated, 'result')} of methods with other parameters than the suite has now."
        )
    if scores.plan.suite.published_note:
        notes.append(f"Published: {scores.plan.suite.published_note}")
    return tuple(notes)


def _made(scores: Scores) -> tuple[str, ...]:
    """What the numbers were made with, and how long a run of each method took."""
    if not scores.records:
        return ()
    models: dict[str, set[str]] = defaultdict(set)
    for record in scores.records:
        models[record.backbone].add(record.result.setting.backbone)
    versions = {f"{name} {of}" for record in scores.records for name, of in record.made.get("versions", {}).items()}
    fingerprints = [
        f"{key} (fingerprint {', '.join(sorted(one[:12] for one in found))})" for key, found in models.items()
    ]
    seconds: dict[str, list[float]] = defaultdict(list)
    for record in scores.records:
        seconds[record.result.method].append(record.result.seconds)
    took = [f"{method} {sum(some) / len(some):.3g}" for method, some in seconds.items()]
    made = f"Made with the backbone {'; '.join(fingerprints)}"
    return (
        f"{made}{', and ' if versions else ''}{', '.join(sorted(versions))}.",
        f"Seconds a run took on average, with cached features of images: {'; '.join(took)}.",
    )
