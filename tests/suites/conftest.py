"""The tiny suite among the others, and its results, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coopt.data import FeatureCache
from coopt.evaluation.execution import Resources
from coopt.evaluation.executors import SerialExecutor
from coopt.evaluation.outcome import Outcome
from coopt.evaluation.store import Store
from coopt.suites.known import SUITES

from .tiny import TINY, tiny_grid


@pytest.fixture(scope="package", autouse=True)
def _known() -> Iterator[None]:
    SUITES.register("tiny", TINY)
    yield
    del SUITES._registered["tiny"]


def store_in(out: Path, expire: float | None = None) -> Store:
    return Store(out / "tiny", "tiny", expire)


def run_tiny(out: Path, cache: bool | FeatureCache = True) -> Outcome:
    """The tiny suite in this process."""
    return SerialExecutor(Resources(cache=cache)).run(tiny_grid().jobs(), store_in(out))


@pytest.fixture(scope="package")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache for all of these tests: images are encoded once."""
    return tmp_path_factory.mktemp("features")


@pytest.fixture(autouse=True)
def _shared_cache(_own_cache: None, features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(features))


@pytest.fixture(scope="package")
def undisturbed(features: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an undisturbed run; not to be changed."""
    out = tmp_path_factory.mktemp("undisturbed")
    run_tiny(out, FeatureCache(features))
    return out
