"""What `coopt demo` runs: few-shot curves on a few bundled data sets (after IJCV 2022, figure 3).

coopt demo
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coopt.data.bundled import PREFIX
from coopt.suites.papers import BUNDLED_MODEL, COOP, ENSEMBLED, HAND_MADE, LINEAR_PROBE, NAIVE
from coopt.suites.suite import Entry, Suite

DATASETS = ("backgrounds", "left-food", "objects", "animals", "paint")
"""Of different kinds: the colours of backgrounds and of objects have the same names, and only one of them needs a context;
there much is to gain, some with the left one of two things, little or nothing here; with animals something is lost."""


def demo_suite(
    datasets: Sequence[str] = DATASETS,
    shots: tuple[int, ...] = (1, 2, 4, 8, 16),
    seeds: tuple[int, ...] = (1, 2, 3),
    recipe: str | dict[str, Any] = "fast",
    n_ctx: Sequence[int] = (),
) -> Suite:
    """The methods of the paper's few-shot figure, on bundled data sets.

    Args:
        datasets: their names.
        shots: labelled images per class.
        seeds: of the samples and of learning.
        recipe: how CoOp is trained.
        n_ctx: lengths of contexts that begin at random, a curve each; none: one curve, of "a photo of a".
    """
    several = len(n_ctx) > 1
    learned = (
        Entry(f"CoOp (M={m})" if m and several else "CoOp", "coop", {"n_ctx": m, "recipe": recipe})
        for m in n_ctx or (None,)
    )
    return Suite(
        name="demo",
        title="Demonstration",
        paper=f"after {COOP}, figure 3",
        protocol="few-shot",
        models=BUNDLED_MODEL,
        datasets=tuple(f"{PREFIX}{name}" for name in datasets),
        entries=(NAIVE, HAND_MADE, ENSEMBLED, LINEAR_PROBE, *learned),
        columns="shots",
        shots=shots,
        seeds=seeds,
        cost="about a minute",
    )


SUITE = demo_suite()
