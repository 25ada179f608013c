"""Claims: several processes share the runs of one folder, and no run is done by two of them.

A claim is a file that is created exclusively, which one process alone can do, and says who claims. It is never changed: a
claim whose process is dead is taken over by creating the next generation of it (`NAME.claim`, `NAME.claim-1`, ...), again
exclusively, and of several generations the last one counts. So a killed process blocks nothing, and taking over is as
safe as claiming.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from coopt.errors import SavedFileError

ENDING = ".claim"
WRITING = 10.0
"""Seconds within which a claim that is empty is taken to be in the making."""

Standing = Literal["mine", "here", "elsewhere"]
"""Whose a claim is: this process's, that of another living process of this machine, or another machine's."""


@dataclass(frozen=True)
class Owner:
    """A process: its id, when it started (in the system's own units; None where that is not known), its machine."""

    pid: int
    started: int | None
    host: str

    @classmethod
    def this(cls) -> Owner:
        """The process that asks."""
        return cls(os.getpid(), _started(os.getpid()), platform.node())

    @property
    def alive(self) -> bool | None:
        """Whether the process is still there, asked on its own machine; None where that cannot be known."""
        if sys.platform == "win32":  # there, the signal 0 would end the process
            return None
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        # A later process may have got the same id.
        return self.started == _started(self.pid)


class Claims:
    """The claims in a folder.

    Args:
        folder: with the files that are claimed.
        expire: seconds after which a claim counts no more of which it cannot be known whether its process lives, as
            on another machine; None: never.
    """

    def __init__(self, folder: Path, expire: float | None = None) -> None:
        self.folder, self.expire = folder, expire
        self.owner = Owner.this()

    def take(self, name: str) -> Standing:
        """Claims `name` if nobody else does; says whose it is now.

        Raises:
            SavedFileError: the folder cannot be written.
        """
        for _ in range(100):
            generations = self._generations(name)
            standing = self._standing(generations[-1]) if generations else None
            if standing is not None:
                return standing
            if generations and not generations[-1].exists():  # released just now
                continue
            if self._create(self._path(name, _number(generations[-1]) + 1 if generations else 0)):
                return "mine"
        raise SavedFileError(f"Cannot claim {self.folder / name}: other processes come and go too quickly.")

    def release(self, name: str) -> None:
        """Gives up all generations of a claim, the earliest first, so that this process's own guards the others."""
        for path in self._generations(name):
            path.unlink(missing_ok=True)

    @contextlib.contextmanager
    def released_at_the_end(self, name: str) -> Iterator[None]:
        """Releases the claim however the work on it ends."""
        try:
            yield
        finally:
            self.release(name)

    def dead(self, name: str) -> bool:
        """Whether there are claims on `name`, and none of a process that may be alive."""
        generations = self._generations(name)
        return bool(generations) and self._standing(generations[-1]) is None

    def _path(self, name: str, generation: int) -> Path:
        return self.folder / f"{name}{ENDING}{f'-{generation}' if generation else ''}"

    def _generations(self, name: str) -> list[Path]:
        pattern = re.compile(re.escape(name + ENDING) + r"(-\d+)?")
        try:
            return sorted((one for one in self.folder.iterdir() if pattern.fullmatch(one.name)), key=_number)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def _standing(self, path: Path) -> Standing | None:
        """Whose the claim is; None when it counts no more."""
        try:
            age = time.time() - path.stat().st_mtime
            owner = Owner(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None
        except (ValueError, TypeError):  # in the making, or its maker was killed at it
            return "here" if age < WRITING else None
        if owner == self.owner:
            return "mine"
        alive = owner.alive if owner.host == self.owner.host else None
        if alive is not None:
            return "here" if alive else None
        return "elsewhere" if self.expire is None or age < self.expire else None

    def _create(self, path: Path) -> bool:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
                with os.fdopen(handle, "w", encoding="utf-8") as file:
                    json.dump(asdict(self.owner), file)
                return True
            return False
        except OSError as error:
            raise SavedFileError(f"Cannot write {path}: {error.strerror or error}. Choose another folder.") from error


def _number(path: Path) -> int:
    _, _, generation = path.name.rpartition(ENDING)
    return int(generation[1:]) if generation else 0


def _started(pid: int) -> int | None:
    """When a process started, in clock ticks since the machine did; None where the system does not say."""
    try:
        # The name, in brackets, may hold anything; the start time is the 20th field after it.
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, ValueError, IndexError):
        return None
