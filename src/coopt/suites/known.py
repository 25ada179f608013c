"""The suites that can be had by name: coopt's own in the order in which they are listed, then those of other packages.

A file that defines `SUITE` is found by its path (see `coopt.suites.from_file`).

Another package announces a suite through an entry point, in its pyproject.toml:

    [project.entry-points."coopt.suites"]
    my-suite = "my_package.my_suite:SUITE"
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path

from coopt.data.file_names import display_name
from coopt.errors import ParameterError
from coopt.registry import Registry
from coopt.suites.checks import check_suite
from coopt.suites.from_file import is_suite_file, load_suite_file
from coopt.suites.suite import Suite

MINIATURES = (
    "mini-few-shot",
    "mini-domain",
    "mini-base-to-new",
    "mini-transfer",
    "mini-fine-tuning",
    "mini-features",
    "mini-text",
    "mini-cost",
    "mini-recipes",
    "mini-context",
    "mini-words",
    "mini-hard",
)
PAPERS = (
    "coop-few-shot",
    "coop-domain",
    "coop-ensembles",
    "coop-initialisation",
    "coop-words",
    "coop-fine-tuning",
    "coop-context-length",
    "coop-backbones",
    "cocoop-base-to-new",
    "cocoop-transfer",
    "cocoop-domain",
    "relatives-few-shot",
    "relatives-base-to-new",
)

SUITES = Registry(
    "coopt.suites",
    {name: f"coopt.suites.{name.replace('-', '_')}:SUITE" for name in (*MINIATURES, "demo", *PAPERS)},
    "suite",
)

ALIASES = {
    "figure3": "coop-few-shot",
    "table1": "coop-domain",
    "table2": "coop-ensembles",
    "table3": "coop-initialisation",
    "table4": "coop-words",
    "table5": "coop-fine-tuning",
}
"""Suites by the numbers that tables and figures have in CoOp's paper."""


def find_suite(name: str) -> Suite:
    """The suite of that name, or of that number in CoOp's paper ("table1"), or that a file defines ("./mine.py").

    Raises:
        ParameterError: there is none; names the close ones. Or it is none that can be run.
        CooptError: another package announces it, but it cannot be imported.
    """
    if is_suite_file(name):
        return _from_file(Path(name))
    name = ALIASES.get(name, name)
    if name in SUITES:
        return _from_package(name)
    close = get_close_matches(name.lower().replace("_", "-"), SUITES, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(SUITES)}."
    raise ParameterError(f"There is no suite {name!r}. {hint}")


def known_suites(files: Iterable[str] = ()) -> list[Suite]:
    """All of them, and those that files define.

    Raises:
        CooptError: one of another package cannot be imported, or one of a file cannot be read.
    """
    return [_from_package(name) for name in SUITES] + [find_suite(file) for file in files]


def _from_package(name: str) -> Suite:
    suite = SUITES.get(name)
    if not isinstance(suite, Suite):
        raise ParameterError(f"The suite {name!r} is a {type(suite).__name__}. Expected a coopt.suites.Suite.")
    check_suite(suite)
    if suite.name != name:  # its folder of results would be another's
        raise ParameterError(f"The suite {name!r} calls itself {suite.name!r}. Both must be the same.")
    return suite


def _from_file(path: Path) -> Suite:
    suite = load_suite_file(path)
    check_suite(suite)
    if suite.name in SUITES and suite != SUITES.get(suite.name):
        raise ParameterError(
            f"The suite of '{display_name(path)}' is called {suite.name!r}, as another one that is known by this name. "
            "Choose another name, or both would write into one folder."
        )
    return suite
