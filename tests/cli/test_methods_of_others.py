"""A method that another installed package announces: listed without its import, learned, saved, found again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

MODULE = """
from typing import ClassVar

from coopt.methods.coop import CoOp
from coopt.parameters import parameter


class Cold(CoOp):
    \"\"\"CoOp with another loss.\"\"\"

    method: ClassVar[str] = "cold"

    warmth: float = parameter(default=0.5, low=0, help="How warm it is.")
"""


@pytest.fixture
def other(tmp_path: Path) -> dict[str, str]:
    """An environment in which the package is installed."""
    info = tmp_path / "site" / "cold-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cold\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[coopt.methods]\ncold = cold:Cold\nbroken = nowhere:Nothing\n")
    (tmp_path / "site" / "cold.py").write_text(MODULE)
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path / "site"), *sys.path])}


def coopt(environment: dict[str, str], *arguments: Any) -> subprocess.CompletedProcess[str]:
    typed = [sys.executable, "-m", "coopt.cli", *map(str, arguments)]
    return subprocess.run(typed, capture_output=True, text=True, env=environment, timeout=120)


def test_it_is_used_like_our_own(other: dict[str, str], photos: Path, clip: str, tmp_path: Path) -> None:
    assert "image_tuning, broken, cold." in " ".join(coopt(other, "fit", "--help").stdout.split())
    given = ("fit", photos, "--backbone", clip, "--method", "cold", "--epochs", 2, "--n-ctx", 2)
    fitted = coopt(other, *given, "--set", "warmth=2.0", "--out", tmp_path / "out", "--json")
    assert fitted.returncode == 0, fitted.stderr
    document = json.loads(fitted.stdout)
    assert (document["method"], document["settings"]["warmth"]) == ("cold", 2.0)
    assert "'set': ['warmth=2.0']" in str(_config(tmp_path / "out"))
    used = coopt(other, "eval", tmp_path / "out", photos, "--json")
    assert json.loads(used.stdout)["accuracy"] == document["metrics"]["learned"]["accuracy"], used.stderr
    again = coopt(other, "fit", "--config", tmp_path / "out" / "config.yaml", "--overwrite", "--json")
    assert json.loads(again.stdout)["metrics"]["learned"] == document["metrics"]["learned"], again.stderr


def test_what_is_wrong_with_it_is_said(other: dict[str, str], photos: Path, clip: str, tmp_path: Path) -> None:
    given = ("fit", photos, "--backbone", clip, "--out", tmp_path / "out", "--method")
    for arguments, message in (
        (("cold", "--set", "warmth=-1"), "--set warmth must be a number >= 0. Got -1 instead."),
        (("cold", "--set", "wamth=1"), "The method 'cold' has no parameter 'wamth'. Did you mean warmth?"),
        (("broken",), "The method 'broken' of the package cold cannot be loaded from 'nowhere:Nothing'"),
    ):
        refused = coopt(other, *given, *arguments)
        assert refused.returncode == 1 and message in refused.stderr, refused.stderr
        assert "Traceback" not in refused.stderr and not (tmp_path / "out").exists()


def _config(folder: Path) -> Any:
    import yaml

    return yaml.safe_load((folder / "config.yaml").read_text())
