"""Tables of a suite: our mean and spread over seeds beside the published number, and what is missing."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from coopt.evaluation.metrics import Summary
from coopt.suites.grid import Grid
from coopt.suites.scores import HARMONIC, SHIFTED, Cell, CellKey, Scores
from coopt.suites.suite import AVERAGE, Axis, Entry
from coopt.wording import counted


@dataclass(frozen=True)
class Row:
    """A method's cells, one per column of its table."""

    method: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Section:
    """Rows under one heading.

    Attributes:
        at: what the heading is made of: backbone, dataset, shots, target, as far as tables differ in them.
        title: the heading.
        rows: one per method.
    """

    at: dict[str, Any]
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
        seconds: that a run of each method took, on the mean.
        measured, planned: how many runs there are, and should be.
    """

    columns: tuple[str, ...]
    keys: tuple[Any, ...]
    sections: tuple[Section, ...]
    notes: tuple[str, ...]
    made: tuple[str, ...]
    seconds: Mapping[str, float]
    measured: int
    planned: int

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "columns": list(self.keys),
            "sections": [
                {
                    **section.at,
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


@dataclass(frozen=True)
class CurvePoint:
    """One method on one data set (or on their average) at one number of shots, over the seeds.

    Attributes:
        method: its name.
        dataset: the data set's name, or `AVERAGE`.
        shots: labelled images per class.
        accuracy: in percent, over the seeds.
    """

    method: str
    dataset: str
    shots: int
    accuracy: Summary

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"method": self.method, "dataset": self.dataset, "shots": self.shots, **asdict(self.accuracy)}


def curve_points(table: Table) -> list[CurvePoint]:
    """What was measured of a table whose columns are shots, in its order."""
    return [
        CurvePoint(row.method, section.at.get("dataset", section.title), shots, cell.ours)
        for section in table.sections
        for row in section.rows
        for shots, cell in zip(table.keys, row.cells, strict=True)
        if cell.ours is not None
    ]


def table_of(scores: Scores) -> Table:
    """The suite's table from what there is."""
    grid = scores.grid
    axes = _axes(scores)
    published = {
        CellKey(one.backbone, one.dataset, one.method, one.shots, one.target): one.value for one in grid.suite.published
    }
    column = grid.suite.columns
    keys = axes[column]
    outer = [name for name in ("backbones", "datasets", "shots", "targets") if name != column]
    sections = []
    for values in product(*([*axes[name]] for name in outer)):
        at = dict(zip(outer, values, strict=True))
        rows = []
        for entry in grid.entries:
            cell_keys = [_cell_key(entry, {**at, column: key}, column) for key in keys]
            cells = [Cell("none") if key is None else scores.cell(key, published.get(key)) for key in cell_keys]
            rows.append(Row(entry.name, tuple(cells)))
        heading = {_SINGULAR[name]: value for name, value in at.items() if len(axes[name]) > 1 or name == "backbones"}
        sections.append(Section(heading, _title(grid, heading), tuple(rows)))
    columns = tuple(_column_title(grid, column, key) for key in keys)
    told = [section for section in sections if section.tells]
    nothing = [section.title for section in sections if not section.tells]
    notes = [f"Nothing is there yet for: {'; '.join(nothing)}."] if nothing else []
    return Table(
        columns,
        tuple(keys),
        tuple(told),
        (*notes, *_notes(scores)),
        _made(scores),
        _seconds(scores),
        len(_done(scores)),
        len(grid.jobs()),
    )


_SINGULAR = {"backbones": "backbone", "datasets": "dataset", "shots": "shots", "targets": "target"}


