"""What bfloat16 costs on this machine, and which precision is used where the choice is left open.

In bf16 the factors of matrix products have 8 significant bits instead of 24 (sums keep 24). Measured: features differ by
half a percent of their length (ViT-B/32) or 0.8 (the bundled model), on the mean, and with them the answers for 10 of 4,076
test images of the bundled data sets. Whether it is faster is the processor's to say: four times with AMX; without
instructions for it, it is emulated, and tens of times as slow.
"""

from __future__ import annotations

import functools
import time
import warnings
from typing import Literal

import torch
from torch.nn.functional import linear

from coopt.errors import ParameterError, PrecisionWarning
from coopt.runtime import Precision
from coopt.wording import setting

UsedPrecision = Literal["fp32", "bf16"]
"""What a `Precision` comes to."""

FASTER, SLOWER = 0.7, 1.4
"""How long a product in bf16 takes, as a multiple of fp32's, where it counts as faster, and where as slower.

Machines lie far from both: 0.25 with AMX, about 0.5 where an instruction doubles the rate, 5 with AVX-512 alone, 27 with
AVX2; so what else runs on a machine does not change the answer.
"""

_SIZE = {"cpu": 256}
_SIZE_ELSEWHERE = 2048  # a GPU takes longer to be told of a small product than to compute it
_ROUNDS = 5


@functools.cache
def cost_of_bf16(device: str) -> float:
    """How long matrix products take in bf16, as a multiple of fp32's; infinite where the device does not know it.

    Measured once in a process, on one thread, by what a frozen linear layer does in a training step; some milliseconds
    (a tenth of a second where bf16 is slow).

    Args:
        device: such as "cpu" or "cuda:0".
    """
    kind = torch.device(device).type
    size = _SIZE.get(kind, _SIZE_ELSEWHERE)
    threads = torch.get_num_threads()
    if kind == "cpu":
        torch.set_num_threads(1)  # several would wait for each other beside a busy process
    try:
        factors = [torch.full((size, size), 1 / size, device=device).to(one) for one in (torch.float32, torch.bfloat16)]
        rounds = [[_seconds(factor) for factor in factors] for _ in range(_ROUNDS)]
    except (RuntimeError, TypeError, NotImplementedError):
        return float("inf")
    finally:
        if kind == "cpu":
            torch.set_num_threads(threads)
    fp32, bf16 = (min(times) for times in zip(*rounds, strict=True))
    return bf16 / fp32


def _seconds(factor: torch.Tensor) -> float:
    start = time.perf_counter()
    float((linear(factor, factor) @ factor)[0, 0])  # forward, and the gradient; a GPU is waited for
    return time.perf_counter() - start


def resolved(asked: Precision, device: torch.device) -> UsedPrecision:
    """The precision that is used on a device: the one asked for; for "auto" bf16 where it is faster, otherwise fp32."""
    if asked == "auto":
        return "bf16" if cost_of_bf16(str(device)) <= FASTER else "fp32"
    return asked


def is_slow(precision: str, device: torch.device) -> bool:
    """True for bf16 on a device where fp32 is faster."""
    return precision == "bf16" and cost_of_bf16(str(device)) >= SLOWER


def cost_described(device: torch.device) -> str:
    """What bf16 costs, as a predicate: "takes about 22 times as long as fp32 on this processor"."""
    cost, what = cost_of_bf16(str(device)), "this processor" if device.type == "cpu" else f"the device '{device}'"
    return (
        f"{what} does not know" if cost == float("inf") else f"takes about {cost:.2g} times as long as fp32 on {what}"
    )


@functools.cache
def warn_of_slow_bf16(device: torch.device) -> None:
    """Says, once in a process, that bf16 was asked for where fp32 is faster.

    Raises:
        ParameterError: the device does not know bf16.
    """
    if cost_of_bf16(str(device)) == float("inf"):
        raise ParameterError(f"The device {str(device)!r} has no bf16. Use {setting('precision', 'fp32')}.")
    warnings.warn(
        f"bf16 {cost_described(device)}, or longer in large models. Use {setting('precision', 'fp32')}, or "
        f"{setting('precision', 'auto')} for the faster of the two.",
        PrecisionWarning,
        stacklevel=2,
    )
