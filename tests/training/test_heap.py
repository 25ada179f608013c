"""What a step frees stays for the next one, and goes back to the system after the last."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from click.testing import CliRunner

import coopt
from coopt.backbones import Backbone
from coopt.cli.output import Output, command
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


class Recorder:
    """In the place of the C library."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def mallopt(self, *arguments: int) -> None:
        self.calls.append("mallopt")

    def malloc_trim(self, *arguments: int) -> None:
        self.calls.append("malloc_trim")


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the C library was asked for."""
    library = Recorder()
    monkeypatch.setattr(heap, "_C_LIBRARY", library)
    return library.calls


def test_fit_leaves_the_process_as_it_is(calls: list[str], backbone: Backbone) -> None:
    features = np.random.default_rng(0).normal(size=(4, backbone.embed_dim)).astype(np.float32)
    coopt.CoOp(backbone, n_ctx=1, recipe={"epochs": 1}).fit(features, ["cat", "dog"] * 2)
    assert not calls


@pytest.mark.parametrize("learns", [True, False])
def test_a_command_that_learns_keeps_the_heap_and_gives_it_back(calls: list[str], learns: bool) -> None:
    @command("anything", learns=learns)
    def anything(output: Output) -> None:
        calls.append("learning")

    CliRunner().invoke(anything, [], catch_exceptions=False)
    assert calls == (["mallopt", "mallopt", "learning", "mallopt", "malloc_trim"] if learns else ["learning"])


def test_without_glibc_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heap, "_C_LIBRARY", None)
    with kept_heap():
        pass
    assert not heap.keep_heap()
