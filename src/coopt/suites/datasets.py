"""The data sets of a suite: each with its hand-made prompt, and what is tested on besides."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coopt.data.benchmarks.definitions import BENCHMARKS
from coopt.data.bundled import PREFIX, BundledDataset, bundled_datasets, find_bundled
from coopt.evaluation.estimators import distinguishing, estimator_of
from coopt.evaluation.job import DatasetReference, jsonable
from coopt.evaluation.protocols import BASE, NEW, TEST
from coopt.prompts.templates import DEFAULT_TEMPLATE, ENSEMBLE
from coopt.suites.suite import OWN_ENSEMBLE, OWN_TEMPLATE, Bundled, Data, Entry, Suite

FILES = (".csv", ".tsv", ".zip", ".pkl")
"""Endings of data sets in one file, which their names do without."""

IMAGENET_EPOCHS = 50
"""Of the paper's recipe on ImageNet, whatever the number of shots (IJCV 2022, section 4.1)."""


@dataclass(frozen=True)
class SuiteDataset:
    """A data set of a suite, not read yet.

    Attributes:
        name, title: for files, and for people.
        template: its hand-made prompt.
        ensemble: the prompts of its ensemble.
        reference: where it is.
        source: what its own test part is called among the targets of domain generalisation and transfer.
        others: the other targets.
        epochs: what a recipe means that makes its epochs depend on the shots, where the data set has a rule of its own.
    """

    name: str
    title: str
    template: str
    ensemble: tuple[str, ...]
    reference: DatasetReference
    source: str
    others: tuple[DatasetReference, ...] = ()
    epochs: int | None = None

    def targets(self, suite: Suite) -> tuple[str, ...]:
        """What results of the suite are on."""
        if suite.protocol == "few-shot":
            return (TEST,)
        return (BASE, NEW) if suite.protocol == "base-to-new" else (self.source, *(one.name for one in self.others))

    def given(self, entry: Entry) -> dict[str, Any]:
        """The parameters that the entry's method is made with on this data set, ready for JSON.

        Raises:
            ParameterError: this coopt has no such method, or it has no such parameter.
        """
        prompts = {OWN_TEMPLATE: self.template, OWN_ENSEMBLE: self.ensemble}
        parameters: dict[str, Any] = {
            name: prompts.get(value, value) if isinstance(value, str) else value
            for name, value in entry.parameters.items()
        }
        if self.epochs is not None:
            recipe = estimator_of(entry.method, parameters).parameters.get("recipe")
            if recipe is not None and recipe["epochs"] is None:
                parameters["recipe"] = {**recipe, "epochs": self.epochs}
        return jsonable(parameters)

    def distinguishing(self, entry: Entry) -> dict[str, Any]:
        """All parameters of the entry's method on this data set, as its records name them.

        Raises:
            ParameterError: this coopt has no such method, or it has no such parameter.
        """
        return distinguishing(estimator_of(entry.method, self.given(entry)))


def datasets_of(suite: Suite, root: Path | None = None) -> tuple[SuiteDataset, ...]:
    """The suite's data sets in the order of its tables.

    Args:
        suite: which.
        root: the folder that holds the papers' data sets; None: where COOPT_DATA_ROOT says.

    Raises:
        DataError: the suite names a bundled data set that there is not.
    """
    folder = None if root is None else str(root)
    if not isinstance(suite.datasets, Bundled):
        return tuple(_named(suite, _data(one), folder) for one in suite.datasets)
    which, everything = suite.datasets, bundled_datasets()
    most = which.max_classes or sys.maxsize
    chosen = [one for one in everything if which.min_classes <= len(one.class_names) <= most]
    return tuple(_named(suite, Data(f"{PREFIX}{one.name}"), folder) for one in chosen[:: which.every][: which.first])


def ensemble_with(template: str) -> tuple[str, ...]:
    """The seven selected templates, and the data set's own as the eighth."""
    return ENSEMBLE if template in ENSEMBLE else (*ENSEMBLE, template)


def _named(suite: Suite, data: Data, root: str | None) -> SuiteDataset:
    """A data set of any kind: what is known of it is taken from where it is known."""
    bundled = find_bundled(data.source) if data.source.startswith(PREFIX) else None
    benchmark = next((one for one in BENCHMARKS if one.name == data.source), None)
    reference = _reference(data, root)
    known = bundled or benchmark
    template = data.template or (DEFAULT_TEMPLATE if known is None else known.template)
    title = data.title or (reference.name if benchmark is None or data.name else benchmark.title)
    imagenet = benchmark is not None and benchmark.name == "imagenet"
    return SuiteDataset(
        name=reference.name,
        title=title,
        template=template,
        ensemble=ENSEMBLE if imagenet else ensemble_with(template),
        reference=reference,
        source=bundled.style if bundled is not None and suite.protocol == "domain" else reference.name,
        others=_others(suite, bundled, root),
        epochs=IMAGENET_EPOCHS if imagenet else None,
    )


def _others(suite: Suite, bundled: BundledDataset | None, root: str | None) -> tuple[DatasetReference, ...]:
    """What is tested on besides; of a bundled data set, where the suite does not say, its other styles or the others."""
    if suite.protocol not in ("domain", "transfer"):
        return ()
    if suite.targets is not None or bundled is None:
        return tuple(replace(_reference(_data(one), root), require_train=False) for one in suite.targets or ())
    if suite.protocol == "domain":
        return tuple(DatasetReference(style, f"{PREFIX}{bundled.name}", style) for style in bundled.shifted)
    others = (one.name for one in bundled_datasets() if one is not bundled)
    return tuple(DatasetReference(name, f"{PREFIX}{name}") for name in others)


def _data(given: str | Data) -> Data:
    return Data(given) if isinstance(given, str) else given


def _reference(data: Data, root: str | None) -> DatasetReference:
    """Where it is, under the name that the suite gives it, or the last part of its source."""
    if data.source.startswith(PREFIX):
        return DatasetReference(data.name or data.source.removeprefix(PREFIX), data.source)
    path = Path(data.source)
    name = path.stem if path.suffix.lower() in FILES else path.resolve().name
    return DatasetReference(data.name or name, data.source, root=root)
