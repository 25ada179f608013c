"""What becomes of memory that a training step frees."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt

LARGEST = 32 << 20
"""Bytes of the largest block that glibc takes from its heap: its own upper limit."""


@contextmanager
def kept_heap() -> Iterator[None]:
    """Within this context, what one step frees stays with the process for the next one; afterwards it is given back.

    glibc otherwise returns it to the system after every step and asks for it again, page by page, in the next: some
    percent of a step. Outside of glibc nothing changes.
    """
    if _C_LIBRARY is None or not hasattr(_C_LIBRARY, "mallopt"):
        yield
        return
    _C_LIBRARY.mallopt(M_MMAP_THRESHOLD, LARGEST)
    _C_LIBRARY.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        _C_LIBRARY.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST)  # where glibc's own rule ends once such a block was freed
        _C_LIBRARY.malloc_trim(0)


_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None
