"""What is wrong with a suite, found before anything is run."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import get_args

from coopt.errors import CooptError, ParameterError
from coopt.evaluation.estimators import estimator_of
from coopt.evaluation.job import in_file_names
from coopt.evaluation.protocols import ProtocolName, Sampling
from coopt.suites.datasets import SuiteDataset
from coopt.suites.grid import Grid
from coopt.suites.suite import Axis, Entry, Suite

_NAME = r"[A-Za-z0-9][A-Za-z0-9_.=+-]*"
DERIVED = {"": get_args(ProtocolName), "harmonic": ("base-to-new",), "shifted": ("domain", "transfer")}
"""The computed last column, and the protocols that it is for."""


def check_suite(suite: Suite) -> None:
    """Refuses a suite that cannot be run or laid out, whatever its data sets and methods.

    Raises:
        ParameterError: says what is wrong with it.
    """
    if not isinstance(suite.name, str) or not re.fullmatch(_NAME, suite.name):
        raise ParameterError(
            f"The name of a suite must be made of letters, digits and _.=+-, since it names a folder. Got {suite.name!r}."
        )
    _one_of(suite, "protocol", suite.protocol, get_args(ProtocolName))
    _one_of(suite, "columns", suite.columns, get_args(Axis))
    _one_of(suite, "derived", suite.derived, DERIVED)
    if suite.protocol not in DERIVED[suite.derived]:
        raise ParameterError(
            f"The derived column {suite.derived!r} of the suite {suite.name} is for the protocols "
            f"{' and '.join(DERIVED[suite.derived])}. Its protocol is {suite.protocol}."
        )
    for entry in suite.entries:
        _one_of(suite, f"sampling of {entry.name!r}", entry.sampling, get_args(Sampling))
    for what, things in (("methods", suite.entries), ("backbones", suite.models)):
        if not things:
            raise ParameterError(f"The suite {suite.name} has no {what}. Expected at least one.")
    _different(suite, "methods", [in_file_names(entry.name) for entry in suite.entries])
    _different(suite, "backbones", [in_file_names(model.key) for model in suite.models])


def check_grid(grid: Grid) -> None:
    """Refuses a grid with methods that cannot be made, on any of its data sets.

    Raises:
        ParameterError: a method is unknown, or a parameter is unknown or out of its range; says which entry's.
    """
    suite = grid.suite
    if not grid.datasets:
        raise ParameterError(f"The suite {suite.name} has no data sets. Expected at least one.")
    _different(suite, "data sets", [in_file_names(dataset.name) for dataset in grid.datasets])
    for entry in grid.entries:
        for dataset in grid.datasets:
            try:
                _check_entry(entry, dataset)
            except CooptError as error:
                raise ParameterError(f"The method {entry.name!r} of the suite {suite.name}: {error}") from error


def _check_entry(entry: Entry, dataset: SuiteDataset) -> None:
    estimator = estimator_of(entry.method, dataset.given(entry))
    estimator.check_parameters()
    if entry.sampling == "none" and not hasattr(estimator, "fit_classes"):
        raise ParameterError(f"{entry.method} learns from images. Its sampling cannot be 'none'.")


def _one_of(suite: Suite, what: str, value: object, known: Iterable[str]) -> None:
    known = [*known]
    if value not in known:
        raise ParameterError(
            f"The {what} of the suite {suite.name} must be one of {', '.join(map(repr, known))}. Got {value!r}."
        )


def _different(suite: Suite, what: str, names: Sequence[str]) -> None:
    """Files are named after methods, data sets and backbones, so these must be told apart in small letters, too."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ParameterError(
            f"Two {what} of the suite {suite.name} have the same name, {twice[0]!r}. Rename one of them."
        )
