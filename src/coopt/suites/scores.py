"""The scores of a suite's runs, by where they stand in its tables: accuracies over seeds, means over data sets and targets."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from coopt.evaluation.metrics import Summary, harmonic_mean, means_over, summarize
from coopt.evaluation.protocols import BASE, NEW
from coopt.evaluation.run_files import Record
from coopt.suites.grid import Grid
from coopt.suites.suite import AVERAGE

HARMONIC, SHIFTED = "harmonic", "shifted"
"""Targets that are computed: the harmonic mean of base and new, and the mean over all but the source."""

Seeds = dict[int | None, float]


@dataclass(frozen=True)
class CellKey:
    """Where a number stands in the tables of a suite; `dataset` may be `AVERAGE`, and `target` one that is computed."""

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


class Scores:
    """The accuracies of a suite's runs, by where they stand and by seed.

    Args:
        grid: the suite.
        records: its files.

    Attributes:
        records: those of the grid.
        outdated: how many are not among them since their method has other parameters now.
    """

    def __init__(self, grid: Grid, records: Iterable[Record]) -> None:
        self.grid = grid
        self._datasets = {dataset.name: dataset for dataset in grid.datasets}
        self._methods = {entry.name: entry for entry in grid.entries}
        self._expected: dict[tuple[str, str], dict[str, Any]] = {}
        self._accuracy: dict[CellKey, Seeds] = defaultdict(dict)
        self._impossible: set[CellKey] = set()
        known = [record for record in records if self._is_known(record)]
        self.records = [record for record in known if self._is_current(record)]
        self.outdated = len(known) - len(self.records)
        for record in self.records:
            self._add(record)

    def _is_known(self, record: Record) -> bool:
        return (
            record.suite == self.grid.suite.name
            and record.backbone in {model.key for model in self.grid.models}
            and record.result.dataset in self._datasets
            and record.result.method in self._methods
        )

    def _is_current(self, record: Record) -> bool:
        dataset, entry = self._datasets[record.result.dataset], self._methods[record.result.method]
        key = (dataset.name, entry.name)
        if key not in self._expected:
            self._expected[key] = dataset.distinguishing(entry)
        return record.result.setting.parameters == self._expected[key]

    def _add(self, record: Record) -> None:
        result = record.result
        for target, score in result.scores.items():
            key = CellKey(record.backbone, result.dataset, result.method, result.shots, target)
            if score is None:
                self._impossible.add(key)
            else:
                self._accuracy[key][result.seed] = score.accuracy

    def seeds(self, key: CellKey) -> Seeds:
        """Accuracy by seed; of a mean, of the seeds that all have."""
        if key.target == HARMONIC:
            base, new = (self.seeds(replace(key, target=target)) for target in (BASE, NEW))
            return {seed: harmonic_mean(base[seed], new[seed]) for seed in base if seed in new}
        if key.dataset == AVERAGE:
            return means_over([self.seeds(replace(key, dataset=dataset.name)) for dataset in self.grid.datasets])
        if key.target == SHIFTED:
            others = self._datasets[key.dataset].others
            return means_over([self.seeds(replace(key, target=other.name)) for other in others])
        return self._accuracy.get(key, {})

    def cell(self, key: CellKey, published: float | None) -> Cell:
        """The cell that stands there."""
        seeds = self.seeds(key)
        planned = 1 if self._methods[key.method].sampling == "none" else len(self.grid.seeds)
        if not seeds:
            return Cell("none" if self._impossible_at(key) else "missing", None, published, planned)
        ours = summarize(list(seeds.values()))
        if key.target == HARMONIC:  # of the means, as the papers have it; the spread is that of the seeds
            base, new = (summarize([*self.seeds(replace(key, target=target)).values()]) for target in (BASE, NEW))
            ours = replace(ours, mean=harmonic_mean(base.mean, new.mean))
        return Cell("measured", ours, published, max(planned, ours.n))

    def _impossible_at(self, key: CellKey) -> bool:
        targets = {HARMONIC: {BASE, NEW}, SHIFTED: {*self._others()}}.get(key.target, {key.target})
        return any(
            (one.backbone, one.method, one.shots) == (key.backbone, key.method, key.shots)
            and key.dataset in (AVERAGE, one.dataset)
            and one.target in targets
            for one in self._impossible
        )

    def _others(self) -> Sequence[str]:
        return [other.name for dataset in self.grid.datasets for other in dataset.others]
