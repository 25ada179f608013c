"""Seconds and bytes, as the benchmarks measure them."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from coopt.backbones.precision import cost_described, is_slow


def say(line: str) -> None:
    """A line about the work at hand, at once, on standard error: standard output is for what comes of it."""
    print(line, file=sys.stderr, flush=True)


def precisions_here(asked: Sequence[str]) -> tuple[list[str], list[str]]:
    """The precisions that this machine is not slow in, and why others are left out, which is said; one alone is kept."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    slow = [name for name in asked if is_slow(name, device)]
    if not slow or len(asked) == 1:
        return list(asked), []
    reasons = [f"{name}, which {cost_described(device)}" for name in slow]
    for reason in reasons:
        say(f"Left out: {reason}.")
    return [name for name in asked if name not in slow], reasons


def seconds(run: Callable[[], Any]) -> float:
    """How long one call takes, work in flight on a GPU included."""
    start = time.perf_counter()
    run()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def spread(times: Sequence[float]) -> dict[str, float]:
    """What repeats say of the machine."""
    return {"fastest": min(times), "median": statistics.median(times), "slowest": max(times)}


def matmul_peak(dtype: torch.dtype, size: int = 2048) -> float:
    """Floating-point operations per second of one large matrix product, the best of several."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    a, b = (torch.randn(size, size, device=device).to(dtype) for _ in range(2))
    seconds(lambda: a @ b)
    return 2 * size**3 / min(seconds(lambda: a @ b) for _ in range(8))


def peak_bytes() -> int:
    """The most that this process (on a GPU: its tensors there) has held so far, or since `forget_peak`."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would report the parent's peak where that was higher
        return 1024 * int(status.read_text().split("VmHWM:")[1].split()[0])
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """From now on the peak is counted anew, from what is held at this moment, where the system can do that.

    Otherwise what was held for a moment while a model was made would hide as much of what is held later.
    """
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    elif (counters := Path("/proc/self/clear_refs")).exists():
        counters.write_text("5")
