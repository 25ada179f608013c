"""Copying or moving images that were classified into FOLDER/CLASS, and into FOLDER/_uncertain.

Nothing is ever written over. A file whose name is taken there gets a number (`1.jpg`, `1-2.jpg`), unless it is copied
and the very same file lies there already: so the same command can be given again, and goes on where it was stopped. A
file is moved only as a whole: its old place is given up when the new one holds it. Images that could not be read stay.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import os
import shutil
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coopt import events
from coopt.app.prediction_rows import PredictedRow
from coopt.data.archives import inside, read_bytes
from coopt.data.file_names import display_name
from coopt.errors import ParameterError, SavedFileError
from coopt.files import write_bytes
from coopt.wording import called, counted

UNCERTAIN = "_uncertain"
"""The folder of images below the least confidence."""

MOST_BYTES = 100
"""Of the name of a class's folder; file systems take 255, and whole paths must fit too."""

MOST_NAMED = 20
"""Images that are gone and named one by one."""

_FORBIDDEN = '<>:"/\\|?*'  # on Windows, and on drives that are carried there
_RESERVED = {"con", "prn", "aux", "nul", *(f"{name}{i}" for name in ("com", "lpt") for i in range(1, 10))}
_PART = ".coopt-copy.part"


@dataclass(frozen=True)
class Placement:
    """Where images go, and how: "copy" or "move"."""

    folder: Path
    how: Literal["copy", "move"]

    @property
    def option(self) -> str:
        """What it is called on the command line, and in the notes beside a file of predictions."""
        return f"--{self.how}-to"

    def __str__(self) -> str:
        return f"{self.option} {self.folder.absolute()}"

    def holds(self, class_names: Sequence[str]) -> Callable[[Path], bool]:
        """Tells of an image whether it lies in the folder of a class already.

        Raises:
            ParameterError: it is to be moved out of an archive.
        """
        folders = {os.path.realpath(self.folder / name) for name in (*folder_names(class_names).values(), UNCERTAIN)}
        known: dict[Path, bool] = {}

        def placed(image: Path) -> bool:
            if image.parent not in known:
                if self.how == "move" and inside(image) is not None:
                    raise ParameterError(
                        f"'{display_name(image)}' is in an archive, which nothing is moved out of. Give "
                        f"{called('copy_to')} in the place of {called('move_to')}."
                    )
                known.clear()  # images of one folder come one after another
                real = os.path.realpath(image.parent)
                known[image.parent] = any(real == one or real.startswith(one + os.sep) for one in folders)
            return known[image.parent]

        return placed


def folder_names(class_names: Sequence[str]) -> dict[str, str]:
    """A folder's name for every class: taken by every file system, and another for each class.

    Where that changes two names into the same (a/b and a:b, or on many systems Cat and cat), the later gets a number.
    """
    taken = {UNCERTAIN}
    folders = {}
    for name in class_names:
        safe, number = _safe(name), 1
        while (folder := safe if number == 1 else f"{safe}-{number}").casefold() in taken:
            number += 1
        taken.add(folder.casefold())
        folders[name] = folder
    return folders


def _safe(name: str) -> str:
    cleaned = "".join(
        "-" if letter in _FORBIDDEN else letter for letter in unicodedata.normalize("NFC", name) if letter.isprintable()
    )
    cleaned = cleaned.encode("utf-8", "ignore")[:MOST_BYTES].decode("utf-8", "ignore").strip(" ").rstrip(". ")
    if cleaned.startswith("."):  # hidden, or the folder itself
        cleaned = f"_{cleaned[1:]}"
    if cleaned.partition(".")[0].rstrip().casefold() in _RESERVED:
        cleaned = f"_{cleaned}"
    return cleaned or "_"


class Placer:
    """Copies or moves images as their classes become known.

    Attributes:
        placed: images copied or moved now.
        there: those that lay there already.
        missing: those that are neither at their old place nor at the new one.
    """

    def __init__(self, placement: Placement, class_names: Sequence[str]) -> None:
        self.placement = placement
        self.folders = folder_names(class_names)
        self.placed = self.there = self.missing = 0

    def add(self, row: PredictedRow) -> None:
        """Places one image.

        Raises:
            SavedFileError: the system refuses; names the image, and where it is now.
        """
        if row.error is not None:
            return
        folder = self.placement.folder / (self.folders[row.best[0][0]] if row.sure else UNCERTAIN)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._place(row.path, folder)
        except OSError as error:
            with contextlib.suppress(OSError):  # if it was made for nothing
                folder.rmdir()
            raise self._refused(row.path, folder, error) from error

    def said(self) -> str:
        """What was done, for people."""
        done = "copied" if self.placement.how == "copy" else "moved"
        there = f", {self.there} lay there already" if self.there else ""
        missing = f", {self.missing} no longer there" if self.missing else ""
        return f"{counted(self.placed, 'image')} {done} to '{display_name(self.placement.folder)}'{there}{missing}."

    def _place(self, image: Path, folder: Path) -> None:
        moving = self.placement.how == "move"
        if inside(image) is not None:
            self._place_archived(image, folder)
            return
        if not os.path.lexists(image):
            if (folder / image.name).exists():  # moved before the run was stopped
                self.there += 1
            else:
                self.missing += 1
                if self.missing <= MOST_NAMED:
                    events.emit(events.Warned(f"'{display_name(image)}' is not there any more."))
            return
        number, target = 1, folder / image.name
        while os.path.lexists(target):
            if target.exists() and (
                target.samefile(image) or (not moving and filecmp.cmp(image, target, shallow=False))
            ):
                self.there += 1
                return
            number += 1
            target = folder / f"{image.stem}-{number}{image.suffix}"
        if moving:
            self._move(image, target)
        else:
            self._copy(image, target)
        self.placed += 1

    def _place_archived(self, image: Path, folder: Path) -> None:
        """Copies an image out of an archive."""
        data = read_bytes(image)
        number, target = 1, folder / image.name
        while os.path.lexists(target):
            if target.is_file() and target.read_bytes() == data:
                self.there += 1
                return
            number += 1
            target = folder / f"{image.stem}-{number}{image.suffix}"
        write_bytes(target, data)
        self.placed += 1

    def _copy(self, image: Path, target: Path) -> None:
        part = target.with_name(_PART)
        try:
            shutil.copy2(image, part)
            part.rename(target)
        finally:
            part.unlink(missing_ok=True)

    def _move(self, image: Path, target: Path) -> None:
        if image.is_symlink():  # a relative one would lead nowhere from its new place
            target.symlink_to(os.path.realpath(image))
            image.unlink()
            return
        try:
            image.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            self._copy(image, target)
            try:
                image.unlink()
            except OSError:
                target.unlink(missing_ok=True)
                raise

    def _refused(self, image: Path, folder: Path, error: OSError) -> SavedFileError:
        copying = self.placement.how == "copy"
        verb = "copied" if copying else "moved"
        if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            hint = "Check the permissions of both folders" + ("" if copying else f", or use {called('copy_to')}")
        else:
            hint = "Free space or choose another place"
        return SavedFileError(
            f"'{display_name(image)}' cannot be {verb} to '{display_name(folder)}': {error.strerror or error}. It is "
            f"still where it was; {counted(self.placed, 'image')} {verb} before. {hint}, then give the same command again."
        )
