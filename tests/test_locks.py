"""One writer at a time: real processes, one of which is killed."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from coopt.errors import InUseError, SavedFileError, UnlockedWarning
from coopt.locks import FOLDER_LOCK, writing_file, writing_folder

HOLD = """
import sys, time
from contextlib import ExitStack
from pathlib import Path
from coopt.locks import writing_file, writing_folder

with ExitStack() as held:
    for path in map(Path, sys.argv[1:]):
        held.enter_context((writing_file if path.suffix else writing_folder)(path))
    print("held", flush=True)
    time.sleep(600)
"""

Holder = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def hold() -> Iterator[Holder]:
    """Starts a process that writes to the given places (those with an ending are files)."""
    started: list[subprocess.Popen[str]] = []

    def start(*places: Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, *map(str, places)], stdout=subprocess.PIPE, text=True, env=os.environ
        )
        started.append(process)
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_second_process_is_told_who_writes_until_the_first_is_killed(hold: Holder, tmp_path: Path) -> None:
    file, folder = tmp_path / "new" / "rows.csv", tmp_path / "other" / "prompt"
    writer = hold(file, folder)
    for place, writing in ((file, writing_file), (folder, writing_folder)):
        expected = (
            rf"^Process {writer.pid} on .+ is writing '{place}' since \d{{4}}-.+; wait for it, or choose another x\.$"
        )
        with pytest.raises(InUseError, match=expected), writing(place, "x"):
            pass
    writer.kill()
    writer.wait()
    assert (folder / FOLDER_LOCK).exists()
    with writing_file(file), writing_folder(folder):
        pass
    assert list(file.parent.iterdir()) == list(folder.iterdir()) == []


def test_what_was_made_goes_when_nothing_was_written(tmp_path: Path) -> None:
    with writing_folder(tmp_path / "a" / "b"), writing_file(tmp_path / "c" / "x.csv"):
        assert [one.name for one in (tmp_path / "a" / "b").iterdir()] == [FOLDER_LOCK]
    assert list(tmp_path.iterdir()) == []
    with writing_folder(tmp_path / "a" / "b"):
        (tmp_path / "a" / "b" / "kept").touch()
    assert [one.name for one in (tmp_path / "a" / "b").iterdir()] == ["kept"]


def test_a_writer_may_ask_again_and_another_thread_may_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refused = []

    def other() -> None:
        try:
            with writing_folder(tmp_path / "out"):
                pass
        except InUseError as error:
            refused.append(str(error))

    monkeypatch.chdir(tmp_path)
    with writing_folder(tmp_path / "out"):
        with writing_folder(Path("out")):  # under another name
            pass
        thread = threading.Thread(target=other)
        thread.start()
        thread.join()
        assert len(refused) == 1 and f"Process {os.getpid()} on " in refused[0]
    assert list(tmp_path.iterdir()) == []


def test_one_waits_for_a_writer_that_is_soon_done(tmp_path: Path) -> None:
    done = threading.Event()
    began = threading.Event()

    def first() -> None:
        with writing_folder(tmp_path / "out"):
            began.set()
            done.wait(60)

    thread = threading.Thread(target=first)
    thread.start()
    began.wait(60)
    threading.Timer(0.2, done.set).start()
    with writing_folder(tmp_path / "out", wait=60.0):
        assert done.is_set()
    thread.join()


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    refused = pytest.raises(SavedFileError, match="Cannot write .*file/x.csv: (File exists|Not a directory)")
    with refused, writing_file(tmp_path / "file" / "x.csv"):
        pass


def test_a_file_system_without_locks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("coopt.locks.FileLock.acquire", refuse)
    with pytest.warns(UnlockedWarning, match="knows no locks: see to it yourself"), writing_file(tmp_path / "x.csv"):
        (tmp_path / "x.csv").write_text("written all the same")
