"""Accuracy against shots, in the form of the paper's few-shot figure (Zhou et al., IJCV 2022, figure 3).

A panel for the average, then one per data set: learned methods as solid curves with a band of one standard deviation,
the linear probe dashed, hand-made prompts as a star at 0 shots, other zero-shot prompts as dotted lines.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from coopt.report.figures import LOOK
from coopt.suites.papers import HAND_MADE, LINEAR_PROBE
from coopt.suites.suite import AVERAGE
from coopt.suites.tables import CurvePoint

# Okabe and Ito's palette: told apart with every kind of colour vision. Markers and dashes say the same once more.
_LEARNED = ("#0072B2", "#E69F00", "#56B4E9", "#8A4B08", "#6A51A3")
_PROBE = "#D55E00"
_STAR = "#111111"
_LINES = ("#CC79A7", "#009E73", "#7A7A7A")
_MARKERS = "osD^v"

_PANEL, _LEGEND = (2.75, 2.35), (1.55, 0.24)  # inches: a panel, an entry of the legend
_NOTE, _LETTER = 0.14, 0.057  # inches: a line of the note, a letter of it


def accuracy_figure(
    points: Sequence[CurvePoint],
    described: Mapping[str, str] | None = None,
    note: str = "",
    columns: int | None = None,
) -> Figure:
    """Accuracy against shots: one panel per data set, the average first.

    Args:
        points: what is drawn; data sets and methods in the order in which they come.
        described: a few words on each data set, by its name.
        note: what the numbers are, below the figure; wrapped to its width.
        columns: panels in a row; None: 3, or more when there are many.
    """
    datasets = list(dict.fromkeys(s.dataset for s in points))
    styles = _styles(points)
    columns = columns or min(len(datasets), 3 if len(datasets) <= 9 else 4 if len(datasets) <= 16 else 5)
    rows = math.ceil(len(datasets) / columns)
    width = max(columns, 1.6) * _PANEL[0]
    legend_columns = min(len(styles), int(width / _LEGEND[0]))
    legend_rows = math.ceil(len(styles) / legend_columns)
    lines = textwrap.wrap(note, int(width / _LETTER))
    below = 0.12 + legend_rows * _LEGEND[1] + (0.06 + _NOTE * len(lines) if lines else 0)
    height = rows * _PANEL[1] + below
    with rc_context(LOOK):
        figure = Figure(figsize=(width, height), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        shots = sorted({s.shots for s in points})
        for axes, dataset in zip(grid.flat, datasets, strict=False):
            _panel(axes, [s for s in points if s.dataset == dataset], styles, shots)
            _title(axes, dataset, len(datasets), described or {})
        _label(grid, len(datasets), columns)
        _legend(figure, grid.flat[0], legend_columns, below / height)
        for i, line in enumerate(reversed(lines)):
            y = (0.11 + i * _NOTE) / height
            figure.text(0.5, y, line, ha="center", va="center", fontsize=7.5, color="#555555")
    return figure


def shots_position(shots: int) -> float:
    """Where a number of shots stands on the x axis: 0, then every doubling a step."""
    return 0.0 if shots == 0 else 1.0 + math.log2(shots)


def _styles(points: Sequence[CurvePoint]) -> dict[str, dict[str, Any]]:
    """How each method is drawn, in the order in which methods come; "kind" is curve, star or line."""
    learned, lines = iter(_LEARNED * 9), iter(_LINES * 9)
    markers = iter(_MARKERS * 9)
    styles: dict[str, dict[str, Any]] = {}
    for method in dict.fromkeys(s.method for s in points):
        if any(s.shots > 0 for s in points if s.method == method):
            probe = method == LINEAR_PROBE.name
            styles[method] = {"kind": "curve", "color": _PROBE if probe else next(learned)}
            styles[method] |= {"linestyle": "--", "marker": "x"} if probe else {"marker": next(markers)}
        elif method == HAND_MADE.name:
            styles[method] = {"kind": "star", "color": _STAR}
        else:
            styles[method] = {"kind": "line", "color": next(lines), "linestyle": (0, (1, 1.2 + 2 * len(styles)))}
    return styles


def _panel(axes: Axes, points: Sequence[CurvePoint], styles: Mapping[str, dict[str, Any]], shots: list[int]) -> None:
    for method, style in styles.items():
        curve = sorted((s for s in points if s.method == method), key=lambda s: s.shots)
        if not curve:
            continue
        look = {name: value for name, value in style.items() if name != "kind"}
        if style["kind"] == "curve":
            _curve(axes, method, curve, look)
        elif style["kind"] == "star":
            axes.plot(
                0, curve[0].accuracy.mean, marker="*", markersize=12, linestyle="none", label=method, zorder=5, **look
            )
            axes.axhline(curve[0].accuracy.mean, linewidth=0.6, alpha=0.45, **look)
        else:
            axes.axhline(curve[0].accuracy.mean, linewidth=1.7, label=method, **look)
    axes.set_xticks([shots_position(k) for k in shots], [str(k) for k in shots])
    axes.set_xlim(-0.35, shots_position(shots[-1]) + 0.35)
    low, high = axes.get_ylim()
    if high - low < 10:  # a flat panel must look flat
        middle = (low + high) / 2
        low, high = middle - 5, middle + 5
    axes.set_ylim(max(low, -3), min(high, 103))
    axes.yaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 5, 10], integer=True))


def _curve(axes: Axes, method: str, curve: Sequence[CurvePoint], look: dict[str, Any]) -> None:
    x = [shots_position(s.shots) for s in curve]
    axes.fill_between(
        x,
        [s.accuracy.mean - s.accuracy.std for s in curve],
        [s.accuracy.mean + s.accuracy.std for s in curve],
        color=look["color"],
        alpha=0.16,
        linewidth=0,
    )
    axes.plot(x, [s.accuracy.mean for s in curve], linewidth=1.8, markersize=5, label=method, zorder=4, **look)


def _title(axes: Axes, dataset: str, n_datasets: int, described: Mapping[str, str]) -> None:
    average = dataset == AVERAGE
    title = f"mean of {n_datasets - 1} data sets" if average else dataset
    axes.set_title(title, fontweight="bold" if average else "normal", pad=15 if described else 6)
    axes.annotate(
        described.get(dataset, ""),
        xy=(0.5, 1),
        xytext=(0, 4),
        xycoords="axes fraction",
        textcoords="offset points",
        ha="center",
        fontsize=7.5,
        color="#666666",
    )


def _label(grid: Any, used: int, columns: int) -> None:
    """Axis labels at the left and below the lowest panel of each column; unused panels are emptied."""
    for i, axes in enumerate(grid.flat):
        if i >= used:
            axes.set_axis_off()
            continue
        if i % columns == 0:
            axes.set_ylabel("accuracy (%)")
        if i + columns >= used:
            axes.set_xlabel("labelled images per class")


def _legend(figure: Figure, axes: Axes, columns: int, below: float) -> None:
    handles, labels = axes.get_legend_handles_labels()
    engine: Any = figure.get_layout_engine()
    engine.set(rect=(0, below, 1, 1 - below), w_pad=0.06, h_pad=0.05)
    figure.legend(
        handles,
        labels,
        loc="upper center",
        bbox_to_anchor=(0.5, below),
        ncols=columns,
        handlelength=2.6,
        columnspacing=1.4,
        fontsize=8.5,
    )
