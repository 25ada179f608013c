"""What long work tells while it runs: how far it is, what it has to say, what it warns of.

Whoever wants to know listens; where nobody does, nothing is made of it. The command line draws bars and prints lines, a
notebook may print, a web page may send JSON:

    with coopt.events.listening(print):
        coopt.app.fit("photos", out="my-prompt")

An event is a small frozen dataclass, which reads as a sentence (`str`) and goes to JSON (`to_dict`). Listeners are called in
the thread that works, one after the other; what one raises stops the work as Ctrl-C does, and what was done is kept.
"""

from __future__ import annotations

import itertools
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass
from typing import Any

from coopt.errors import CooptWarning


@dataclass(frozen=True)
class Event:
    """Base of all events; other packages may add their own."""

    def to_dict(self) -> dict[str, Any]:
        """The event for JSON: its kind as `event`, and its fields."""
        return {"event": type(self).__name__, **asdict(self)}


@dataclass(frozen=True)
class Progress(Event):
    """How far a work of many parts is.

    Attributes:
        work: a number that all events of this work share, and no other work of the process.
        doing: what it is, such as "learning".
        done: parts so far.
        total: of how many; None: nobody knows.
        note: a short remark, such as a loss.
        finished: nothing more will be heard of it.
    """

    work: int
    doing: str
    done: int
    total: int | None
    note: str = ""
    finished: bool = False

    def __str__(self) -> str:
        if self.finished:
            return f"{self.doing}: ended"
        of = "" if self.total is None else f" of {self.total}"
        return f"{self.doing}: {self.done}{of}{f', {self.note}' if self.note else ''}"


@dataclass(frozen=True)
class Stage(Event):
    """Work begins, or is over, of which nobody knows how long it takes.

    Attributes:
        doing: what it is, such as "Loading bundled".
        finished: it is over.
    """

    doing: str
    finished: bool = False

    def __str__(self) -> str:
        return f"{self.doing}: ended" if self.finished else f"{self.doing} ..."


@dataclass(frozen=True)
class Said(Event):
    """A sentence for people, such as "Going on after epoch 3 of 50, where an earlier run stopped."."""

    text: str

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True)
class Warned(Event):
    """A warning.

    Attributes:
        message: a sentence.
        kind: the name of the warning's class, such as "LeakageWarning".
    """

    message: str
    kind: str = CooptWarning.__name__

    def __str__(self) -> str:
        return f"Warning: {self.message}"

    def to_record(self) -> dict[str, str]:
        """As the results of commands list it."""
        return {"type": self.kind, "message": self.message}


PAUSE = 0.1
"""Seconds between two events of one work that say nothing but a number."""

Listener = Callable[[Event], object]

_listeners: ContextVar[tuple[Listener, ...]] = ContextVar("coopt_listeners", default=())
_collected: ContextVar[list[Warned] | None] = ContextVar("coopt_warnings", default=None)
_works = itertools.count(1)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """Within this context `listener` is called with every event, after those who listened before.

    It holds for this thread and asyncio task, and for those to which they hand their context (`asyncio.to_thread` does).
    """
    token = _listeners.set((*_listeners.get(), listener))
    try:
        yield
    finally:
        _listeners.reset(token)


def emit(event: Event) -> None:
    """Tells everybody who listens; a warning that was collected before is not told again."""
    collected = _collected.get()
    if isinstance(event, Warned) and collected is not None:
        if event in collected:
            return
        collected.append(event)
    for listener in _listeners.get():
        listener(event)


def say(text: str) -> None:
    """Tells a sentence."""
    emit(Said(text))


@contextmanager
def warnings_collected() -> Iterator[list[Warned]]:
    """Within this context coopt's warnings are events, each once, and are kept in the list that it gives.

    Where nobody listens they are shown as Python's other warnings are, too. A context within another gives the list of the
    outer one.
    """
    outer = _collected.get()
    if outer is not None:
        yield outer
        return
    collected: list[Warned] = []
    token = _collected.set(collected)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", CooptWarning)
            shown = warnings.showwarning

            def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
                before = len(collected)
                if issubclass(category, CooptWarning):
                    emit(Warned(str(message), category.__name__))
                    if _listeners.get() or len(collected) == before:
                        return
                shown(message, category, *where, **more)

            warnings.showwarning = show
            yield collected
    finally:
        _collected.reset(token)


class Tracker:
    """Work of many parts, which tells how far it is.

    Args:
        doing: what it is.
        total: how many parts; None: nobody knows.
        done: parts that an earlier run has done.
    """

    def __init__(self, doing: str, total: int | None, done: int = 0) -> None:
        self.doing, self.total = doing, total
        self._work, self._done = next(_works), done
        self._told = float("-inf")
        emit(Progress(self._work, doing, done, total))

    def update(self, done: int, note: str = "") -> None:
        """Tells how much is done so far, with a short remark (a loss, a rate).

        What is said without a remark, of images that go by in milliseconds, is told a few times in a second at most.
        """
        self._done, now = done, time.monotonic()
        if not note and done != self.total and now - self._told < PAUSE:
            return
        self._told = now
        emit(Progress(self._work, self.doing, done, self.total, note))

    def close(self) -> None:
        """Tells that it is over."""
        emit(Progress(self._work, self.doing, self._done, self.total, finished=True))


@contextmanager
def tracked(doing: str, total: int | None, done: int = 0) -> Iterator[Tracker]:
    """Work of `total` parts (None: nobody knows), of which some may be `done` already."""
    tracker = Tracker(doing, total, done)
    try:
        yield tracker
    finally:
        tracker.close()


@contextmanager
def busy(doing: str) -> Iterator[None]:
    """Work of unknown length ("Loading ...")."""
    emit(Stage(doing))
    try:
        yield
    finally:
        emit(Stage(doing, finished=True))
