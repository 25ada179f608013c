"""An archive of images as folders on the disk: all of it, or nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from pathlib import Path

from coopt.data.archives import ENDING, Archive, is_archive, open_archive
from coopt.data.bundled import find_bundled
from coopt.data.file_kinds import is_system_name
from coopt.data.file_names import display_name
from coopt.errors import DataError, SavedFileError
from coopt.events import tracked
from coopt.files import cannot_write


def archive_named(name: str) -> Path:
    """The archive that a name stands for: of a bundled data set, or a ZIP archive's path.

    Raises:
        DataError: there is none, or the data set has no archive of its own.
    """
    path = Path(name)
    if is_archive(path):
        return path
    if path.suffix.lower() == ENDING:
        raise DataError(
            f"'{display_name(path)}' does not exist. Expected a ZIP archive, or the name of a bundled data set."
        )
    dataset = find_bundled(name)
    if dataset.members:
        raise DataError(
            f"The bundled data set {dataset.name!r} has no images of its own, it merges those of others. Extract these: "
            f"{', '.join(one.name for one in dataset.members)}."
        )
    return dataset.archive


def unpack_archive(path: Path, folder: Path) -> int:
    """Writes the files of a ZIP archive into a folder; returns how many.

    They are written beside it, and the folder gets its name when all are there: whatever stops it leaves nothing half.
    Hidden files, and what systems leave in archives, are left out.

    Args:
        path: the archive.
        folder: not there yet, or empty.

    Raises:
        DataError: the archive cannot be read, names of its files lead out of it, or one of them is damaged or too large.
        SavedFileError: the folder holds something, or cannot be written.
    """
    archive = open_archive(path)
    names = [name for name in sorted(archive.files) if not any(map(is_system_name, name.split("/")))]
    _check_target(folder, sum(archive.files[name].file_size for name in names))
    folder = Path(os.path.realpath(folder))  # a link to an empty folder keeps leading there
    made = [one for one in folder.parents if not one.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            new = Path(beside, "new")
            new.mkdir()
            _write(archive, names, new)
            with contextlib.suppress(FileNotFoundError):
                folder.rmdir()
            new.rename(folder)
    except BaseException as error:
        for parent in made:
            with contextlib.suppress(OSError):
                parent.rmdir()
        if isinstance(error, OSError):
            raise cannot_write(folder, error) from error
        raise
    return len(names)


def _check_target(folder: Path, size: int) -> None:
    shown = display_name(folder)
    if folder.exists() and not folder.is_dir():
        raise SavedFileError(f"'{shown}' is a file, expected a folder to write into. Choose another one.")
    if folder.is_dir() and any(folder.iterdir()):
        raise SavedFileError(f"'{shown}' is not empty. Choose a new or an empty folder.")
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    free = shutil.disk_usage(there).free
    if size > free:
        raise SavedFileError(
            f"The files take {size:,} bytes, and '{display_name(there)}' has {free:,} free. Free space or choose another place."
        )


def _write(archive: Archive, names: list[str], folder: Path) -> None:
    with tracked(f"Extracting {archive.path.stem}", len(names)) as progress:
        for count, name in enumerate(names, start=1):
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:  # of two names that are one to this file system, neither is lost in silence
                file.write(archive.read(name))
            progress.update(count)
