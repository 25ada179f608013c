"""Methods as points: accuracy, with its interval, against seconds of learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from coopt.report.figures import LOOK

LEAST_SECONDS = 0.01
"""Where a method stands that takes less, or learns nothing: the axis has no zero."""

_GAP = 0.062
"""The least distance of two names, as a share of the height."""

_TAKEN, _OTHER, _BASELINE = "#0072B2", "#7A7A7A", "#111111"


@dataclass(frozen=True)
class Point:
    """A method.

    Attributes:
        title: beside its point.
        accuracy: in percent.
        interval: of it, in percent.
        seconds: of learning.
        taken: it is the one to take.
        baseline: it is the hand-made prompt.
    """

    title: str
    accuracy: float
    interval: tuple[float, float]
    seconds: float
    taken: bool = False
    baseline: bool = False


def comparison_figure(points: Sequence[Point], title: str) -> Figure:
    """Accuracy against seconds; the horizontal line is the hand-made prompt's accuracy.

    Args:
        points: the methods.
        title: above.
    """
    with rc_context(LOOK):
        figure = Figure(figsize=(7.2, max(3.6, 0.27 * len(points) + 1.2)), layout="constrained")
        axes = figure.subplots()
        axes.set_xscale("log")
        for one in points:
            x, colour = _x(one), _colour(one)
            axes.vlines(x, *one.interval, color=colour, linewidth=1.1, alpha=0.55)
            marker, size = ("*", 12) if one.baseline else ("o", 6)
            axes.plot(x, one.accuracy, marker=marker, markersize=size, color=colour, linestyle="none", zorder=4)
        axes.margins(x=0.08)
        for one in points:
            if one.baseline:
                axes.axhline(one.accuracy, color=_BASELINE, linewidth=0.6, alpha=0.45)
        _name(axes, points)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_xlabel(f"seconds of learning (less than {LEAST_SECONDS:g} stands at {LEAST_SECONDS:g})")
        axes.set_ylabel("accuracy, %, with its 95% interval")
        axes.set_title(title)
    return figure


def _x(one: Point) -> float:
    return max(one.seconds, LEAST_SECONDS)


def _colour(one: Point) -> str:
    return _TAKEN if one.taken else _BASELINE if one.baseline else _OTHER


def _name(axes: Axes, points: Sequence[Point]) -> None:
    """Names at the right, from top to bottom as the points are, each with a line to its point."""
    low, high = axes.get_ylim()
    ordered = sorted(points, key=lambda one: (one.accuracy, -one.seconds))
    gap = min(_GAP, 1 / max(1, len(ordered) - 1))
    heights: list[float] = []  # shares of the axes, from below
    for one in ordered:
        wanted = (one.accuracy - low) / (high - low)
        heights.append(max(wanted, heights[-1] + gap) if heights else max(0.0, wanted))
    most = 1.0
    for i in reversed(range(len(heights))):  # what stands above the top goes down, and pushes what is below it
        heights[i] = min(heights[i], most)
        most = heights[i] - gap
    for one, height in zip(ordered, heights, strict=True):
        axes.annotate(
            f"{one.title}  {one.accuracy:.1f}",
            xy=(_x(one), one.accuracy),
            xytext=(1.03, height),
            textcoords="axes fraction",
            va="center",
            color=_colour(one),
            fontweight="bold" if one.taken else "normal",
            arrowprops={"arrowstyle": "-", "color": _colour(one), "linewidth": 0.5, "alpha": 0.4, "shrinkB": 4},
            annotation_clip=False,
        )
