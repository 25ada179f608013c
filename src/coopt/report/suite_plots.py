"""Figures of suites in the papers' form: accuracy against shots, gains over hand-made prompts, and targets side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coopt.report.comparison import Point, comparison_figure
from coopt.report.figures import LOOK
from coopt.report.plots import accuracy_figure
from coopt.suites.papers import HAND_MADE
from coopt.suites.suite import AVERAGE, Suite
from coopt.suites.tables import Section, Table, curve_points

_UP, _DOWN = "#0072B2", "#D55E00"
_BARS = ("#7A7A7A", "#D55E00", "#0072B2", "#E69F00", "#56B4E9", "#8A4B08", "#6A51A3", "#CC79A7")


def suite_figures(suite: Suite, table: Table) -> dict[str, Figure]:
    """The figures that a suite's numbers allow, by name; none where nothing was measured."""
    figures: dict[str, Figure] = {}
    for backbone in dict.fromkeys(section.at["backbone"] for section in table.sections):
        sections = [one for one in table.sections if one.at["backbone"] == backbone and _measured(one)]
        if not sections:
            continue
        if suite.cost_figure:
            figures[f"{backbone}-cost"] = cost_figure(suite, table, sections)
        if suite.columns == "shots":
            points = curve_points(replace(table, sections=tuple(sections)))
            figures[f"{backbone}-accuracy"] = accuracy_figure(points, note=_note(suite, sections))
            for method, gains in _gains(sections).items():
                figures[f"{backbone}-gain-{_plain(method)}"] = gain_figure(gains, f"{method} minus hand-made prompt")
        elif suite.columns in ("targets", "datasets"):
            means = [section for section in sections if section.at.get("dataset") == AVERAGE]
            for section in means or sections:
                where = _plain(section.at.get("dataset", ""))
                name = "-".join(part for part in (backbone, where, suite.columns) if part)
                figures[name] = bars_figure(table.columns, section)
    return figures


def cost_figure(suite: Suite, table: Table, sections: Sequence[Section]) -> Figure:
    """Accuracy against the seconds of a run: the mean over data sets, or the only one, in the first column.

    Args:
        suite: what was run.
        table: what came of it.
        sections: of one backbone, the first of which is drawn.
    """
    points = [
        Point(
            row.method,
            ours.mean,
            (ours.mean - (ours.t_interval or 0.0), ours.mean + (ours.t_interval or 0.0)),
            0.0 if row.method == HAND_MADE.name else table.seconds[row.method],
            baseline=row.method == HAND_MADE.name,
        )
        for row in sections[0].rows
        if (ours := row.cells[0].ours) is not None
    ]
    return comparison_figure(points, f"{suite.name}: accuracy on the test images against what learning costs")


def gain_figure(gains: Mapping[str, float], title: str) -> Figure:
    """Bars of percentage points, the largest gain at the top (after IJCV 2022, figure 4).

    Args:
        gains: data set to points of accuracy.
        title: what was taken from what.
    """
    ordered = sorted(gains.items(), key=lambda one: one[1])
    with rc_context(LOOK):
        figure = Figure(figsize=(5.2, 0.6 + 0.27 * len(ordered)), layout="constrained")
        axes = figure.subplots()
        values = [value for _, value in ordered]
        axes.barh(range(len(ordered)), values, color=[_UP if value >= 0 else _DOWN for value in values], height=0.68)
        axes.set_yticks(range(len(ordered)), [name for name, _ in ordered])
        axes.axvline(0, color="#333333", linewidth=0.8)
        axes.grid(axis="y", visible=False)
        axes.margins(x=0.14)
        for y, value in enumerate(values):
            sign = 1 if value >= 0 else -1
            axes.annotate(
                f"{value:+.1f}",
                (value, y),
                (3 * sign, 0),
                textcoords="offset points",
                va="center",
                ha="left" if sign > 0 else "right",
                fontsize=7.5,
            )
        axes.set_xlabel("points of accuracy")
        axes.set_title(title)
    return figure


def bars_figure(columns: Sequence[str], section: Section) -> Figure:
    """Bars side by side: a group per column, a bar per method, a line of one standard deviation."""
    rows = [row for row in section.rows if any(cell.ours is not None for cell in row.cells)]
    with rc_context(LOOK):
        width = max(4.0, 1.0 + 0.24 * len(columns) * (len(rows) + 1))
        figure = Figure(figsize=(width, 3.2), layout="constrained")
        axes = figure.subplots()
        for i, row in enumerate(rows):
            measured = [(c, cell.ours) for c, cell in enumerate(row.cells) if cell.ours is not None]
            axes.bar(
                [c + (i - (len(rows) - 1) / 2) * 0.8 / len(rows) for c, _ in measured],
                [ours.mean for _, ours in measured],
                0.8 / len(rows) * 0.92,
                yerr=[ours.std for _, ours in measured],
                error_kw={"linewidth": 0.8, "ecolor": "#333333"},
                color=_BARS[i % len(_BARS)],
                label=row.method,
            )
        _finish_bars(axes, columns, section.title)
        figure.legend(loc="outside lower center", ncols=max(1, min(len(rows), int(width / 2))), fontsize=8)
    return figure


def _finish_bars(axes: Axes, columns: Sequence[str], title: str) -> None:
    long = sum(map(len, columns)) > 60
    axes.set_xticks(
        range(len(columns)), columns, rotation=30 if long else 0, ha="right" if long else "center", fontsize=8
    )
    axes.grid(axis="x", visible=False)
    axes.set_ylabel("accuracy (%)")
    axes.set_title(title)


def _measured(section: Section) -> bool:
    return any(cell.ours is not None for row in section.rows for cell in row.cells)


def _gains(sections: Sequence[Section]) -> dict[str, dict[str, float]]:
    """Learned methods' points above the hand-made prompt at the most shots, by data set."""
    gains: dict[str, dict[str, float]] = {}
    for section in sections:
        if section.at.get("dataset", AVERAGE) == AVERAGE:
            continue
        rows = {row.method: row for row in section.rows}
        hand_made = rows.get("hand-made prompt")
        base = hand_made.cells[0].ours if hand_made is not None else None
        for method, row in rows.items():
            best = row.cells[-1].ours
            if base is not None and best is not None and method.startswith("CoOp"):
                gains.setdefault(method, {})[section.at["dataset"]] = best.mean - base.mean
    return gains


def _note(suite: Suite, sections: Sequence[Section]) -> str:
    most = max(c.ours.n for s in sections for row in s.rows for c in row.cells if c.ours is not None)
    seeds = "one seed" if most == 1 else f"mean and standard deviation of {most} seeds"
    return f"{suite.name}: accuracy on the test images, {seeds}"


def _plain(name: Any) -> str:
    cleaned = "".join(letter if letter.isalnum() or letter in "=+" else "-" for letter in str(name).lower())
    return "-".join(part for part in cleaned.split("-") if part)
