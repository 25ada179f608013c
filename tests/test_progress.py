"""Progress: the rate that is shown, and work of which some is done or whose amount nobody knows."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.progress import Progress

from coopt.backbones import load_backbone
from coopt.events import busy, tracked
from coopt.progress import RateColumn, print_above, progress_shown


@pytest.mark.parametrize(("each", "shown"), [(0.01, "100/s"), (0.4, "2.5/s"), (20.0, "0.1/s")])
def test_the_rate_is_that_of_what_was_done_now(each: float, shown: str) -> None:
    seconds = 0.0
    progress = Progress(console=Console(file=io.StringIO()), get_time=lambda: seconds)
    task = progress.add_task("predicting", total=None, completed=1000)  # 1000 by an earlier run
    assert RateColumn().render(progress.tasks[0]).plain == ""
    for done in range(1001, 1006):
        seconds += each
        progress.update(task, completed=done)
    assert RateColumn().render(progress.tasks[0]).plain == shown


def test_nothing_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with tracked("predicting", None, done=3) as progress:
        progress.update(4)
    with busy("Loading a model"):
        pass
    assert capsys.readouterr() == ("", "")


def test_what_takes_long_is_said_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr("coopt.progress.Console", lambda stderr: Console(file=terminal, force_terminal=True))
    with progress_shown(), tracked("runs", 2) as bar:
        load_backbone("bundled", "cpu:0")  # under this name no other test has loaded it
        bar.update(1)
    written = terminal.getvalue()
    assert "Loading bundled ..." in written
    assert written.rindex("runs") > written.index("Loading bundled")  # the bar is there again


def test_a_line_above_the_bars_is_in_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(
        "coopt.progress.Console",
        lambda stderr: Console(file=terminal, force_terminal=True, width=40, color_system=None),
    )
    line = "  coopt fit photos " + "--set name=value " * 5
    assert not print_above(line)
    with progress_shown(), tracked("runs", 2):
        assert print_above(line)
    assert line + "\n" in terminal.getvalue()
