"""Predictions in a file that a killed run leaves fit to go on with: rows beside it, renamed when the last is there.

While a run is not done, `.NAME.part` holds its rows and `.NAME.json` says how many of them are whole, for which images
they are and with which settings they were made.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from coopt.data import display_name
from coopt.errors import SavedFileError
from coopt.files import write_json


class PredictionFile:
    """Rows on their way into a file.

    Args:
        path: the file.
        settings: all that decides a row besides its image, ready for JSON.
        overwrite: begin anew over what is there, finished or not.

    Attributes:
        rows: images done so far, those of an earlier run included.
        left_out: how many of them could not be read.

    Raises:
        SavedFileError: the file is finished, or was begun with other settings, or cannot be written.
    """

    def __init__(self, path: Path, settings: dict[str, Any], overwrite: bool) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.state = path.with_name(f".{path.name}.json")
        self.settings = settings
        self.rows = self.left_out = 0
        self._size = 0
        self._images = ""
        if overwrite:
            self._forget()
        elif path.exists():
            raise SavedFileError(f"'{display_name(path)}' is there already. Choose another --out, or add --overwrite.")
        if self.state.exists() and self.part.exists():
            self._recall()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = self.part.open("r+b" if self.rows else "wb")
            self._file.truncate(self._size)  # rows after the last that was committed may be half there
            self._file.seek(self._size)
        except OSError as error:
            raise self._unwritable(error) from error

    def _recall(self) -> None:
        try:
            state = json.loads(self.state.read_bytes())
            settings, rows, size = state["settings"], int(state["rows"]), int(state["bytes"])
            left_out, images = int(state["left_out"]), str(state["images"])
        except (OSError, ValueError, KeyError, TypeError):
            self._forget()  # without knowing which rows are whole, none can be kept
            return
        if settings != self.settings:
            different = sorted(key for key in self.settings if settings.get(key) != self.settings[key])
            raise SavedFileError(
                f"'{display_name(self.path)}' was begun with other settings ({', '.join(different)}). "
                "Give the same ones to go on, choose another --out, or add --overwrite to begin anew."
            )
        if rows and self.part.stat().st_size >= size:
            self.rows, self.left_out, self._size, self._images = rows, left_out, size, images

    def pass_over(self, images: Iterator[Path]) -> None:
        """Takes the images that are done already from the iterator.

        Raises:
            SavedFileError: they are not those that the file was begun with.
        """
        digest = ""
        for _ in range(self.rows):
            image = next(images, None)
            digest = "" if image is None else _chained(digest, [image])
        if digest != self._images:
            raise SavedFileError(
                f"'{display_name(self.path)}' was begun with other images than the {self.rows} that come first now. "
                "Give the same ones to go on, choose another --out, or add --overwrite to begin anew."
            )

    def write(self, data: bytes) -> None:
        """Adds the bytes of rows; they count once they are committed."""
        try:
            self._file.write(data)
        except OSError as error:
            raise self._unwritable(error) from error

    def commit(self, images: Sequence[Path], left_out: int) -> None:
        """From here a killed run goes on.

        Args:
            images: those whose rows were written since the last time.
            left_out: how many of them could not be read.
        """
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._unwritable(error) from error
        self.rows += len(images)
        self.left_out += left_out
        self._images = _chained(self._images, images)
        done = {"rows": self.rows, "bytes": self._file.tell(), "left_out": self.left_out, "images": self._images}
        write_json(self.state, {**done, "settings": self.settings})

    def finish(self) -> None:
        """All rows are there: gives the file its name."""
        self.close()
        try:
            os.replace(self.part, self.path)
            self.state.unlink(missing_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def close(self) -> None:
        """Stops; what was committed is kept."""
        with contextlib.suppress(OSError):  # a full disk was reported when it was met
            self._file.close()

    def _forget(self) -> None:
        for file in (self.state, self.part):
            file.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> SavedFileError:
        return SavedFileError(
            f"Cannot write '{display_name(self.path)}': {error.strerror or error}. Free space or choose another place; "
            "the same command goes on from there."
        )


def _chained(digest: str, images: Sequence[Path]) -> str:
    """A digest of all images so far, from that of the ones before."""
    for image in images:
        digest = hashlib.sha256(digest.encode() + os.fsencode(image)).hexdigest()
    return digest
