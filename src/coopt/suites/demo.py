"""What `coopt demo` runs: few-shot curves on a few bundled data sets (after IJCV 2022, figure 3).

coopt demo
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from coopt.data.bundled import PREFIX
from coopt.suites.papers import BUNDLED_MODEL, COOP, ENSEMBLED, HAND_MADE, LINEAR_PROBE, NAIVE
from coopt.suites.suite import Entry, Suite

DATASETS = ("backgrounds", "left-food", "objects", "animals", "paint")
"""Of different kinds: the colours of backgrounds and of objects have the same names, and only one of them needs a context;
there much is to gain, some with the left one of two things, little or nothing here; with animals something is lost."""

HARD, HARD_SHOTS = "mixed", 4
"""A hard problem beside them, and the labelled images per class that it is shown with: encoding its pictures takes seconds."""


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


def hard_suite(seed: int = 1, recipe: str | dict[str, Any] = "fast", n_ctx: int | None = None) -> Suite:
    """The naive and the learned prompt on the hard problem, once: a line beside the demonstration's tables.

    Args:
        seed: of the sample and of learning.
        recipe: how CoOp is trained.
        n_ctx: length of a context that begins at random; None: that of "a photo of a".
    """
    suite = demo_suite((HARD,), (HARD_SHOTS,), (seed,), recipe, () if n_ctx is None else (n_ctx,))
    return replace(suite, entries=(NAIVE, suite.entries[-1]))


SUITE = demo_suite()
