"""What a step frees stays for the next one, and goes back to the system after the last."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from coopt.training import heap
from coopt.training.heap import kept_heap

IN_A_PROCESS_OF_ITS_OWN = """
import json, os, resource
import torch
from pathlib import Path
from coopt.training.heap import kept_heap

def step():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    tensors = [torch.zeros(1 << 20) for _ in range(20)]
    del tensors
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(Path("/proc/self/statm").read_text().split()[1])

with kept_heap():
    first, _, third, held = step(), step(), step(), resident()
print(json.dumps({"first": first, "third": third, "returned": held - resident()}))
"""
PAGES = 20 * (4 << 20) // 4096


@pytest.mark.skipif(not hasattr(heap._C_LIBRARY, "mallopt"), reason="glibc alone returns memory between steps")
def test_memory_is_kept_between_steps_and_returned_after_the_last() -> None:
    command = [sys.executable, "-c", IN_A_PROCESS_OF_ITS_OWN]
    pages = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert pages["third"] < pages["first"] / 2  # a fault may bring a large page, so their number is not that of pages
    assert pages["returned"] > PAGES / 2


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_C_LIBRARY", None)
    with kept_heap():
        pass
