"""Packed runs: one text file for all runs of a suite, as they are committed.

A line is a run: the JSON of its file on one line, with the file's name before it. Lines are sorted by that name, so a run
that is added is one line more in a diff. Nothing is left out, checksums neither: unpacked, every file has its bytes again.

    {"name": "bundled.animals.coop.1-shot.seed-1", "format": 1, "kind": "run", ..., "sha256": ...}

Files of several machines are merged by writing one behind the other; of two lines for one run the later one counts.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from coopt.errors import SavedFileError
from coopt.files import write_bytes

Document = dict[str, Any]
"""The content of a run's file."""


@dataclass(frozen=True)
class PackedRuns:
    """What a packed file holds.

    Attributes:
        path: the file.
        documents: name of a run to the content of its file, in the order of the names.
        damaged: what is wrong with lines that are no run.
    """

    path: Path
    documents: Mapping[str, Document] = field(default_factory=dict)
    damaged: tuple[SavedFileError, ...] = ()


def packed_file(folder: Path) -> Path:
    """Where the packed runs of a suite's folder are: "results/mini-words.jsonl" beside "results/mini-words"."""
    return folder.with_name(f"{folder.name}.jsonl")


def read_packed(folder: Path) -> PackedRuns:
    """The packed runs that belong to a suite's folder; none where there is no such file. Not to be changed.

    The file is read once, and again only when it is another one.

    Raises:
        SavedFileError: the file cannot be read.
    """
    path = packed_file(folder)
    try:
        status = path.stat()
        return _read(path, status.st_ino, status.st_size, status.st_mtime_ns)
    except FileNotFoundError:
        return PackedRuns(path)
    except OSError as error:
        raise SavedFileError(f"'{path}' cannot be read: {error.strerror or error}.") from error


@lru_cache(maxsize=8)
def _read(path: Path, *_version: int) -> PackedRuns:
    documents: dict[str, Document] = {}
    damaged: list[SavedFileError] = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), start=1):
        if not line.strip():
            continue
        try:
            document = json.loads(line)
            name = document.pop("name", None) if isinstance(document, dict) else None
            if not isinstance(name, str) or Path(name).name != name:
                raise ValueError("it has no name of a run")
            documents[name] = document
        except ValueError as error:
            damaged.append(SavedFileError(f"Line {number} of '{path}' is not a run of a suite ({error})."))
    return PackedRuns(path, {name: documents[name] for name in sorted(documents, key=file_order)}, tuple(damaged))


def write_packed(folder: Path, documents: Mapping[str, Document]) -> Path:
    """Writes the packed file of a suite's folder, in one step; the same runs give the same bytes.

    Raises:
        SavedFileError: it cannot be written.
    """
    lines = (
        json.dumps({"name": name, **documents[name]}, ensure_ascii=False, separators=(",", ":")) + "\n"
        for name in sorted(documents, key=file_order)
    )
    path = packed_file(folder)
    write_bytes(path, "".join(lines).encode("utf-8", "surrogateescape"))
    return path


def file_order(name: str) -> str:
    """What names of runs are sorted by: their files' names."""
    return f"{name}.json"
