"""How many threads compute, and how they wait for each other.

torch's threads meet after every operation, and where nothing else is said they wait there by spinning: on a machine with
another busy process a step then takes several times as long as it need, since the one that is waited for does not run while
the other spins. OpenMP reads how to wait when torch is loaded, once: the command line says it before (`set_up_threads`), and
Python programs set OMP_WAIT_POLICY=PASSIVE themselves. How many threads there are can be said at any time
(`coopt.Runtime`).
"""

from __future__ import annotations

import math
import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import lru_cache
from pathlib import Path

from coopt.errors import BusyMachineWarning

SMALL = 1e9
"""Floating-point operations below which handing work to threads costs more than it saves.

On an idle machine that is a matter of percents. On a busy one, threads wait for each other after every small operation,
and a step that takes milliseconds takes a second.
"""

LOOK = 0.1
"""Seconds for which the machine is looked at, to see how busy others keep it."""

WAITING = {
    "OMP_WAIT_POLICY": "PASSIVE",  # GNU's OpenMP, which torch brings on Linux
    "KMP_BLOCKTIME": "0",  # LLVM's and Intel's, in torch for macOS and Windows and in other builds
}
"""Environment variables with which threads that wait let others run.

Waking them up costs something where nobody else wants the cores (a sixth of a fit of ViT-B/32 on two cores, see
`benchmarks/beside.py`), and spinning several times as much where somebody does. OMP_WAIT_POLICY=ACTIVE has them spin.
"""


def set_up_threads() -> None:
    """Lets threads wait without spinning and take no more cores than a container may use; before torch is imported.

    What the environment says already stays.
    """
    if usable_cores() < len(_affinity()):  # torch itself knows of no quota
        os.environ.setdefault("OMP_NUM_THREADS", str(usable_cores()))
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)


adapting: ContextVar[bool] = ContextVar("coopt_threads_adapt", default=False)
"""Whether the number of threads follows the load."""


@contextmanager
def threads_for(operations: int) -> Iterator[None]:
    """Within this context small work runs on one thread, in torch and in the libraries under numpy."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    small = operations <= SMALL
    if not small and before > 1:
        _warn_of_spinning()
    if not small and adapting.get():
        torch.set_num_threads(idle_cores())
    elif not small or before == 1:
        yield
        return
    else:
        torch.set_num_threads(1)
    try:
        with threadpool_limits(1) if small else nullcontext():
            yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=1)  # once in a process
def _warn_of_spinning() -> None:
    """Tells Python users what the command line knows: how threads should wait where others want the cores too."""
    if os.environ.get("OMP_WAIT_POLICY", "").upper() == "PASSIVE" or sys.platform != "linux":
        return
    busy, cores = busy_cores(), usable_cores()
    if round(busy) >= 1:
        warnings.warn(
            f"Other programs keep {busy:.1f} of {cores} cores busy, and torch's threads wait for each other by spinning: "
            "this may take several times as long as it need. Set OMP_WAIT_POLICY=PASSIVE in the environment before torch "
            "is imported, or compute within `with coopt.Runtime(threads='auto'):`.",
            BusyMachineWarning,
            stacklevel=5,
        )


def usable_cores(group: Path = Path("/sys/fs/cgroup/cpu.max")) -> int:
    """Cores that this process may use: those of its affinity, and no more than a container's quota allows.

    Args:
        group: where Linux says the quota, as microseconds per period.
    """
    cores = len(_affinity())
    try:
        quota, period = group.read_text().split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no such file, or "max": no quota
        return cores


def _affinity() -> set[int]:
    return os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else set(range(os.cpu_count() or 1))


def idle_cores() -> int:
    """Usable cores that other processes leave idle, at least one; looks on for a tenth of a second."""
    return max(1, usable_cores() - round(busy_cores()))


def busy_cores(statistics: Path = Path("/proc/stat")) -> float:
    """How many cores are kept busy while this thread does nothing.

    Args:
        statistics: where Linux counts what its cores did; elsewhere the load of the last minute is taken.
    """
    before = _core_times(statistics)
    if before is None:
        return os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    time.sleep(LOOK)
    after = _core_times(statistics)
    if after is None or after[1] == before[1]:
        return 0.0
    return (os.cpu_count() or 1) * (after[0] - before[0]) / (after[1] - before[1])


def _core_times(statistics: Path) -> tuple[int, int] | None:
    """(busy, all) time of all cores so far; None where the system does not count it."""
    try:
        times = [int(word) for word in statistics.read_text().split("\n", 1)[0].split()[1:9]]
        return sum(times) - times[3] - times[4], sum(times)  # but for idle, and waiting for a disk
    except (OSError, ValueError, IndexError):
        return None
