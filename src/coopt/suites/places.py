"""Places: the data sets of a suite, ready to be loaded, each with its hand-made prompt and what is tested on besides."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from coopt.data import ImageDataset, load_dataset
from coopt.data.benchmarks.catalogue import BENCHMARKS
from coopt.data.bundled import BundledDataset, bundled_datasets
from coopt.evaluation.contenders import Contender, ensemble_with
from coopt.evaluation.protocols import (
    BASE,
    NEW,
    TEST,
    Problem,
    base_to_new_problem,
    domain_problem,
    few_shot_problem,
    transfer_problem,
)
from coopt.prompts.templates import ENSEMBLE
from coopt.suites.methods import estimator_of
from coopt.suites.suite import OWN_ENSEMBLE, OWN_TEMPLATE, Bundled, Entry, Suite

Load = Callable[[], ImageDataset]

IMAGENET_EPOCHS = 50
"""Of the paper's recipe on ImageNet, whatever the number of shots (IJCV 2022, section 4.1)."""


@dataclass(frozen=True)
class Place:
    """A data set of a suite, not read yet.

    Attributes:
        name, title: for files, and for people.
        template: its hand-made prompt.
        ensemble: the prompts of its ensemble.
        source: what its own test part is called among the targets of domain generalisation and transfer.
        others: the other targets.
        epochs: what a recipe means that makes its epochs depend on the shots, where the data set has a rule of its own.
    """

    name: str
    title: str
    template: str
    ensemble: tuple[str, ...]
    load: Load
    source: str
    others: Mapping[str, Load] = field(default_factory=dict)
    epochs: int | None = None

    def targets(self, suite: Suite) -> tuple[str, ...]:
        """What results of the suite are on."""
        if suite.protocol == "few-shot":
            return (TEST,)
        return (BASE, NEW) if suite.protocol == "base-to-new" else (self.source, *self.others)

    def problem(self, suite: Suite) -> Problem:
        """The data set under the suite's protocol, read from disk.

        Raises:
            DataError: a data set is missing, or not as the protocol needs it.
        """
        dataset = replace(self.load(), name=self.name)
        if suite.protocol == "few-shot":
            return few_shot_problem(dataset)
        if suite.protocol == "base-to-new":
            return base_to_new_problem(dataset)
        make = domain_problem if suite.protocol == "domain" else transfer_problem
        return make(dataset, {name: load() for name, load in self.others.items()}, self.source)

    def contender(self, entry: Entry) -> Contender:
        """The entry as a method with parameters for this data set.

        Raises:
            ParameterError: this coopt has no such method, or it has no such parameter.
        """
        own = {OWN_TEMPLATE: self.template, OWN_ENSEMBLE: self.ensemble}
        parameters = {
            name: own.get(value, value) if isinstance(value, str) else value for name, value in entry.parameters.items()
        }
        estimator = estimator_of(entry.method, parameters)
        recipe = estimator.parameters.get("recipe")
        if self.epochs is not None and recipe is not None and recipe["epochs"] is None:
            estimator.set_params(recipe={**recipe, "epochs": self.epochs})
        return Contender(entry.name, estimator, entry.sampling)


def places_of(suite: Suite, root: Path | None = None) -> tuple[Place, ...]:
    """The suite's data sets in the order of its tables.

    Args:
        suite: which.
        root: the folder that holds the papers' data sets; None: where COOPT_DATA_ROOT says.
    """
    if isinstance(suite.datasets, Bundled):
        return _bundled(suite, suite.datasets)
    return tuple(_benchmark(name, suite.targets or (), root) for name in suite.datasets)


def _bundled(suite: Suite, which: Bundled) -> tuple[Place, ...]:
    everything = bundled_datasets()
    most = which.max_classes or sys.maxsize
    chosen = [one for one in everything if which.min_classes <= len(one.class_names) <= most]
    chosen = chosen[:: which.every][: which.first]

    def others(one: BundledDataset) -> dict[str, Load]:
        if suite.protocol == "domain":
            return {style: partial(one.load, style) for style in one.shifted}
        return {other.name: other.load for other in everything if other is not one}

    return tuple(
        Place(
            name=one.name,
            title=one.name,
            template=one.template,
            ensemble=ensemble_with(one.template),
            load=one.load,
            source=one.style if suite.protocol == "domain" else one.name,
            others=others(one) if suite.protocol in ("domain", "transfer") else {},
        )
        for one in chosen
    )


def _benchmark(name: str, targets: tuple[str, ...], root: Path | None) -> Place:
    found = next(one for one in BENCHMARKS if one.name == name)
    return Place(
        name=name,
        title=found.title,
        template=found.template,
        ensemble=ENSEMBLE if name == "imagenet" else ensemble_with(found.template),
        load=partial(load_dataset, name, root=root),
        source=name,
        others={target: partial(load_dataset, target, root=root, require_train=False) for target in targets},
        epochs=IMAGENET_EPOCHS if name == "imagenet" else None,
    )
