"""A store: the records of a suite's runs in one folder, which of them are whole, and who is at which.

A run is one file while runs are being done; those of a finished suite may be packed into one file beside the folder, and are
read from there. A run counts as done only when its record is whole and of the setting that is asked for: model, data,
parameters, sample.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from coopt.errors import CooptWarning, SavedFileError
from coopt.evaluation.claims import Claims
from coopt.evaluation.run_files import Record, find_record, has_runs, read_records, record_path, write_record

State = Literal["complete", "missing", "stale", "damaged"]
"""How a run stands; stale: of another setting, that is of another model, other data or other parameters."""


class Store:
    """The records in a folder.

    Args:
        folder: of one suite; made when something is written.
        suite: the suite's name, which stands in every record.
        expire: seconds after which claims of other machines count no more; None: never.

    Attributes:
        claims: of the processes that do runs.
    """

    def __init__(self, folder: Path, suite: str, expire: float | None = None) -> None:
        self.folder, self.suite, self.expire = folder, suite, expire
        self.claims = Claims(folder, expire)

    def state(self, name: str, run: str) -> tuple[State, str]:
        """How a run stands, and where it is damaged, why.

        Args:
            name: of the run, see `Job.name`.
            run: hash of the setting that is asked for, see `Setting.run`.
        """
        try:
            record = find_record(self.folder, name)
        except SavedFileError as error:
            return "damaged", str(error)
        if record is None:
            return "missing", ""
        return ("complete" if (record.suite, record.result.run) == (self.suite, run) else "stale"), ""

    def read(self, name: str) -> Record:
        """The record of a run.

        Raises:
            SavedFileError: it is missing or damaged.
        """
        record = find_record(self.folder, name)
        if record is None:
            raise SavedFileError(f"There is no run {name} in '{self.folder}'.")
        return record

    def records(self) -> Iterator[Record | SavedFileError]:
        """All records of the suite in the order of their names; in the place of a damaged one what is wrong with it."""
        for record in read_records(self.folder):
            if isinstance(record, SavedFileError) or record.suite == self.suite:
                yield record

    def whole(self) -> list[Record]:
        """All records that are whole; others are warned of."""
        whole: list[Record] = []
        for record in self.records():
            if isinstance(record, SavedFileError):
                message = f"{record} It is left out; run the suite to do it again."
                warnings.warn(message, CooptWarning, stacklevel=2)
            else:
                whole.append(record)
        return whole

    @property
    def empty(self) -> bool:
        """Whether there is no record at all, whole or not."""
        return not has_runs(self.folder)

    def write(self, record: Record) -> None:
        """Keeps a record in the place of an earlier one of its name.

        Raises:
            SavedFileError: it cannot be written.
        """
        write_record(self.folder, replace(record, suite=self.suite))

    def written(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Of those runs that have a file of their own, which one it is: another one after every `write`."""
        stamps = {}
        for name in names:
            with suppress(OSError):
                status = record_path(self.folder, name).stat()
                stamps[name] = (status.st_ino, status.st_mtime_ns)
        return stamps

    def checkpoint(self, name: str, run: str) -> Path:
        """Where a run keeps its state while it trains; of its own setting alone."""
        return self.folder / f"{name}.{run[:12]}.checkpoint"
