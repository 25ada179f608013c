"""Nearest words of learned context vectors, data set by data set, beside the published ones (IJCV 2022, table 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from coopt.evaluation.run_files import Record
from coopt.suites.tables import Scores


@dataclass(frozen=True)
class WordTable:
    """The words of one method with one backbone.

    Attributes:
        method: its name.
        backbone: its key.
        columns: titles: data sets, ours and published.
        rows: a cell "word (distance)" per column, a row per context vector.
        scale: mean distance of random vectors, and of words, to the nearest (other) word, and of the learned vectors;
            empty where nothing was run.
    """

    method: str
    backbone: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    scale: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "method": self.method,
            "backbone": self.backbone,
            "columns": list(self.columns),
            "rows": [list(row) for row in self.rows],
            "scale": self.scale,
        }


def word_tables(scores: Scores) -> tuple[WordTable, ...]:
    """A table per backbone and method, from the first seed of each data set; of class-specific contexts the first class.

    Published words stand beside the first method's; they are given without ours where nothing was run.
    """
    suite = scores.grid.suite
    if not suite.words:
        return ()
    first: dict[tuple[str, str, str], Record] = {}
    for record in sorted(scores.records, key=lambda one: (one.result.shots, one.result.seed or 0)):
        if record.words is not None:
            first.setdefault((record.backbone, record.result.method, record.result.dataset), record)
    tables = []
    for model in scores.grid.models:
        for i, entry in enumerate(scores.grid.entries):
            records = {d: r for (b, m, d), r in first.items() if (b, m) == (model.key, entry.name)}
            published = suite.published_words if i == 0 else {}
            if records or published:
                tables.append(_table(scores, model.key, entry.name, records, published))
    return tuple(tables)


def _table(
    scores: Scores,
    backbone: str,
    method: str,
    records: Mapping[str, Record],
    published: Mapping[str, Sequence[tuple[str, float | None]]],
) -> WordTable:
    columns: list[str] = []
    cells: list[list[str]] = []
    learned: list[float] = []
    for dataset in scores.grid.datasets:
        if dataset.name in records:
            whose, vectors = _vectors(records[dataset.name])
            learned += [row[0]["distance"] for row in vectors]
            columns.append(f"{dataset.title}{whose}")
            cells.append([_said(row[0]["word"], row[0]["distance"]) for row in vectors])
        if dataset.name in published:
            columns.append(f"{dataset.title}, published")
            cells.append([_said(word, distance) for word, distance in published[dataset.name]])
    height = max(map(len, cells))
    rows = tuple(tuple(column[i] if i < len(column) else "" for column in cells) for i in range(height))
    scale = {}
    if records:
        words = next(iter(records.values())).words
        assert words is not None
        scale = {**words["scale"], "learned_to_word": sum(learned) / len(learned)}
    return WordTable(method, backbone, tuple(columns), rows, scale)


def _vectors(record: Record) -> tuple[str, Sequence[Sequence[dict[str, Any]]]]:
    """What the vectors belong to besides the data set, and the nearest words of each."""
    assert record.words is not None
    vectors = record.words["vectors"]
    if isinstance(vectors, dict):
        name = next(iter(vectors))
        return f" ({name})", vectors[name]
    return "", vectors


def _said(word: str, distance: float | None) -> str:
    return word if distance is None else f"{word} ({distance:.4f})"
