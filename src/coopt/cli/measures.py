"""What was measured, as commands print it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coopt.cli.output import Output
from coopt.data.file_names import display_name

if TYPE_CHECKING:
    from coopt.evaluation import Evaluation

SHOWN_CONFUSIONS = 5


def percent(value: float) -> str:
    """A share in percent, as tables show it."""
    return f"{value:.1f}"


def percent_interval(interval: tuple[float, float]) -> str:
    """An interval in percent, as tables show it."""
    return f"{percent(interval[0])} to {percent(interval[1])}"


MEASURES = ("accuracy", "95% interval", "macro-F1", "class mean")
"""The columns of a table of evaluations."""


def measures(found: Evaluation) -> list[str]:
    """The cells of an evaluation under `MEASURES`."""
    shares = (percent(found.macro_f1), percent(found.mean_class_accuracy))
    return [percent(found.accuracy), percent_interval(found.interval), *shares]


def say_mistakes(output: Output, found: Evaluation) -> None:
    """The weakest classes and the most frequent mistakes, where there are any."""
    worst = [one for one in found.worst_classes() if one.accuracy < 100]
    if not worst:
        return
    output.say()
    output.table(
        ["Weakest classes, %", "images", "accuracy"],
        [[display_name(one.name), str(one.n), percent(one.accuracy)] for one in worst],
        right=(1, 2),
    )
    output.say()
    output.table(
        ["Most frequent mistakes", "taken for", "images"],
        [
            [display_name(one.true), display_name(one.predicted), str(one.count)]
            for one in found.confusions[:SHOWN_CONFUSIONS]
        ],
        right=(2,),
    )
