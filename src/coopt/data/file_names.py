"""File names as messages show them."""

from __future__ import annotations

import os
from collections.abc import Sequence


def display_name(path: str | os.PathLike[str]) -> str:
    """The path as text that every terminal and file takes: bytes that are not UTF-8 and control characters escaped."""
    return "".join(c if c.isprintable() else _escaped(c) for c in os.fspath(path))


def _escaped(character: str) -> str:
    if 0xDC80 <= ord(character) <= 0xDCFF:  # a byte that Python could not decode (surrogateescape)
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")


def shown_names(names: Sequence[str], limit: int = 5) -> str:
    """The first of some names, as a message quotes them: "'a', 'b', ..."."""
    return ", ".join(f"'{display_name(name)}'" for name in names[:limit]) + (", ..." if len(names) > limit else "")
