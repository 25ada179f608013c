"""Predictions in a file that a killed run leaves fit to go on with, and that says of itself when it is complete.

While a run is not done, `.NAME.part` holds its rows; it becomes the file when the last is there. `.NAME.json` says how
many rows are whole, for which images they are and with which settings they were made. It stays beside the finished
file, so that the same command finds at once, before anything is loaded, that there is nothing left to do.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from coopt.data.archives import status_of
from coopt.data.file_names import display_name
from coopt.errors import SavedFileError
from coopt.files import write_json
from coopt.locks import writing_file
from coopt.wording import called, counted, setting


def _choose() -> str:
    return f"Choose another {called('out')}, or add {setting('overwrite', True)} to begin anew."


class PredictionFile:
    """Rows on their way into a file; a context, in which no other process writes it.

    Args:
        path: the file.
        settings: all that decides a row besides its image, ready for JSON.
        overwrite: begin anew over what is there, finished or not.

    Attributes:
        rows: images done so far, those of an earlier run included.
        left_out: how many of them could not be read.
        finished: the file is whole.
        folder: where relative paths of images begin: the working folder of the run that began the file.
        moved_to: the option by which the images of the finished file were moved, or were being moved.
        moved: that was done to the last of them.
    """

    def __init__(self, path: Path, settings: dict[str, Any], overwrite: bool) -> None:
        self.path = path
        self.part = path.with_name(f".{path.name}.part")
        self.state = path.with_name(f".{path.name}.json")
        self.settings, self.overwrite = settings, overwrite
        self.rows = self.left_out = 0
        self.finished = self.moved = False
        self.folder = Path.cwd()
        self.moved_to: str | None = None
        self._replaces = overwrite  # what is finished there is replaced once this one is
        self._size = 0
        self._images = self._contents = self._sha256 = ""
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> PredictionFile:
        """Looks at what is there.

        Raises:
            InUseError: another process writes the file.
            SavedFileError: there is something that this run can neither go on from nor replace.
        """
        with contextlib.ExitStack() as stack:
            stack.enter_context(writing_file(self.path, called("out")))
            self._recall()
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def begin(self) -> None:
        """Opens the file for rows.

        Raises:
            SavedFileError: it cannot be written.
        """
        try:
            if not self.rows:
                self.state.unlink(missing_ok=True)  # of what is begun anew
            self._file = self.part.open("r+b" if self.rows else "wb")
            self._stack.callback(self._close)
            self._file.truncate(self._size)  # rows after the last that was committed may be half there
            self._file.seek(self._size)
        except OSError as error:
            raise self._unwritable(error) from error

    def pass_over(self, images: Iterator[Path]) -> None:
        """Takes the images that are done already from the iterator.

        Raises:
            SavedFileError: they are not those that the file was begun with.
        """
        n_images, same, unchanged = self._compared(images)
        shown = f"'{display_name(self.path)}' was begun"
        if n_images < self.rows:
            raise SavedFileError(
                f"{shown} and has {counted(self.rows, 'image')}; only {n_images} come now. {_choose()}"
            )
        if not same:
            raise SavedFileError(f"{shown} with other images than the {self.rows} that come first now. {_choose()}")
        if not unchanged:
            raise SavedFileError(
                f"{shown} with these images, but some of the first {self.rows} were changed since (size or date). {_choose()}"
            )

    def check_complete(self, images: Iterator[Path]) -> None:
        """Of a finished file: that it holds these images.

        Raises:
            SavedFileError: they are others; says how they differ.
        """
        shown = f"'{display_name(self.path)}'"
        if self.moved:  # what is there now are those that stayed, or new ones
            if _digests(_present(images, self.folder))[2] != self._contents:
                raise SavedFileError(
                    f"{shown} is complete and its images were moved ({display_name(self.moved_to or '')}), but there are "
                    f"others now. Choose another {called('out')} for them."
                )
            return
        n_images, same, unchanged = self._compared(images)
        if n_images == self.rows and same and unchanged:
            more = sum(1 for _ in images)
            if more:
                raise SavedFileError(
                    f"{shown} is complete for {counted(self.rows, 'image')}, and more follow them now ({more}). Give these with "
                    f"another {called('out')}, or add {setting('overwrite', True)} to begin anew."
                )
            return
        if n_images < self.rows:
            raise SavedFileError(
                f"{shown} is there already, for {counted(self.rows, 'image')}; only {n_images} now. {_choose()}"
            )
        what = "some of its images were changed since (size or date)" if same else "for other images than those of now"
        raise SavedFileError(f"{shown} is there already, {'but ' if same else ''}{what}. {_choose()}")

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
        _, self._images, self._contents = _digests(images, self._images, self._contents)
        self._size = self._file.tell()
        self._save()

    def finish(self) -> None:
        """All rows are there: gives the file its name."""
        self._close()
        try:
            self._sha256 = _sha256(self.part)
            self.finished = True
            self._save()  # first: a file of this name that nothing is known of would be refused
            os.replace(self.part, self.path)
        except OSError as error:
            raise self._unwritable(error) from error

    def begin_moving(self, option: str) -> None:
        """Notes, before the first image of the finished file is moved, where they are going to be."""
        self.moved_to = option
        self._save()

    def finish_moving(self, images: Iterable[Path]) -> None:
        """Notes that all images of the finished file were moved, and which of them stayed where they were."""
        self.moved = True
        self._contents = _digests(_present(images, self.folder))[2]
        self._save()

    def _recall(self) -> None:
        state = self._read_state()
        there = self.path.exists()
        shown = f"'{display_name(self.path)}'"
        if self.overwrite or state is None:
            if there and not self.overwrite:
                raise SavedFileError(f"{shown} is there already. {_choose()}")
            return
        part = self.part.exists()
        whole = there and state["finished"] and not part
        if whole and (state["bytes"], state["sha256"]) != _size_and_sha256(self.path):
            raise SavedFileError(f"{shown} is there already and was changed since it was written. {_choose()}")
        if there and not whole and not state["replaces"]:
            raise SavedFileError(f"{shown} is there already. {_choose()}")
        if not whole and not (part and self.part.stat().st_size >= state["bytes"]):
            return  # its rows were removed
        if state["settings"] != self.settings:
            different = sorted(k for k in self.settings if state["settings"].get(k) != self.settings[k])
            was = "made" if whole else "begun"
            raise SavedFileError(f"{shown} was {was} with other settings ({', '.join(different)}). {_choose()}")
        self.rows, self.left_out, self._size = state["rows"], state["left_out"], state["bytes"]
        self._images, self._contents, self._sha256 = state["images"], state["contents"], state["sha256"]
        self.folder, self._replaces = Path(state["folder"]), state["replaces"]
        self.moved_to, self.moved, self.finished = state["moved_to"], state["moved"], whole

    def _read_state(self) -> dict[str, Any] | None:
        """What is known of the rows that are there; None when nothing is, and then none can be kept."""
        try:
            state = json.loads(self.state.read_text(encoding="utf-8", errors="surrogateescape"))
            return state if isinstance(state, dict) and state.keys() >= self._state().keys() else None
        except (OSError, ValueError):
            return None

    def _state(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "bytes": self._size,
            "left_out": self.left_out,
            "images": self._images,
            "contents": self._contents,
            "sha256": self._sha256,
            "finished": self.finished,
            "replaces": self._replaces,
            "folder": str(self.folder),
            "moved_to": self.moved_to,
            "moved": self.moved,
            "settings": self.settings,
        }

    def _save(self) -> None:
        write_json(self.state, self._state())

    def _compared(self, images: Iterator[Path]) -> tuple[int, bool, bool]:
        """Takes as many images as there are rows: how many came, whether they are the same, and have not changed."""
        n_images, named, contents = _digests(islice(images, self.rows))
        return n_images, named == self._images, contents == self._contents

    def _close(self) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported when it was met
            self._file.close()
        if not self.rows:
            with contextlib.suppress(OSError):
                self.part.unlink(missing_ok=True)

    def _unwritable(self, error: OSError) -> SavedFileError:
        return SavedFileError(
            f"Cannot write '{display_name(self.path)}': {error.strerror or error}. Free space or choose another place; "
            "the same command goes on from there."
        )


def _digests(images: Iterable[Path], names: str = "", contents: str = "") -> tuple[int, str, str]:
    """How many images there are, and a digest of their names and one of their sizes and dates too, each from that of
    the images before."""
    count = 0
    for image in images:
        name = os.fsencode(image)
        try:
            seen = "{} {}".format(*status_of(image))
        except (OSError, ValueError):  # an error of an archive is a ValueError, too
            seen = "gone"
        names = hashlib.sha256(names.encode() + name).hexdigest()
        contents = hashlib.sha256(contents.encode() + name + seen.encode()).hexdigest()
        count += 1
    return count, names, contents


def _present(images: Iterable[Path], folder: Path) -> Iterator[Path]:
    return (image for image in images if os.path.lexists(folder / image))


def _sha256(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def _size_and_sha256(file: Path) -> tuple[int, str]:
    return file.stat().st_size, _sha256(file)
