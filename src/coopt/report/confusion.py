"""The confusion matrix as a picture: how the images of each class were classified."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from matplotlib import rc_context
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure

from coopt.evaluation import most_mistaken
from coopt.report.figures import LOOK

MOST_CLASSES = 100
"""More cannot be told apart; of more, those with the most mistakes are drawn."""

LONGEST_NAME = 28
"""Letters of a class name that are shown."""

_NUMBERS = 25  # up to so many classes, cells have room for their numbers


def confusion_figure(counts: Int[np.ndarray, "classes classes"], names: Sequence[str]) -> Figure:
    """A row for each true class, a column for each predicted one; a cell's colour is its share of the row.

    Args:
        counts: images by true class and predicted class.
        names: of the classes.
    """
    shown = most_mistaken(counts, MOST_CLASSES)
    part = counts[np.ix_(shown, shown)]
    totals = counts[shown].sum(axis=1, keepdims=True)
    shares = part / np.maximum(totals, 1)
    labels = [_short(names[int(i)]) for i in shown]
    cell = 0.5 if len(shown) <= 12 else 0.36 if len(shown) <= _NUMBERS else 0.17
    side = max(2.4, cell * len(shown))
    margin = 0.5 + 0.075 * max(map(len, labels))
    with rc_context({**LOOK, "axes.grid": False, "axes.spines.top": True, "axes.spines.right": True}):
        figure = Figure(figsize=(side + margin + 0.3, side + margin + 0.5), layout="constrained")
        axes = figure.subplots()
        axes.imshow(shares, cmap="Blues", norm=PowerNorm(0.6, 0, 1))  # few mistakes must be seen, too
        size = 8.0 if len(shown) <= _NUMBERS else 6.5
        ticks = range(len(shown))
        axes.set_xticks(ticks, labels, rotation=90 if max(map(len, labels)) > 3 else 0, fontsize=size)
        axes.set_yticks(ticks, labels, fontsize=size)
        axes.set_xlabel("predicted")
        axes.set_ylabel("true")
        axes.set_title(_title(counts, len(shown)))
        if len(shown) <= _NUMBERS:
            for row, column in zip(*np.nonzero(part), strict=True):
                colour = "white" if shares[row, column] > 0.4 else "#222222"
                number = str(part[row, column])
                fitting = 72 * side / len(shown) / (0.7 * len(number))
                axes.text(column, row, number, ha="center", va="center", color=colour, fontsize=min(size, fitting))
    return figure


def _title(counts: Int[np.ndarray, "classes classes"], shown: int) -> str:
    right, total = counts.diagonal().sum(), counts.sum()
    title = f"{right} of {total} images right"
    return title if shown == len(counts) else f"{title}; the {shown} of {len(counts)} classes with the most mistakes"


def _short(name: str) -> str:
    # A dollar would begin a formula.
    short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
    return short.replace("$", r"\$")
