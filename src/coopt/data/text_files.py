"""Text that people's programs write: UTF-8 or UTF-16, with byte-order marks or without, and what is seen of a name."""

from __future__ import annotations

import csv
import io
import json
import unicodedata

_BLANKS = "\u115f\u1160\u2800\u3164\uffa0"  # letters and signs of categories that are visible otherwise
_CHANGE_ONLY_WHAT_IS_BEFORE = "\u034f" + "".join(map(chr, range(0xFE00, 0xFE10)))


def decode_text(data: bytes) -> str:
    """The text of a file, in whichever Unicode encoding it is, without a byte-order mark.

    UTF-16 and UTF-32 are known by their marks, or by the zeros beside ASCII characters. Bytes that are not UTF-8 are
    kept as Python keeps those of file names (surrogateescape), since a path may be of any bytes.
    """
    encoding = json.detect_encoding(data)  # type: ignore[attr-defined]
    text = data.decode(encoding, "surrogateescape" if encoding.startswith("utf-8") else "replace")
    return text.removeprefix("\ufeff")


def table_rows(text: str, delimiter: str | None = None) -> list[list[str]]:
    """The rows of a CSV that hold something; without a delimiter it is the one that its first line has most of."""
    delimiter = delimiter or max(",;\t|", key=text.partition("\n")[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter)
    return [row for row in reader if any(map(visible, row))]


def in_unicode(text: str) -> str:
    """Text without undecoded bytes: where there are some, all is read as Windows-1252, the usual other encoding."""
    try:
        text.encode("utf-8")
        return text
    except UnicodeEncodeError:
        data = text.encode("utf-8", "surrogateescape")
    try:
        return data.decode("cp1252")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def visible(text: str) -> str:
    """The text without blanks and invisible characters around it; empty when it has no others."""
    start, end = 0, len(text)
    while start < end and (_is_invisible(text[start]) or text[start] in _CHANGE_ONLY_WHAT_IS_BEFORE):
        start += 1
    while end > start and _is_invisible(text[end - 1]):
        end -= 1
    return text[start:end]


def _is_invisible(character: str) -> bool:
    if "\U000e0020" <= character <= "\U000e007f":  # they end the flags of England, Scotland and Wales
        return False
    return character.isspace() or character in _BLANKS or unicodedata.category(character) in ("Cc", "Cf")
