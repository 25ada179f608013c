"""Progress for people: bars on a terminal when somebody asked for them, silence everywhere else."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.text import Text

_shown: ContextVar[Progress | None] = ContextVar("coopt_progress", default=None)


class RateColumn(ProgressColumn):
    """How much is done per second; nothing while that is not known."""

    def render(self, task: Task) -> Text:
        """The rate of the last while."""
        return Text("" if task.speed is None else f"{task.speed:.{0 if task.speed >= 100 else 1}f}/s")


@contextmanager
def progress_shown(shown: bool = True) -> Iterator[None]:
    """Within this context `tracked` draws bars on standard error, if that is a terminal."""
    console = Console(stderr=True)
    if not shown or not console.is_terminal or _shown.get() is not None:
        yield
        return
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        RateColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns, console=console, transient=True) as progress:
        token = _shown.set(progress)
        try:
            yield
        finally:
            _shown.reset(token)


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Where progress is shown, a line that says what goes on ("Loading ..."), for work of unknown length."""
    progress = _shown.get()
    if progress is None:
        yield
        return
    progress.stop()  # a terminal has one live display at a time
    try:
        with progress.console.status(Text(f"{doing} ...")):
            yield
    finally:
        progress.start()


class Tracker:
    """One piece of long work; does nothing where no progress is shown."""

    def __init__(self, description: str, total: int | None, done: int = 0) -> None:
        self._progress = _shown.get()
        if self._progress is not None:
            self._task = self._progress.add_task(description, total=total, completed=done, note="")

    def update(self, done: int, note: str = "") -> None:
        """Says how much is done so far, with a short remark (a loss, a rate)."""
        if self._progress is not None:
            self._progress.update(self._task, completed=done, note=note)

    def close(self) -> None:
        """Removes the bar."""
        if self._progress is not None:
            self._progress.remove_task(self._task)
            self._progress.refresh()  # now, or the next line that is printed lands on the bar's


@contextmanager
def tracked(description: str, total: int | None, done: int = 0) -> Iterator[Tracker]:
    """A progress bar for work of `total` parts (None: nobody knows), of which some may be `done` already."""
    tracker = Tracker(description, total, done)
    try:
        yield tracker
    finally:
        tracker.close()
