"""Progress for people: a listener (`events.py`) that draws bars on a terminal, where somebody asked for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.status import Status
from rich.text import Text

from coopt import events

_shown: ContextVar[Progress | None] = ContextVar("coopt_progress", default=None)


class RateColumn(ProgressColumn):
    """How much is done per second; nothing while that is not known."""

    def render(self, task: Task) -> Text:
        """The rate of the last while."""
        return Text("" if task.speed is None else f"{task.speed:.{0 if task.speed >= 100 else 1}f}/s")


@contextmanager
def progress_shown(shown: bool = True) -> Iterator[None]:
    """Within this context progress is drawn on standard error, if that is a terminal."""
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
            with events.listening(Bars(progress)):
                yield
        finally:
            _shown.reset(token)


def print_above(line: str) -> bool:
    """Prints a line above the bars, in one piece however long it is; False where none are drawn."""
    progress = _shown.get()
    if progress is None:
        return False
    progress.console.print(Text(line), soft_wrap=True)
    return True


class Bars:
    """A listener that draws: a bar for work whose parts are counted, a line ("Loading ...") for any other."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._tasks: dict[int, TaskID] = {}
        self._stages: list[tuple[str, Status]] = []

    def __call__(self, event: events.Event) -> None:
        """Draws what concerns it."""
        if isinstance(event, events.Progress):
            self._draw_bar(event)
        elif isinstance(event, events.Stage):
            self._draw_line(event)

    def _draw_bar(self, event: events.Progress) -> None:
        if event.finished:
            if event.work in self._tasks:
                self._progress.remove_task(self._tasks.pop(event.work))
                self._progress.refresh()  # now, or the next line that is printed lands on the bar's
        elif event.work not in self._tasks:
            state: dict[str, Any] = {"total": event.total, "completed": event.done, "note": event.note}
            self._tasks[event.work] = self._progress.add_task(event.doing, **state)
        else:
            self._progress.update(self._tasks[event.work], completed=event.done, note=event.note)

    def _draw_line(self, event: events.Stage) -> None:
        """A terminal has one live display at a time: the bars wait until the line is gone, and one line for another."""
        if not event.finished:
            if self._stages:
                self._stages[-1][1].stop()
            else:
                self._progress.stop()
            status = self._progress.console.status(Text(f"{event.doing} ..."))
            self._stages.append((event.doing, status))
            status.start()
        elif self._stages and self._stages[-1][0] == event.doing:
            self._stages.pop()[1].stop()
            if self._stages:
                self._stages[-1][1].start()
            else:
                self._progress.start()
