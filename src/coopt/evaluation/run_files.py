"""Run files: one JSON per run, whole or refused, with everything needed to do the run again.

    {"format": 1, "kind": "run", "suite", "backbone": its key in the suite, the result of the run (see `RunResult`),
     "words": nearest words, where asked for, "versions", "machine", "backbone_name", "command", "sha256": of the rest}

Names can be read and do not depend on the machine, so files of several machines are merged by copying them together.

Runs of a suite lie in its folder, a file each, and packed in one file beside it (see `coopt.evaluation.packed`). Both are
read together; of a run that is in both, its own file counts, which is younger.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coopt.errors import SavedFileError
from coopt.evaluation.job import run_name
from coopt.evaluation.packed import file_order, packed_file, read_packed
from coopt.evaluation.runs import RunResult
from coopt.files import write_json

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """A run's result, whose it is, and how it was made.

    Attributes:
        suite: the suite's name; empty for a record that is in no store yet.
        backbone: what files and tables call the backbone.
        result: the numbers.
        words: nearest words of the learned context vectors, and what distances mean; None where not asked for.
        made: versions, machine, the backbone's full name, the command.
    """

    suite: str
    backbone: str
    result: RunResult
    words: dict[str, Any] | None = None
    made: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name without ".json"."""
        result = self.result
        return run_name(self.backbone, result.dataset, result.method, result.shots, result.seed)


def write_record(folder: Path, record: Record) -> Path:
    """Writes a run's file in one step.

    Raises:
        SavedFileError: it cannot be written.
    """
    document = {
        "format": FORMAT,
        "kind": "run",
        "suite": record.suite,
        **record.result.to_dict(),
        "backbone_key": record.backbone,
        "words": record.words,
        "made": record.made,
    }
    path = record_path(folder, record.name)
    write_json(path, {**document, "sha256": _digest(document)})
    return path


def record_path(folder: Path, name: str) -> Path:
    """The file of a run."""
    return folder / f"{name}.json"


def read_record(path: Path) -> Record:
    """The record in a run's file.

    Raises:
        SavedFileError: the file is missing, damaged, was changed, or is something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _not_whole(f"'{path}'", str(error)) from error
    return _record_of(document, f"'{path}'")


def find_record(folder: Path, name: str) -> Record | None:
    """A suite's run by its name, from its own file or packed; None where it is in neither.

    Raises:
        SavedFileError: what there is of it is damaged, was changed, or is something else.
    """
    path = record_path(folder, name)
    try:
        return read_record(path)
    except SavedFileError:
        if path.exists():
            raise
    packed = read_packed(folder)
    if name in packed.documents:
        return _record_of(packed.documents[name], f"{name} in '{packed.path}'")
    return read_record(path) if path.exists() else None  # unpacked just now


def run_names(folder: Path) -> list[str]:
    """The names of a suite's runs, those in files of their own and the packed ones, in order."""
    # The folder is looked into before and after, so that a run is not missed that is packed or unpacked meanwhile.
    return sorted({*_own_files(folder), *read_packed(folder).documents, *_own_files(folder)}, key=file_order)


def read_records(folder: Path) -> Iterator[Record | SavedFileError]:
    """All runs of a suite in the order of their names; in the place of a bad one what is wrong with it."""
    for name in run_names(folder):
        try:
            record = find_record(folder, name)
            if record is not None:
                yield record
        except SavedFileError as error:
            yield error
    yield from read_packed(folder).damaged


def has_runs(folder: Path) -> bool:
    """Whether there are runs of a suite, in files of their own or packed."""
    return any(folder.glob("*.json")) or packed_file(folder).is_file()


def _own_files(folder: Path) -> list[str]:
    return [path.name.removesuffix(".json") for path in folder.glob("*.json")]


def _record_of(document: Any, where: str) -> Record:
    """The record in the content of a run's file, which is not changed."""
    try:
        if not isinstance(document, dict) or document.get("kind") != "run":
            raise ValueError("not the file of a run")
        if document["format"] > FORMAT:
            raise ValueError(f"format {document['format']}; this coopt reads up to {FORMAT}")
        if document.get("sha256") != _digest({key: value for key, value in document.items() if key != "sha256"}):
            raise ValueError("it was changed or is not whole: its SHA-256 differs")
        result = RunResult.from_dict(document)
        return Record(document["suite"], document["backbone_key"], result, document["words"], document["made"])
    except (ValueError, KeyError, TypeError, SavedFileError) as error:
        raise _not_whole(where, f"it has no {error}" if isinstance(error, KeyError) else str(error)) from error


def _not_whole(where: str, reason: str) -> SavedFileError:
    return SavedFileError(f"{where} is not a whole run of a suite ({reason}).")


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
