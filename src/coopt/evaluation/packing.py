"""Packing the runs of a suite into one file, and unpacking them again.

Whatever stops either, every run is whole in one place or the other, and the same command goes on.
"""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass
from pathlib import Path

from coopt.errors import SavedFileError
from coopt.evaluation.claims import ENDING, Claims
from coopt.evaluation.packed import Document, packed_file, read_packed, write_packed
from coopt.evaluation.run_files import read_record
from coopt.files import json_bytes, write_bytes
from coopt.locks import writing_file


@dataclass(frozen=True)
class Packing:
    """What became of a suite's runs.

    Attributes:
        path: the packed file.
        moved: how many runs were packed, or unpacked.
        total: how many are there now: in the packed file, or in files of their own that were packed.
        left: name of a run that was left as it is to why.
    """

    path: Path
    moved: int
    total: int
    left: dict[str, str]


def pack(folder: Path) -> Packing:
    """Moves a suite's run files into its packed file, and removes the folder if nothing else is in it.

    Damaged files are left, and those of runs that a process is doing at the time.

    Args:
        folder: of the suite's run files, such as "results/mini-words".

    Raises:
        SavedFileError: a line of the packed file is damaged, or something cannot be read or written.
        InUseError: another process packs or unpacks them.
    """
    with writing_file(packed_file(folder), "folder"):
        documents = dict(_whole(folder))
        files: dict[Path, bytes] = {}
        left: dict[str, str] = {}
        being_done = _claimed(folder)
        for path in sorted(folder.glob("*.json")):
            name = path.name.removesuffix(".json")
            try:
                if name in being_done:
                    raise SavedFileError(f"A process is doing {name}.")
                read_record(path)  # what is packed is whole
                files[path] = path.read_bytes()
                documents[name] = json.loads(files[path])
            except (OSError, ValueError, SavedFileError) as error:
                left[name] = str(error)
        if files:
            write_packed(folder, documents)
        for path, packed in files.items():
            if path.read_bytes() == packed:  # not done again meanwhile
                path.unlink()
        _remove_if_empty(folder)
        return Packing(packed_file(folder), len(files), len(documents), left)


def unpack(folder: Path) -> Packing:
    """Writes a file for every packed run, with the bytes that it had, and removes the packed file.

    A run that has a file of its own keeps it: it is younger.

    Raises:
        SavedFileError: a line of the packed file is damaged, or something cannot be written.
        InUseError: another process packs or unpacks them.
    """
    path = packed_file(folder)
    with writing_file(path, "folder"):
        documents = _whole(folder)
        left: dict[str, str] = {}
        for name, document in documents.items():
            file = folder / f"{name}.json"
            if file.exists():
                left[name] = f"'{file}' is there already."
            else:
                write_bytes(file, json_bytes(document))
        path.unlink(missing_ok=True)
        return Packing(path, len(documents) - len(left), len(documents), left)


def _whole(folder: Path) -> dict[str, Document]:
    """The packed runs, none of whose lines is damaged: written anew or removed, such a line would be lost."""
    packed = read_packed(folder)
    for error in packed.damaged:
        raise SavedFileError(f"{error} Repair the line, or delete it.")
    return dict(packed.documents)


def _claimed(folder: Path) -> set[str]:
    """The runs that a process is doing, or may be."""
    claims = Claims(folder)
    names = {path.name.partition(ENDING)[0] for path in folder.glob(f"*{ENDING}*")}
    return {name for name in names if not claims.dead(name)}


def _remove_if_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):  # checkpoints, claims, damaged files, or no folder
        folder.rmdir()
