"""How many threads compute, and how they wait. Nothing here is timed: a busy machine is a file that says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import coopt
from coopt import threads
from coopt.errors import BusyMachineWarning, ParameterError
from coopt.runtime import Runtime
from coopt.threads import SMALL, WAITING, busy_cores, idle_cores, set_up_threads, threads_for, usable_cores


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def statistics(*, busy: int, idle: int) -> str:
    return f"cpu  {busy} 0 0 {idle} 0 0 0 0 0 0\ncpu0 1 1 1 1\n"


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "many"])
def test_other_numbers_of_threads_are_refused(threads: object, unchecked: None) -> None:
    with pytest.raises(ParameterError, match=r"The 'threads' parameter of Runtime must be an int >= 1, 'auto' or None"):
        Runtime(threads=threads)  # type: ignore[arg-type]


def test_a_runtime_holds_within_its_context() -> None:
    with coopt.Runtime(threads=3):
        assert torch.get_num_threads() == 3
        with coopt.Runtime(threads=1):
            assert torch.get_num_threads() == 1
        with coopt.Runtime():
            assert torch.get_num_threads() == 3
    assert torch.get_num_threads() == 2


def test_automatic_threads_follow_the_load(monkeypatch: pytest.MonkeyPatch) -> None:
    idle = [4, 2, 1]
    monkeypatch.setattr(threads, "idle_cores", lambda: idle.pop(0))
    with Runtime(threads="auto"):
        assert torch.get_num_threads() == 4
        with threads_for(int(2 * SMALL)):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 4
        with threads_for(10):  # small work, for which nobody looks
            assert torch.get_num_threads() == 1
        with threads_for(int(2 * SMALL)):
            assert torch.get_num_threads() == 1
    with threads_for(int(2 * SMALL)):
        assert torch.get_num_threads() == 2
    assert idle == []


def test_busy_cores_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "stat"
    file.write_text(statistics(busy=100, idle=900))
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads.time, "sleep", lambda seconds: file.write_text(statistics(busy=130, idle=910)))
    assert busy_cores(file) == 3.0  # 30 of 40 ticks, of four cores
    monkeypatch.setattr(os, "getloadavg", lambda: (2.5, 0, 0), raising=False)
    assert busy_cores(tmp_path / "missing") == 2.5


@pytest.mark.parametrize(("busy", "idle"), [(0.2, 4), (1.4, 3), (2.6, 1), (9.0, 1)])
def test_idle_cores(monkeypatch: pytest.MonkeyPatch, busy: float, idle: int) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 4)
    monkeypatch.setattr(threads, "busy_cores", lambda: busy)
    assert idle_cores() == idle


@pytest.mark.parametrize(
    ("quota", "cores"), [("max 100000", 4), ("150000 100000", 2), ("50000 100000", 1), ("900000 100000", 4), ("", 4)]
)
def test_a_containers_quota_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quota: str, cores: int) -> None:
    monkeypatch.setattr(threads, "_affinity", lambda: {0, 1, 2, 3})
    file = tmp_path / "cpu.max"
    file.write_text(quota)
    assert usable_cores(file) == cores
    assert usable_cores(tmp_path / "missing") == 4


def test_threads_of_a_container_are_no_more_than_it_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    monkeypatch.setattr(threads, "_affinity", lambda: {0, 1, 2, 3})
    monkeypatch.delenv("OMP_NUM_THREADS")
    set_up_threads()
    assert os.environ.pop("OMP_NUM_THREADS") == "2"
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    set_up_threads()
    assert os.environ["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize("given", [{}, {"OMP_WAIT_POLICY": "ACTIVE"}])
def test_the_command_line_says_how_threads_wait_before_torch_is_imported(given: dict[str, str]) -> None:
    code = "import os, sys, coopt.cli; print('torch' in sys.modules, *(os.environ[name] for name in sys.argv[1:]))"
    environment = {name: value for name, value in os.environ.items() if name not in WAITING} | given
    done = subprocess.run(
        [sys.executable, "-c", code, *WAITING], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stdout.split() == ["False", *(WAITING | given).values()]


@pytest.mark.skipif(sys.platform != "linux", reason="torch's threads wait in another way there")
@pytest.mark.parametrize(
    ("policy", "busy", "warned"), [("", 1.2, True), ("ACTIVE", 0.9, True), ("", 0.3, False), ("passive", 1.2, False)]
)
def test_python_users_are_told_of_threads_that_spin(
    monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder, policy: str, busy: float, warned: bool
) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", policy)
    monkeypatch.setattr(threads, "busy_cores", lambda: busy)
    monkeypatch.setattr(threads, "usable_cores", lambda: 2)
    threads._warn_of_spinning.cache_clear()
    with threads_for(10):
        pass
    assert not recwarn.list  # small work is done by one thread
    for _ in range(2):
        with threads_for(int(2 * SMALL)):
            pass
    found = [str(one.message) for one in recwarn if issubclass(one.category, BusyMachineWarning)]
    assert len(found) == int(warned)
    if warned:
        assert f"keep {busy} of 2 cores busy" in found[0] and "Set OMP_WAIT_POLICY=PASSIVE" in found[0]
    threads._warn_of_spinning.cache_clear()
