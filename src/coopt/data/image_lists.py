"""Lists of images: one path per line, or a CSV or JSON Lines file that has the paths in a column or field."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path

from coopt.data.csv_file import find_file, paths_in_csv
from coopt.data.file_kinds import what_it_is
from coopt.data.file_names import display_name
from coopt.data.text_files import decode_text
from coopt.errors import DataError

_FIELDS = ("path", "file_name", "filename", "file", "image", "image_path", "file_path", "filepath")
_IMAGES = (b"\x89PNG", b"\xff\xd8\xff", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")


def listed_images(lines: Iterable[bytes], name: str, folder: Path | None = None) -> Iterator[Path]:
    """The paths that a list names, one per line, of any bytes; blank lines are passed over.

    A list in UTF-16, a CSV with a header that names a column of paths, and JSON Lines with a field of paths are known
    by their first line. The lines of any other list are taken as they come.

    Args:
        lines: of the list, with their ends.
        name: of the list, for messages.
        folder: where paths are looked for that are not there from the working folder; None: nowhere.

    Raises:
        DataError: it is no list of paths, such as an archive.
    """
    given = iter(lines)
    begun: list[bytes] = []  # up to the first line that is not blank
    for line in given:
        begun.append(line)
        if line.strip():
            break
    head, first = b"".join(begun), begun[-1] if begun else b""
    if head.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in head[:4]:
        text = decode_text(b"".join(chain([head], given)))
        given = iter(line.encode("utf-8", "surrogateescape") for line in text.splitlines())
        first = next((line for line in given if line.strip()), b"")
    first = first.removeprefix(b"\xef\xbb\xbf")
    _refuse_no_list(first, name)
    for path in _paths(chain([first], given), first, name):
        yield _existing(path, folder)


def _refuse_no_list(first: bytes, name: str) -> None:
    if first.startswith(_IMAGES):
        raise DataError(f"'{name}' is an image, not a list of images. Give it without --from-list.")
    kind = None if first.lstrip().startswith((b"{", b"[")) else what_it_is(first)
    if kind is not None:
        raise DataError(f"The list of images '{name}' is {kind}. Expected one path per line.")


def _paths(lines: Iterator[bytes], first: bytes, name: str) -> Iterator[str]:
    head = decode_text(first).strip()
    if head.startswith("{"):
        return _from_json_lines(lines, name)
    if head.startswith("["):
        return _from_json(b"\n".join(lines), name)
    if _is_header(head):
        return iter(paths_in_csv(name, decode_text(b"\n".join(line.rstrip(b"\r\n") for line in lines))))
    return (os.fsdecode(line) for line in map(_without_end, lines) if line.strip())


def _without_end(line: bytes) -> bytes:
    return line.rstrip(b"\r\n")


def _is_header(line: str) -> bool:
    """Whether a line has a column of paths beside others; a file may be called "image" too, but not "path,label"."""
    cells = [cell.strip().strip('"').lower().replace(" ", "_") for cell in re.split(r"[,;\t|]", line)]
    return len(set(cells) & set(_FIELDS)) > 0 and (len(cells) > 1 or cells[0] in ("path", "file_name", "filename"))


def _from_json_lines(lines: Iterator[bytes], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except ValueError as error:
            raise DataError(f"Line {number} of the list of images '{name}' is not JSON: {error}.") from error
        yield _path_of(record, f"Line {number} of the list of images '{name}'")


def _from_json(data: bytes, name: str) -> Iterator[str]:
    try:
        records = json.loads(data)
    except ValueError as error:
        raise DataError(f"The list of images '{name}' begins as JSON does, but is not: {error}.") from error
    for position, record in enumerate(records):
        yield _path_of(record, f"Entry {position} of the list of images '{name}'")


def _path_of(record: object, what: str) -> str:
    if isinstance(record, str):
        return record
    named = (
        [record[field] for field in _FIELDS if isinstance(record.get(field), str)] if isinstance(record, dict) else []
    )
    if not named:
        shown = display_name(json.dumps(record)[:100])
        raise DataError(f'{what} names no image: {shown}. Expected a path, or an object with the field "path".')
    return named[0]


def _existing(path: str, folder: Path | None) -> Path:
    """The path as it is written when that is there; else as another folder or system would write it, if that is."""
    if Path(path).is_absolute() and "\\" not in path:
        return Path(path)
    folders = (Path(), *(() if folder is None else (folder,)))
    return next((file for one in folders if (file := find_file(one, path)) is not None), Path(path))
