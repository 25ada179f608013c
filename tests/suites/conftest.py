"""The tiny suite among the others, and its results, made once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from coopt.backbones import Backbone, load_backbone
from coopt.data import FeatureCache
from coopt.suites.catalogue import SUITES
from coopt.suites.places import places_of
from coopt.suites.plan import Plan, plan_of
from coopt.suites.runner import Outcome, Runner
from coopt.suites.suite import Model

from .tiny import TINY


@pytest.fixture(scope="package", autouse=True)
def _known() -> Iterator[None]:
    SUITES["tiny"] = TINY
    yield
    del SUITES["tiny"]


def load(model: Model) -> Backbone:
    return load_backbone(model.name)


def plan() -> Plan:
    return plan_of(TINY, places_of(TINY))


def run_tiny(out: Path) -> Outcome:
    """The tiny suite in this process."""
    return Runner(plan(), out / "tiny", load).run()


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
    Runner(plan(), out / "tiny", load, FeatureCache(features)).run()
    return out
