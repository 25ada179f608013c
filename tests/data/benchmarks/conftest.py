"""All fifteen miniatures under one root."""

from __future__ import annotations

from pathlib import Path

import pytest

from .layouts import LAYOUTS


@pytest.fixture(scope="session")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Every miniature; not to be changed."""
    folder = tmp_path_factory.mktemp("root")
    for make in LAYOUTS.values():
        make(folder)
    return folder
