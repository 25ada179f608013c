"""Run files: one JSON per run, whole or refused, with everything needed to do the run again.

    {"format": 1, "kind": "run", "suite", "backbone": its key in the suite, the result of the run (see `RunResult`),
     "words": nearest words, where asked for, "versions", "machine", "backbone_name", "command", "sha256": of the rest}

Names can be read and do not depend on the machine, so files of several machines are merged by copying them together.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coopt.errors import SavedFileError
from coopt.evaluation.runs import RunResult
from coopt.files import write_json

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """A run's result, whose it is, and how it was made.

    Attributes:
        suite: the suite's name.
        backbone: the backbone's key in the suite.
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


def run_name(backbone: str, dataset: str, method: str, shots: int, seed: int | None) -> str:
    """What a run is called: the same for the same place in a suite, whatever its parameters."""
    parts = [backbone, dataset, method]
    if seed is not None:
        parts += [f"{shots}-shot{'s' * (shots > 1)}", f"seed-{seed}"]
    return ".".join(re.sub(r"[^a-z0-9_=+-]+", "-", part.lower()).strip("-") for part in parts)


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
    path = folder / f"{record.name}.json"
    write_json(path, {**document, "sha256": _digest(document)})
    return path


def read_record(path: Path) -> Record:
    """The record in a run's file.

    Raises:
        SavedFileError: the file is missing, damaged, was changed, or is something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or document.get("kind") != "run":
            raise ValueError("not the file of a run")
        if document["format"] > FORMAT:
            raise ValueError(f"format {document['format']}; this coopt reads up to {FORMAT}")
        said = document.pop("sha256", None)
        if said != _digest(document):
            raise ValueError("it was changed or is not whole: its SHA-256 differs")
        result = RunResult.from_dict(document)
        return Record(document["suite"], document["backbone_key"], result, document["words"], document["made"])
    except (OSError, ValueError, KeyError, TypeError, SavedFileError) as error:
        reason = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise SavedFileError(f"'{path}' is not a whole run of a suite ({reason}).") from error


def read_records(folder: Path) -> Iterator[Record | SavedFileError]:
    """All run files of a folder in the order of their names; in the place of a bad one what is wrong with it."""
    for path in sorted(folder.glob("*.json")):
        try:
            yield read_record(path)
        except SavedFileError as error:
            yield error


def _digest(document: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
