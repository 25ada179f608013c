"""What a suite is: a table or a figure of a paper, as data.

A suite is methods x data sets x shots x seeds x backbones under one protocol, how its table is laid out, and the
published numbers. Nothing here computes; nothing here needs torch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

OWN_TEMPLATE = "{the data set's hand-made prompt}"
"""Stands in an entry's parameters for the prompt of the data set at hand."""
OWN_ENSEMBLE = "{the ensemble of prompts}"
"""Stands for the seven selected prompts and, outside of ImageNet, the data set's own."""

AVERAGE = "average"
"""Stands for the mean over all data sets."""

Protocol = Literal["few-shot", "domain", "base-to-new", "transfer"]
Axis = Literal["shots", "targets", "backbones", "datasets"]


@dataclass(frozen=True)
class Entry:
    """A method in a suite.

    Attributes:
        name: in tables and figures.
        method: as in saved prompts: "coop", "zero_shot" ...
        parameters: of the method; `OWN_TEMPLATE` and `OWN_ENSEMBLE` are replaced.
        sampling: see `coopt.evaluation.protocols.Sampling`.
    """

    name: str
    method: str
    parameters: Mapping[str, Any] = field(default_factory=dict)
    sampling: Literal["none", "few-shot", "linear-probe"] = "few-shot"


@dataclass(frozen=True)
class Model:
    """A backbone in a suite: a key for `--only` and files, the paper's name, and the name that loads it."""

    key: str
    title: str
    name: str


@dataclass(frozen=True)
class Bundled:
    """Data sets that come with the package.

    Attributes:
        every: 2: every second one in the order of tables, which puts alike ones side by side; and so on.
        first: how many of these at most; None: all.
        min_classes, max_classes: only those with so many classes.
    """

    every: int = 1
    first: int | None = None
    min_classes: int = 2
    max_classes: int | None = None


@dataclass(frozen=True)
class Data:
    """A data set that a suite names for itself, where its source alone does not say enough.

    Attributes:
        source: as `coopt.load_dataset` takes it: a folder, a CSV, "caltech101", "bundled:animals".
        name: in files and on the command line; empty: from the source.
        title: in tables; empty: the name.
        template: its hand-made prompt; empty: the data set's where it has one, "a photo of a {}." otherwise.
    """

    source: str
    name: str = ""
    title: str = ""
    template: str = ""


@dataclass(frozen=True)
class Published:
    """A number of a paper, and where it stands in the suite's table."""

    value: float
    backbone: str
    dataset: str
    method: str
    shots: int
    target: str


@dataclass(frozen=True)
class Suite:
    """A table or a figure of a paper.

    Attributes:
        name: on the command line.
        title: what it is about.
        paper: where it is published.
        protocol: see `coopt.evaluation.protocols`.
        models: the backbones.
        datasets: what is learned from: `Bundled`, or whatever `coopt.load_dataset` takes, each as it is or as `Data`: names of
            the papers' data sets, "bundled:animals", folders, CSVs.
        entries: the methods.
        columns: what the columns of its table are.
        shots, seeds: of the grid.
        targets: what else is tested on, in domain generalisation and transfer: data sets, likewise; None: for bundled data sets
            their other styles, or the other data sets.
        derived: a last column: "harmonic" (of base and new) or "shifted" (the mean of all targets but the source).
        cost_figure: whether `coopt suite show --figures` draws accuracy against the seconds of a run.
        published: the paper's numbers, where they are in print.
        published_note: where they are from, and what stands beside them.
        words: how many nearest words of each learned vector are kept; 0: none.
        published_words: data set to the words in print, with their distances.
        cost: what it takes.
    """

    name: str
    title: str
    paper: str
    protocol: Protocol
    models: tuple[Model, ...]
    datasets: tuple[str | Data, ...] | Bundled
    entries: tuple[Entry, ...]
    columns: Axis
    cost: str
    shots: tuple[int, ...] = (1, 2, 4, 8, 16)
    seeds: tuple[int, ...] = (1, 2, 3)
    targets: tuple[str | Data, ...] | None = None
    derived: Literal["", "harmonic", "shifted"] = ""
    cost_figure: bool = False
    published: tuple[Published, ...] = ()
    published_note: str = ""
    words: int = 0
    published_words: Mapping[str, Sequence[tuple[str, float | None]]] = field(default_factory=dict)

    @property
    def bundled(self) -> bool:
        """Whether it needs nothing but the package."""
        if isinstance(self.datasets, Bundled):
            return True
        sources = [one.source if isinstance(one, Data) else one for one in (*self.datasets, *(self.targets or ()))]
        return all(source.startswith("bundled:") for source in sources)


def published_row(values: Sequence[float], columns: Axis, names: Sequence[Any], **at: Any) -> tuple[Published, ...]:
    """A row of a published table.

    Args:
        values: its numbers.
        columns: what its columns are.
        names: of the columns, one per number.
        at: the other fields of `Published`.
    """
    key = {"shots": "shots", "targets": "target", "backbones": "backbone", "datasets": "dataset"}[columns]
    return tuple(Published(value, **{**at, key: name}) for value, name in zip(values, names, strict=True))
