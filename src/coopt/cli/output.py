"""What commands print: sentences and tables for people, one JSON document for machines."""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any, TextIO

import click

from coopt import events
from coopt.data.file_names import display_name
from coopt.training.heap import kept_heap
from coopt.wording import spoken

if TYPE_CHECKING:
    from coopt.evaluation import Evaluation

SHOWN_CONFUSIONS = 5

PIPED_WIDTH = 120
"""Columns of a table that is not shown on a terminal."""


class Output:
    """Where a command's words go, its own and those that it hears while it works.

    Args:
        json: print one JSON document and nothing else on standard output.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self._warned: list[events.Warned] = []

    @property
    def warnings(self) -> list[dict[str, str]]:
        """What was warned of so far."""
        return [one.to_record() for one in self._warned]

    @contextmanager
    def hearing(self, debug: bool = False) -> Iterator[None]:
        """Within this context sentences and warnings become lines; those of libraries are shown with `debug` only."""
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            with events.listening(self.hear), events.warnings_collected() as self._warned:
                yield

    def hear(self, event: events.Event) -> None:
        """Sentences and warnings; all else is for others."""
        if isinstance(event, events.Said):
            self.say(event.text)
        elif isinstance(event, events.Warned):
            _write(sys.stderr, f"Warning: {event.message}")

    def say(self, text: str = "") -> None:
        """A line for people; wrapped at blanks on a terminal, never elsewhere."""
        if self.json:
            return
        if not sys.stdout.isatty():
            self.line(text)
            return
        from rich.text import Text

        self._print(Text(text))

    def command(self, text: str, indent: int = 2) -> None:
        """A command for people to copy, on a line of its own that is never wrapped."""
        if not self.json:
            self.line(" " * indent + text)

    def line(self, text: str) -> None:
        """A line of data, as it is."""
        if sys.stdout.isatty():
            from coopt.progress import print_above

            if print_above(text):
                return
        _write(sys.stdout, text)

    def table(self, headers: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> None:
        """A table for people.

        Args:
            headers: one per column.
            rows: their cells.
            right: columns whose cells stand at the right, such as numbers.
        """
        if self.json:
            return
        from rich.box import SIMPLE_HEAD
        from rich.table import Table
        from rich.text import Text

        table = Table(box=SIMPLE_HEAD, pad_edge=False, show_edge=False)
        for i, header in enumerate(headers):
            table.add_column(Text(header), justify="right" if i in right else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(cell) for cell in row))  # Text: class names are not markup
        self._print(table)

    def result(self, document: dict[str, Any]) -> None:
        """The JSON document of this command, with the warnings; people have been told already."""
        if self.json:
            self.line(json.dumps({**document, "warnings": self.warnings}, indent=2))

    def warn(self, message: str, kind: str = "CooptWarning") -> None:
        """A warning on standard error, once."""
        events.emit(events.Warned(message, kind))

    @staticmethod
    def _print(what: Any) -> None:
        from rich.console import Console

        terminal = sys.stdout.isatty()
        console = Console(highlight=False) if terminal else Console(highlight=False, width=PIPED_WIDTH)
        with console.capture() as captured:
            console.print(what)
        lines = captured.get().splitlines()
        _write(sys.stdout, "\n".join(lines if terminal else (line.rstrip() for line in lines)))


def _write(stream: TextIO, line: str) -> None:
    """Writes a line; while progress bars are shown, a terminal's line goes above them and any other to its file."""
    if not stream.isatty():
        stream = getattr(stream, "rich_proxied_file", stream)
    stream.write(line + "\n")
    stream.flush()


class _Command(click.Command):
    """A command whose messages speak of its options, those about wrong ones too."""

    def make_context(self, *arguments: Any, **extra: Any) -> click.Context:
        """See click."""
        with spoken(option_names(self)):
            return super().make_context(*arguments, **extra)

    def invoke(self, ctx: click.Context) -> Any:
        """See click."""
        with spoken(option_names(self)):
            return super().invoke(ctx)


def command(name: str, learns: bool = False, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command with `--json` and `--debug`, whose function is given an `output` to speak through.

    Args:
        name: what it is called by.
        learns: whether it trains, so that memory stays with the process from step to step.
        settings: see click.
    """

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, debug: bool, **options: Any) -> None:
            from coopt.progress import progress_shown  # with rich, which help does not need

            output = Output(as_json)
            with output.hearing(debug), progress_shown(), kept_heap() if learns else nullcontext():
                function(output=output, **options)

        made = click.command(name, cls=_Command, **settings)(run)
        # After the command's own options, which are what its help is read for.
        made.params.append(click.Option(["--json", "as_json"], is_flag=True, help="Print one JSON document."))
        made.params.append(click.Option(["--debug"], is_flag=True, help="Show the trace of an error."))
        return made

    return decorate


def option_names(command: click.Command) -> dict[str, str]:
    """What the command's options are called, by parameter: {"n_ctx": "--n-ctx"}."""
    return {str(option.name): option.opts[0] for option in command.params if isinstance(option, click.Option)}


def percent(value: float) -> str:
    """A share in percent, as tables show it."""
    return f"{value:.1f}"


def percent_interval(interval: tuple[float, float]) -> str:
    """An interval in percent, as tables show it."""
    return f"{percent(interval[0])} to {percent(interval[1])}"


MEASURES = ("accuracy", "95% interval", "macro-F1", "class mean")
"""The columns of a table of evaluations."""


def measures(evaluation: Evaluation) -> list[str]:
    """The cells of an evaluation under `MEASURES`."""
    shares = (percent(evaluation.macro_f1), percent(evaluation.mean_class_accuracy))
    return [percent(evaluation.accuracy), percent_interval(evaluation.interval), *shares]


def say_mistakes(output: Output, evaluation: Evaluation) -> None:
    """The weakest classes and the most frequent mistakes, where there are any."""
    worst = [one for one in evaluation.worst_classes() if one.accuracy < 100]
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
            for one in evaluation.confusions[:SHOWN_CONFUSIONS]
        ],
        right=(2,),
    )
