"""What is said of a comparison of methods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from coopt.cli.output import Output

if TYPE_CHECKING:
    from coopt.app.comparing import CompareResult


def say_comparison(output: Output, result: CompareResult) -> None:
    """The table, what of it is noise, and which method to take."""
    headers, rows = result.table()
    output.say()
    output.table(headers, rows, right=range(1, len(headers)))
    output.say()
    for sentence in result.sentences():
        output.say(sentence)
