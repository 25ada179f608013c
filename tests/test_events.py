"""Events: who hears them, what is said, and warnings that are heard once."""

from __future__ import annotations

import asyncio
import json
import warnings

import pytest

from coopt import events
from coopt.errors import CooptWarning, LeakageWarning
from coopt.events import Event, Progress, Said, Stage, Warned


def test_listeners_hear_what_happens_while_they_listen() -> None:
    first: list[Event] = []
    second: list[Event] = []
    events.say("before")
    with events.listening(first.append):
        events.say("one")
        with events.listening(second.append):
            events.say("two")
        events.say("three")
    events.say("after")
    assert [str(event) for event in first] == ["one", "two", "three"]
    assert second == [Said("two")]


def test_counted_work_tells_how_far_it_is() -> None:
    heard: list[Event] = []
    listening = events.listening(heard.append)
    with listening, events.tracked("learning", 5, done=2) as one, events.tracked("looking", None) as other:
        one.update(3, "loss 0.5")
        other.update(7)
    assert [str(event) for event in heard] == [
        *("learning: 2 of 5", "looking: 0", "learning: 3 of 5, loss 0.5", "looking: 7"),
        *("looking: ended", "learning: ended"),
    ]
    works = [event.work for event in heard if isinstance(event, Progress)]
    assert works[0] == works[2] == works[5] and works[1] == works[3] == works[4] != works[0]
    assert heard[-1].done == 3  # type: ignore[attr-defined]
    assert json.loads(json.dumps(heard[2].to_dict())) == {
        **{"event": "Progress", "work": works[0], "doing": "learning", "done": 3, "total": 5},
        **{"note": "loss 0.5", "finished": False},
    }


def test_numbers_alone_are_told_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[Event] = []
    seconds = 0.0
    monkeypatch.setattr("coopt.events.time.monotonic", lambda: seconds)
    with events.listening(heard.append), events.tracked("image features", 100) as work:
        for done in range(1, 101):
            seconds += events.PAUSE / 10.5
            work.update(done)
    told = [event.done for event in heard if isinstance(event, Progress) and not event.finished]
    assert told == [0, *range(1, 100, 11), 100]


def test_work_that_fails_is_over_too() -> None:
    heard: list[Event] = []
    with events.listening(heard.append), pytest.raises(ValueError, match="odd"), events.busy("Loading a model"):
        raise ValueError("odd")
    assert heard == [Stage("Loading a model"), Stage("Loading a model", finished=True)]
    assert [str(event) for event in heard] == ["Loading a model ...", "Loading a model: ended"]


def test_a_listener_can_stop_the_work() -> None:
    def stop(event: Event) -> None:
        if isinstance(event, Progress) and event.done == 2:
            raise KeyboardInterrupt

    reached = 0
    with pytest.raises(KeyboardInterrupt), events.listening(stop), events.tracked("learning", 5) as work:
        for reached in range(1, 6):
            work.update(reached, "on the way")
    assert reached == 2


def test_another_thread_hears_when_the_context_goes_with_it() -> None:
    heard: list[Event] = []

    async def main() -> None:
        with events.listening(heard.append):
            await asyncio.to_thread(events.say, "from a thread")

    asyncio.run(main())
    assert heard == [Said("from a thread")]


class TestWarnings:
    def test_each_is_heard_once_and_kept(self) -> None:
        heard: list[Event] = []
        with events.listening(heard.append), events.warnings_collected() as kept:
            for _ in range(2):
                warnings.warn("leaks", LeakageWarning, stacklevel=1)
                events.emit(Warned("odd"))
            with events.warnings_collected() as inner:
                warnings.warn("more", CooptWarning, stacklevel=1)
        assert inner is kept
        assert heard == kept == [Warned("leaks", "LeakageWarning"), Warned("odd"), Warned("more", "CooptWarning")]
        assert str(kept[0]) == "Warning: leaks"

    def test_where_nobody_listens_python_shows_them_once(self) -> None:
        with pytest.warns(CooptWarning) as shown, events.warnings_collected() as kept:
            for _ in range(2):
                warnings.warn("leaks", LeakageWarning, stacklevel=1)
        assert len(shown) == 1 and kept == [Warned("leaks", "LeakageWarning")]

    def test_those_of_libraries_go_their_usual_way(self) -> None:
        heard: list[Event] = []
        shown = pytest.warns(UserWarning, match="of a library")
        with shown, events.listening(heard.append), events.warnings_collected() as kept:
            warnings.warn("of a library", UserWarning, stacklevel=1)
        assert heard == kept == []
