"""One writer at a time, for every file and folder that is written over a while.

A writer holds a lock of the operating system (through filelock) on a hidden file: `.NAME.lock` beside a file, and
`.coopt.lock` inside a folder, since the folder may be all of its place that can be written. So it holds for whoever
shares the place, under any name and from any machine whose network drive passes locks on, and no longer than its
process lives: what `kill -9` leaves is a file that nobody holds, and the next writer takes it. The file says who writes.

Folders that are missing are made. When the writer is done, the hidden file goes, and so do such folders if nothing was
written into them. A place where nothing can be written is refused, as it would be later; a file system that knows no
locks (some network drives) is written to with a warning.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from coopt.errors import InUseError, UnlockedWarning
from coopt.files import cannot_write

FOLDER_LOCK = ".coopt.lock"
"""The hidden file in a folder that is being written."""

_NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}


@contextmanager
def writing_file(path: Path, another: str = "place", wait: float = 0.0) -> Iterator[None]:
    """Within this context no other process (and no other thread) writes the file.

    Args:
        path: the file, there or not.
        another: what to choose another of in the message, such as "--out".
        wait: seconds to wait for another writer.

    Raises:
        InUseError: there is another writer; says which.
        SavedFileError: nothing can be written there.
    """
    with _held(path, path.with_name(f".{path.name}.lock"), another, wait):
        yield


@contextmanager
def writing_folder(path: Path, another: str = "folder", wait: float = 0.0) -> Iterator[None]:
    """The same for a folder and what is written into it. A writer may ask again within the context."""
    with _held(path, path / FOLDER_LOCK, another, wait):
        yield


@contextmanager
def _held(path: Path, file: Path, another: str, wait: float) -> Iterator[None]:
    file = Path(os.path.realpath(file.parent), file.name)
    made = [folder for folder in (file.parent, *file.parent.parents) if not folder.exists()]
    lock = FileLock(file, is_singleton=True)  # one object for a place: so a thread may ask again
    with contextlib.ExitStack() as after:
        for folder in reversed(made):  # left last to first, so the innermost goes first
            after.callback(_remove_empty, folder)
        try:
            _acquire(lock, file.parent, wait)
        except Timeout:
            raise InUseError(_who_writes(path, file, another)) from None
        except (OSError, NotImplementedError) as error:
            if isinstance(error, OSError) and error.errno not in _NO_LOCKS:
                raise cannot_write(path, error) from error
            warnings.warn(
                f"The file system of '{path}' knows no locks: see to it yourself that no second process writes there.",
                UnlockedWarning,
                stacklevel=4,
            )
        else:
            after.callback(_release, lock, file)
            if lock.lock_counter == 1:
                _sign(file)
        yield


def _acquire(lock: FileLock, folder: Path, wait: float) -> None:
    until = time.monotonic() + wait
    for remaining in range(100, -1, -1):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=max(0.0, until - time.monotonic()))
            return
        except FileNotFoundError:  # the writer that was waited for has left, and its empty folder is gone
            if not remaining:
                raise


def _release(lock: FileLock, file: Path) -> None:
    # Removed while it is held: whoever opened it before sees that it is gone, and opens the next one.
    if lock.lock_counter == 1:
        with contextlib.suppress(OSError):
            file.unlink()
    lock.release()
    with contextlib.suppress(OSError):  # on Windows only a file that is closed can be removed
        if os.name == "nt" and not lock.is_locked:
            file.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _sign(file: Path) -> None:
    writer = {"pid": os.getpid(), "host": platform.node(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    with contextlib.suppress(OSError):  # a full disk: the lock holds all the same
        # The first byte is what Windows locks, for reading too.
        file.write_text(" " + json.dumps(writer), encoding="utf-8")


def _who_writes(path: Path, file: Path, another: str) -> str:
    try:
        with file.open("rb", buffering=0) as opened:
            opened.seek(1)
            writer = json.loads(opened.read())
        who = f"Process {writer['pid']} on {writer['host']} is writing '{path}' since {writer['since']}"
    except (OSError, ValueError, KeyError, TypeError):  # it is about to sign, or to leave
        who = f"Another process is writing '{path}'"
    return f"{who}; wait for it, or choose another {another}."
