"""ZIP archives of images, read in place: `photos.zip/cat/1.png` is a path like any other.

A path through an archive is an ordinary path that leads on behind a file `*.zip`. The functions here take any path, and
look into archives where the path leads into one. An archive is opened once; threads may share it, and a process that
was forked opens it anew. Nothing is unpacked but the one file that is asked for, in memory, and no more than
`MAX_FILE_BYTES` of it.
"""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
import stat
import threading
import zipfile
from collections import OrderedDict
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from coopt.data.file_kinds import what_it_is
from coopt.data.file_names import display_name
from coopt.errors import BadImageError, DataError

ENDING = ".zip"

MAX_FILE_BYTES = 1 << 28
"""What one file of an archive may hold, unpacked (256 MB): a few kilobytes that unpack to much more are a bomb."""

_KEPT_OPEN = 32


class FileStatus(NamedTuple):
    """Of a file on the disk or in an archive: its size, and when it was changed (of an archive: when that was)."""

    size: int
    changed_ns: int


class Archive:
    """The files of one ZIP archive.

    Args:
        path: of the archive.

    Attributes:
        files: what the archive says of each file, by its path inside with forward slashes.
        folders: the names in each folder, by its path; "" is the archive itself.

    Raises:
        DataError: it is no ZIP archive, not a whole one, or names of its files lead out of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.files: dict[str, zipfile.ZipInfo] = {}
        self.folders: dict[str, set[str]] = {"": set()}
        # Given an opened file, zipfile does not count who reads from it (its count is not safe among threads).
        self._file = path.open("rb")
        try:
            self._zip = zipfile.ZipFile(self._file)
        except Exception as error:  # a damaged one makes zipfile raise nearly anything
            self._file.seek(0)
            raise DataError(f"'{display_name(path)}' is {_what_instead(self._file.read(512), error)}.") from error
        for info in self._zip.infolist():
            self._add(info)
        for name in self.folders.keys() & self.files.keys():
            del self.files[name]

    def __del__(self) -> None:  # nobody reads from it any more
        if hasattr(self, "_file"):
            self._file.close()

    def _add(self, info: zipfile.ZipInfo) -> None:
        name = _name_of(info)
        if name.startswith("/") or ".." in name.split("/") or re.match(r"[A-Za-z]:(/|$)", name):
            raise DataError(
                f"'{display_name(self.path)}' is refused: it holds a file named '{display_name(name)}', which would lie "
                "outside of the archive's folder. Make the archive anew from the folder of images."
            )
        parts = PurePosixPath(name).parts  # without "." and double slashes
        for depth in range(len(parts)):
            folder = "/".join(parts[:depth])
            self.folders.setdefault(folder, set()).add(parts[depth])
        if info.is_dir() or name.endswith("/"):
            self.folders.setdefault("/".join(parts), set())
        else:
            self.files["/".join(parts)] = info

    def read(self, name: str) -> bytes:
        """The content of a file.

        Raises:
            FileNotFoundError: there is none of that path.
            IsADirectoryError: it is a folder.
            BadImageError: it is encrypted, damaged, too large, or packed in a way that Python cannot read.
        """
        info = self.info(name)
        if info.flag_bits & 0x1:
            raise BadImageError(
                f"{self._shown(name)} is encrypted: the archive has a password. Unpack it with its password, and give the folder."
            )
        if stat.S_ISLNK(info.external_attr >> 16):
            raise BadImageError(
                f"{self._shown(name)} is a symbolic link, which is not followed within an archive. Leave it out."
            )
        if info.file_size > MAX_FILE_BYTES:
            raise BadImageError(
                f"{self._shown(name)} is refused: it unpacks to {info.file_size:,} bytes, expected at most {MAX_FILE_BYTES:,} (it may "
                "be a decompression bomb). If it is an image, unpack the archive and give the folder."
            )
        try:
            return self._zip.read(info)
        except NotImplementedError as error:  # Windows packs large files with Deflate64
            raise BadImageError(
                f"{self._shown(name)} cannot be unpacked by Python ({error}). Unpack the archive and give the folder."
            ) from error
        except Exception as error:  # each way of packing has errors of its own
            raise BadImageError(
                f"{self._shown(name)} is damaged within its archive ({type(error).__name__}: {error}). Copy the archive again, or leave "
                "it out."
            ) from error

    def info(self, name: str) -> zipfile.ZipInfo:
        """What the archive says of a file.

        Raises:
            FileNotFoundError: there is none of that path.
            IsADirectoryError: it is a folder.
        """
        if name in self.files:
            return self.files[name]
        if name in self.folders:
            raise IsADirectoryError(21, "Is a directory", str(self.path / name))
        raise FileNotFoundError(2, "No such file or directory", str(self.path / name))

    def _shown(self, name: str) -> str:
        return f"'{display_name(self.path / name)}'"


def _name_of(info: zipfile.ZipInfo) -> str:
    """The path of a file as whoever packed it meant it."""
    name = info.filename
    if not info.flag_bits & 0x800 and not name.isascii():
        # It does not say that it is UTF-8, and was taken for the code page of DOS; macOS and many programs do not say so.
        with contextlib.suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    return name.replace("\\", "/") if info.create_system == 0 else name  # old programs for Windows


def _what_instead(beginning: bytes, error: Exception) -> str:
    kind = what_it_is(beginning)
    if not beginning:
        return "empty (0 bytes), expected a ZIP archive. Copy it again"
    if kind is not None and not beginning.startswith(b"PK"):
        return f"{kind}. Expected a ZIP archive"
    return f"no ZIP archive, or not a whole one ({error}). Copy it again, or unpack it and give the folder"


_opened: OrderedDict[Path, tuple[tuple[int, ...], Archive]] = OrderedDict()
_lock = threading.Lock()


def _forget() -> None:
    """In a process that was forked: the place in an opened file is shared with the parent."""
    global _lock
    _lock = threading.Lock()
    _opened.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


def open_archive(path: Path) -> Archive:
    """The archive in a file, opened once; a file that was changed is opened again.

    Raises:
        DataError: it cannot be read, is no ZIP archive or not a whole one.
    """
    try:
        status = path.stat()
        version = (status.st_ino, status.st_dev, status.st_size, status.st_mtime_ns)
        with _lock:
            if path in _opened and _opened[path][0] == version:
                _opened.move_to_end(path)
                return _opened[path][1]
            _opened[path] = version, (archive := Archive(path))
            _opened.move_to_end(path)
            while len(_opened) > _KEPT_OPEN:
                _opened.popitem(last=False)
            return archive
    except OSError as error:
        raise DataError(
            f"The archive '{display_name(path)}' cannot be read: {error.strerror or error}. Check its permissions."
        ) from error


def inside(path: str | os.PathLike[str]) -> tuple[Path, str] | None:
    """The archive that a path leads into, and the path inside of it ("" for the archive itself); None for other paths."""
    text = os.fspath(path)
    lowered = text.lower()
    end = lowered.find(ENDING)
    while end >= 0:
        end += len(ENDING)
        if end == len(text) or text[end] == "/" or text[end] == os.sep:
            archive = Path(text[:end])
            if _is_file(archive):
                name = posixpath.normpath(text[end + 1 :].replace(os.sep, "/"))
                return archive, "" if name == "." else name
        end = lowered.find(ENDING, end)
    return None


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a name too long for the system, or with a null byte
        return False


def is_archive(path: Path) -> bool:
    """Whether the path is that of a ZIP archive, by its ending."""
    return path.suffix.lower() == ENDING and _is_file(path)


def is_file(path: Path) -> bool:
    """Whether there is a file, on the disk or in an archive."""
    if _is_file(path):
        return True
    within = inside(path)
    return within is not None and within[1] in open_archive(within[0]).files


def is_folder(path: Path) -> bool:
    """Whether there is a folder, on the disk or in an archive; an archive is a folder itself."""
    try:
        if path.is_dir():
            return True
    except (OSError, ValueError):
        return False
    within = inside(path)
    return within is not None and (not within[1] or within[1] in open_archive(within[0]).folders)


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """The content of a file, on the disk or in an archive.

    Raises:
        OSError: it cannot be read.
        DataError: it lies in an archive and cannot be read from there.
    """
    try:
        return Path(path).read_bytes()
    except (NotADirectoryError, FileNotFoundError):
        within = inside(path)
        if within is None:
            raise
    return open_archive(within[0]).read(within[1])


def status_of(path: Path) -> FileStatus:
    """Size and date of a file, on the disk or in an archive.

    Raises:
        OSError: there is no such file.
        DataError: it lies in an archive that cannot be read.
    """
    try:
        status = path.stat()
    except (NotADirectoryError, FileNotFoundError):
        within = inside(path)
        if within is None:
            raise
        info = open_archive(within[0]).info(within[1])
        return FileStatus(info.file_size, within[0].stat().st_mtime_ns)
    return FileStatus(status.st_size, status.st_mtime_ns)
