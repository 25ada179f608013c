"""How many threads a piece of work deserves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from threadpoolctl import threadpool_limits

SMALL = 1e9
"""Floating-point operations below which handing work to threads costs more than it saves.

On an idle machine that is a matter of percents. On a busy one, threads wait for each other after every small operation,
and a step that takes milliseconds takes a second.
"""


@contextmanager
def threads_for(operations: int) -> Iterator[None]:
    """Within this context small work runs on one thread, in torch and in the libraries under numpy."""
    before = torch.get_num_threads()
    if operations > SMALL or before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)
