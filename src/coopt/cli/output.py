"""What commands print: sentences and tables for people, one JSON document for machines."""

from __future__ import annotations

import functools
import json
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import click

from coopt.errors import CooptWarning
from coopt.wording import spoken

if TYPE_CHECKING:
    from coopt.evaluation import Evaluation

PIPED_WIDTH = 120
"""Columns of a table that is not shown on a terminal."""


class Output:
    """Where a command's words go.

    Args:
        json: print one JSON document and nothing else on standard output.

    Attributes:
        warnings: what was warned of so far, as {"type": ..., "message": ...}.
    """

    def __init__(self, json: bool = False) -> None:
        self.json = json
        self.warnings: list[dict[str, str]] = []

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
        warning = {"type": kind, "message": message}
        if warning not in self.warnings:
            self.warnings.append(warning)
            _write(sys.stderr, f"Warning: {message}")

    @contextmanager
    def warnings_shown(self, debug: bool = False) -> Iterator[None]:
        """Within this context coopt's warnings become lines; those of libraries are shown with `debug` only."""
        with warnings.catch_warnings():
            if not debug:
                warnings.simplefilter("ignore")
            warnings.simplefilter("always", CooptWarning)
            shown = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any) -> None:
                if issubclass(category, CooptWarning):
                    self.warn(str(message), category.__name__)
                else:
                    shown(message, category, *args, **kwargs)

            warnings.showwarning = show
            yield

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


def command(name: str, **settings: Any) -> Callable[[Callable[..., Any]], click.Command]:
    """A click command with `--json` and `--debug`, whose function is given an `output` to speak through."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        @functools.wraps(function)
        def run(as_json: bool, debug: bool, **options: Any) -> None:
            from coopt.progress import progress_shown

            output = Output(as_json)
            with output.warnings_shown(debug), progress_shown():
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


def measures(found: Evaluation) -> list[str]:
    """The cells of an evaluation under `MEASURES`."""
    shares = (percent(found.macro_f1), percent(found.mean_class_accuracy))
    return [percent(found.accuracy), percent_interval(found.interval), *shares]


def size_of(n_bytes: int | float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"
