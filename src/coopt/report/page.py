"""The page of a report: one file of HTML with its style and pictures inside, which asks nothing of a network."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template

_WIDTH, _HEIGHT = 320.0, 200.0
"""Of a diagram, in its own units; the page scales it."""


def report_page(content: Mapping[str, Any], pictures: Mapping[str, str | None]) -> str:
    """The page.

    Args:
        content: what `coopt.app.reporting.report_on` gave.
        pictures: small pictures of the images that are shown, as addresses that hold them; None where one cannot be read.
    """
    return _template().render(
        content,
        pictures=pictures,
        curve=_curve(content["losses"]),
        reliability=[(one["name"], _steps(one["reliability"]["bins"])) for one in content["accuracy"]],
        width=_WIDTH,
        height=_HEIGHT,
        recipe=json.dumps(content["made"].get("recipe"), indent=2),
    )


@cache
def _template() -> Template:
    environment = Environment(
        loader=PackageLoader("coopt.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = lambda share: f"{100 * share:.1f} %"
    return environment.get_template("report.html.j2")


def _curve(losses: Sequence[float]) -> str:
    """Points of a line, from the first epoch at the left to the last at the right; empty for fewer than two."""
    if len(losses) < 2:
        return ""
    low, high = min(losses), max(losses)
    across, up = _WIDTH / (len(losses) - 1), _HEIGHT / ((high - low) or 1.0)
    return " ".join(f"{i * across:.1f},{(high - loss) * up:.1f}" for i, loss in enumerate(losses))


def _steps(bins: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """Bars of a reliability diagram: where each stands, and how high."""
    return [
        {
            "x": one["low"] * _WIDTH,
            "width": (one["high"] - one["low"]) * _WIDTH,
            "y": (1 - one["accuracy"]) * _HEIGHT,
            "height": one["accuracy"] * _HEIGHT,
            "n": one["n"],
        }
        for one in bins
        if one["n"]
    ]
