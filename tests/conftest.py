"""Shapes are checked under test: every annotated call of coopt goes through beartype, with jaxtyping's shapes."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # the models are tiny, and threads would fight over the cores
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # and so would those of a busy machine
os.environ["HF_HUB_OFFLINE"] = "1"

from collections.abc import Callable, Iterator

import jaxtyping

from tests.shapes import check_calls

check_calls("coopt")

from pathlib import Path
from typing import Any

import pytest

from coopt.backbones import Backbone

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test reads or writes the user's feature cache."""
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path_factory.mktemp("cache")))


@pytest.fixture(autouse=True)
def cost_of_bf16(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """No test depends on what bf16 costs on the machine it runs on: it costs as much as fp32, or what a test says."""
    from coopt.backbones import precision

    def costs(times: float) -> None:
        precision.warn_of_slow_bf16.cache_clear()
        monkeypatch.setattr(precision, "cost_of_bf16", lambda device: times)

    costs(1.0)
    return costs


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """The small fixed CLIP of the golden numbers (OpenAI's architecture, QuickGELU)."""
    from benchmarks.golden import small_clip

    return small_clip(GOLDEN / "clip_small.json")


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Type checks off, as users have it: for tests of what coopt itself says to arguments of a wrong kind."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def arithmetics(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """How the image features were computed that were looked up in a cache since the test began."""
    from coopt.data import FeatureCache

    seen: set[str] = set()
    original = FeatureCache.get_many

    def recorded(self: FeatureCache, keys: Any) -> Any:
        seen.update(key.precision for key in keys)
        return original(self, keys)

    monkeypatch.setattr(FeatureCache, "get_many", recorded)
    return seen
