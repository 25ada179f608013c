"""Claims: one process gets each, the dead hold nothing, and of many that take over one succeeds."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from coopt.errors import SavedFileError
from coopt.evaluation.claims import Claims, Owner

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals")


def claims_of(folder: Path, owner: Owner, expire: float | None = None) -> Claims:
    claims = Claims(folder, expire)
    claims.owner = owner
    return claims


@pytest.fixture(scope="module")
def dead() -> Owner:
    """A process that was there and is not any more."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return replace(Owner.this(), pid=process.pid)


@pytest.fixture
def living() -> Owner:
    """Another process of this machine."""
    from coopt.evaluation.claims import _started

    return replace(Owner.this(), pid=os.getppid(), started=_started(os.getppid()))


def test_taken_and_released(tmp_path: Path, living: Owner) -> None:
    mine = Claims(tmp_path / "new")
    assert mine.take("a") == "mine"
    assert mine.take("a") == "mine"
    other = claims_of(tmp_path / "new", living)
    assert other.take("b") == "mine"
    assert mine.take("b") == "here"
    mine.release("a")
    assert not mine.dead("a")
    assert other.take("a") == "mine"


def test_the_dead_hold_nothing(tmp_path: Path, dead: Owner) -> None:
    assert claims_of(tmp_path, dead).take("a") == "mine"
    mine = Claims(tmp_path)
    assert mine.dead("a")
    assert mine.take("a") == "mine"
    assert not mine.dead("a")
    assert [path.name for path in sorted(tmp_path.iterdir())] == ["a.claim", "a.claim-1"]
    mine.release("a")
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(Owner.this().started is None, reason="the system does not say when a process started")
def test_a_later_process_of_the_same_number_is_another(tmp_path: Path) -> None:
    this = Owner.this()
    assert this.started is not None
    claims_of(tmp_path, replace(this, started=this.started - 1)).take("a")
    assert Claims(tmp_path).take("a") == "mine"


def test_other_machines_are_believed_until_told_otherwise(tmp_path: Path, dead: Owner) -> None:
    claims_of(tmp_path, replace(dead, host="elsewhere")).take("a")
    assert Claims(tmp_path).take("a") == "elsewhere"
    assert Claims(tmp_path, expire=3600.0).take("a") == "elsewhere"
    old = tmp_path / "a.claim"
    os.utime(old, (old.stat().st_mtime - 3601,) * 2)
    assert Claims(tmp_path).take("a") == "elsewhere"
    assert Claims(tmp_path, expire=3600.0).take("a") == "mine"


def test_a_claim_in_the_making_counts_for_a_while(tmp_path: Path) -> None:
    empty = tmp_path / "a.claim"
    empty.touch()
    assert Claims(tmp_path).take("a") == "here"
    os.utime(empty, (empty.stat().st_mtime - 60,) * 2)
    assert Claims(tmp_path).take("a") == "mine"


def test_one_of_many_succeeds(tmp_path: Path) -> None:
    for i in range(20):
        name = f"run.{i}"
        claims_of(tmp_path, Owner(1, 1, "gone")).take(name)
        os.utime(tmp_path / f"{name}.claim", (0, 0))
        hosts = [claims_of(tmp_path, Owner(1, 1, f"host {h}"), expire=3600.0) for h in range(8)]
        with ThreadPoolExecutor(8) as pool:
            standings = list(pool.map(lambda claims, name=name: claims.take(name), hosts))
        assert standings.count("mine") == 1  # to the others it is elsewhere, or just in the making


def test_names_that_begin_alike_are_different(tmp_path: Path, living: Owner) -> None:
    other = claims_of(tmp_path, living)
    assert other.take("a.b") == "mine"
    assert Claims(tmp_path).take("a") == "mine"
    Claims(tmp_path).release("a")
    assert Claims(tmp_path).take("a.b") == "here"


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SavedFileError, match="Cannot write"):
        Claims(tmp_path / "file" / "folder").take("a")
    with pytest.raises(SavedFileError, match="Cannot write"):
        Claims(tmp_path / "file").take("a")
