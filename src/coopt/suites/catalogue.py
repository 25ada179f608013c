"""All suites, in the order in which they are listed: the miniatures, then the papers'."""

from __future__ import annotations

from difflib import get_close_matches

from coopt.errors import ParameterError
from coopt.suites import (
    cocoop_base_to_new,
    cocoop_domain,
    cocoop_transfer,
    coop_backbones,
    coop_context_length,
    coop_domain,
    coop_ensembles,
    coop_few_shot,
    coop_fine_tuning,
    coop_initialisation,
    coop_words,
    mini_base_to_new,
    mini_context,
    mini_domain,
    mini_few_shot,
    mini_fine_tuning,
    mini_recipes,
    mini_transfer,
    mini_words,
)
from coopt.suites.suite import Suite

SUITES: dict[str, Suite] = {
    module.SUITE.name: module.SUITE
    for module in (
        mini_few_shot,
        mini_domain,
        mini_base_to_new,
        mini_transfer,
        mini_fine_tuning,
        mini_recipes,
        mini_context,
        mini_words,
        coop_few_shot,
        coop_domain,
        coop_ensembles,
        coop_initialisation,
        coop_words,
        coop_fine_tuning,
        coop_context_length,
        coop_backbones,
        cocoop_base_to_new,
        cocoop_transfer,
        cocoop_domain,
    )
}

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
    """
    name = ALIASES.get(name, name)
    if name in SUITES:
        return SUITES[name]
    close = get_close_matches(name.lower().replace("_", "-"), SUITES, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"There are {', '.join(SUITES)}."
    raise ParameterError(f"There is no suite {name!r}. {hint}")
