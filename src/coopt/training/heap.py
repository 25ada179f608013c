"""What becomes of memory that a training step frees: a setting of the whole process.

So it is made where the process is coopt's: by the commands that learn, and in the worker processes of a suite. `fit` leaves
a process that is somebody else's as it is; whoever wants the same in a program of their own calls `keep_heap`.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt

LARGEST = 32 << 20
"""Bytes of the largest block that glibc takes from its heap: its own upper limit."""


def keep_heap() -> bool:
    """From now on, what one step frees stays with the process for the next one; False where that cannot be.

    glibc otherwise returns it to the system after every step and asks for it again, page by page, in the next: some
    percent of a step. Outside of glibc nothing changes.
    """
    if _C_LIBRARY is None or not hasattr(_C_LIBRARY, "mallopt"):
        return False
    _C_LIBRARY.mallopt(M_MMAP_THRESHOLD, LARGEST)
    _C_LIBRARY.mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    return True


@contextmanager
def kept_heap() -> Iterator[None]:
    """`keep_heap` within this context; afterwards what is free is given back."""
    if not keep_heap():
        yield
        return
    assert _C_LIBRARY is not None
    try:
        yield
    finally:
        _C_LIBRARY.mallopt(M_TRIM_THRESHOLD, 2 * LARGEST)  # where glibc's own rule ends once such a block was freed
        _C_LIBRARY.malloc_trim(0)


_C_LIBRARY = ctypes.CDLL(None) if sys.platform == "linux" else None
