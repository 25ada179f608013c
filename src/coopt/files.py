"""Files that are never half written."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

from coopt.errors import SavedFileError


def write_bytes(path: Path, data: bytes) -> None:
    """Writes beside and renames: a reader, or a run that is killed, finds the old file or the new one.

    Raises:
        SavedFileError: the folder cannot be made or written (full disk, no permission).
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(temporary, 0o666 & ~_umask())
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise cannot_write(path, error) from error


def write_json(path: Path, value: Any) -> None:
    """Writes JSON that people can read, in one step."""
    write_bytes(path, json_bytes(value))


def json_bytes(value: Any) -> bytes:
    """What `write_json` writes."""
    return (json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode("utf-8", "surrogateescape")


def cannot_write(path: Path, error: OSError | NotImplementedError) -> SavedFileError:
    """What to raise when the system refuses to write."""
    reason = getattr(error, "strerror", None) or error
    return SavedFileError(
        f"Cannot write {path}: {reason}. Nothing was changed there; free space or choose another place."
    )


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