def _axes(scores: Scores) -> dict[str, list[Any]]:
    """The values of each dimension, in order; more shots than planned are shown where they were run."""
    grid = scores.grid
    datasets = [dataset.name for dataset in grid.datasets]
    recorded = {record.result.shots for record in scores.records} - {0}
    shots = sorted({*grid.shots, *recorded})
    if grid.suite.columns == "shots" and any(entry.sampling == "none" for entry in grid.entries):
        shots = [0, *shots]
    targets = list(dict.fromkeys(target for dataset in grid.datasets for target in dataset.targets(grid.suite)))
    return {
        "backbones": [model.key for model in grid.models],
        "datasets": ([AVERAGE] if len(datasets) > 1 else []) + datasets,
        "shots": shots,
        "targets": targets + ([grid.suite.derived] if grid.suite.derived else []),
    }


def _cell_key(entry: Entry, at: Mapping[str, Any], column: Axis) -> CellKey | None:
    """Where a method's number stands; None where it can have none: a method that sees no image has one at 0 shots."""
    sees_none = entry.sampling == "none"
    if column == "shots" and sees_none != (at["shots"] == 0):
        return None
    return CellKey(at["backbones"], at["datasets"], entry.name, 0 if sees_none else at["shots"], at["targets"])


def _title(grid: Grid, at: Mapping[str, Any]) -> str:
    names = {model.key: model.title for model in grid.models}
    titles = {one.name: one.title for one in grid.datasets} | {AVERAGE: f"mean of {len(grid.datasets)} data sets"}
    parts = []
    if "dataset" in at:
        parts.append(titles[at["dataset"]])
    if "backbone" in at and (len(grid.suite.models) > 1 or not grid.suite.bundled):
        parts.append(names[at["backbone"]])
    if "shots" in at:
        parts.append(f"{at['shots']} shots")
    if "target" in at:
        parts.append(str(at["target"]))
    return ", ".join(parts) or (grid.datasets[0].title if len(grid.datasets) == 1 else "accuracy, %")


def _column_title(grid: Grid, axis: str, key: Any) -> str:
    if axis == "shots":
        return f"{key} shot{'s' * (key != 1)}"
    if axis == "backbones":
        return next(model.title for model in grid.models if model.key == key)
    if axis == "datasets":
        return "mean" if key == AVERAGE else next(one.title for one in grid.datasets if one.name == key)
    return {HARMONIC: "H", SHIFTED: "mean of the others"}.get(key, str(key))


def _done(scores: Scores) -> set[str]:
    planned = {job.name for job in scores.grid.jobs()}
    return {record.name for record in scores.records} & planned


def _notes(scores: Scores) -> tuple[str, ...]:
    """What readers must know: numbers of several models or data in one table, and where published ones are from."""
    notes = []
    models: dict[str, set[str]] = defaultdict(set)
    data: dict[str, set[str]] = defaultdict(set)
    for record in scores.records:
        models[record.backbone].add(record.result.setting.backbone)
        data[record.result.dataset].add(record.result.setting.dataset_hash)
    for what, by_name in (("backbone", models), ("data set", data)):
        notes += [
            f"The results of the {what} {name} are of {len(kinds)} different ones: run the suite again."
            for name, kinds in by_name.items()
            if len(kinds) > 1
        ]
    if scores.outdated:
        notes.append(
            f"Left out: {counted(scores.outdated, 'result')} of methods with other parameters than the suite has now."
        )
    if scores.grid.suite.published_note:
        notes.append(f"Published: {scores.grid.suite.published_note}")
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
        f"{key} (fingerprint {', '.join(sorted(one[:12] for one in prints))})" for key, prints in models.items()
    ]
    took = [f"{method} {seconds:.3g}" for method, seconds in _seconds(scores).items()]
    made = f"Made with the backbone {'; '.join(fingerprints)}"
    return (
        f"{made}{', and ' if versions else ''}{', '.join(sorted(versions))}.",
        f"Seconds a run took on average, with cached features of images: {'; '.join(took)}.",
    )


def _seconds(scores: Scores) -> dict[str, float]:
    """That a run of each method took, on the mean."""
    seconds: dict[str, list[float]] = defaultdict(list)
    for record in scores.records:
        seconds[record.result.method].append(record.result.seconds)
    return {method: sum(some) / len(some) for method, some in seconds.items()}
