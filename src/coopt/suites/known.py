"""The suites that can be had by name: coopt's own in the order in which they are listed, then those of other packages.

Another package announces a suite through an entry point, in its pyproject.toml:

    [project.entry-points."coopt.suites"]
    my-suite = "my_package.my_suite:SUITE"
"""

from __future__ import annotations

from difflib import get_close_matches

from coopt.errors import ParameterError
from coopt.registry import Registry
from coopt.suites.suite import Suite

MINIATURES = (
    "mini-few-shot",
    "mini-domain",
    "mini-base-to-new",
    "mini-transfer",
    "mini-fine-tuning",
    "mini-recipes",
    "mini-context",
    "mini-words",
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
    """The suite of that name, or of that number in CoOp's paper ("table1").

    Raises:
        ParameterError: there is none; names the close ones.
        CooptError: another package announces it, but it cannot be imported.
    """
    name = ALIASES.get(name, name)
    if name in SUITES:
        return SUITES.get(name)
    close = get_close_matches(name.lower().replace("_", "-"), SUITES, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(SUITES)}."
    raise ParameterError(f"There is no suite {name!r}. {hint}")


def known_suites() -> list[Suite]:
    """All of them.

    Raises:
        CooptError: one of another package cannot be imported.
    """
    return [SUITES.get(name) for name in SUITES]
