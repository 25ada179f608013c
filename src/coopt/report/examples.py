"""Test pictures with what a model said of them before and after learning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from coopt.data import open_image
from coopt.report.figures import LOOK

# Blue and vermillion, with a mark beside them: right and wrong are told apart without the colour too.
_RIGHT, _WRONG = ("✓", "#0072B2"), ("✗", "#C24E00")
_CELL, _TITLE, _LEFT, _HEADING = (1.25, 1.72), 0.3, 0.62, 0.45  # inches
_LINES = (("class", 0.1), ("naive", 0.25), ("learned", 0.4))  # inches below the picture
_LONGEST = 20


@dataclass(frozen=True)
class Example:
    """One picture: its file, its class, and what was predicted before and after learning."""

    image: Path
    label: str
    before: str
    after: str


@dataclass(frozen=True)
class ExampleRow:
    """Pictures of one data set, and what stands above them."""

    title: str
    examples: tuple[Example, ...]


def first_of_each_class(labels: Sequence[str], count: int) -> list[int]:
    """The place of the first image of each of the first `count` classes: a choice that nobody made."""
    first: dict[str, int] = {}
    for i, label in enumerate(labels):
        first.setdefault(label, i)
    return list(first.values())[:count]


def examples_figure(rows: Sequence[ExampleRow], heading: str) -> Figure:
    """A row of pictures per data set; below each its class, the prediction before, and the one after learning."""
    columns = max(5, *(len(row.examples) for row in rows))
    row_height = _CELL[1] + _TITLE
    width, height = _LEFT + columns * _CELL[0] + 0.05, len(rows) * row_height + _HEADING
    side = _CELL[0] - 0.14
    with rc_context(LOOK):
        figure = Figure(figsize=(width, height))

        def write(x: float, y: float, text: str, **look: Any) -> None:
            figure.text(x / width, y / height, text, va="center", **look)

        write(0.1, height - 0.22, heading, fontsize=8.5, color="#333333")
        for r, row in enumerate(rows):
            top = height - _HEADING - r * row_height
            write(0.1, top - 0.12, row.title, fontsize=9.5, fontweight="bold")
            bottom = top - _TITLE - side
            for name, below in _LINES:
                write(0.1, bottom - below, name, fontsize=7.5, color="#777777")
            for c, example in enumerate(row.examples):
                left = _LEFT + c * _CELL[0]
                _picture(figure.add_axes((left / width, bottom / height, side / width, side / height)), example)
                for (_, below), text, look in zip(_LINES, *_said(example), strict=True):
                    write(left, bottom - below, text, **look)
    return figure


def _said(example: Example) -> tuple[list[str], list[dict[str, Any]]]:
    """The lines below a picture and how they look."""
    texts = [_short(example.label)]
    looks: list[dict[str, Any]] = [{"fontsize": _size(example.label), "fontweight": "bold", "color": "#222222"}]
    for said in (example.before, example.after):
        mark, colour = _RIGHT if said == example.label else _WRONG
        texts.append(f"{mark} {_short(said)}")
        looks.append({"fontsize": _size(said), "color": colour})
    return texts, looks


def _size(name: str) -> float:
    return 7.8 if len(name) <= 15 else 6.6


def _picture(axes: Axes, example: Example) -> None:
    axes.imshow(open_image(example.image))  # type: ignore[arg-type]
    axes.set_axis_off()


def _short(name: str) -> str:
    return name if len(name) <= _LONGEST else name[: _LONGEST - 1] + "…"
