"""A method that another installed package announces: listed without its import, learned, saved, found again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .conftest import install, run, run_json

MODULE = """
from typing import ClassVar

from coopt.methods.coop import CoOp
from coopt.parameters import parameter


class Cold(CoOp):
    \"\"\"CoOp with another loss.\"\"\"

    method: ClassVar[str] = "cold"

    warmth: float = parameter(default=0.5, low=0, help="How warm it is.")
"""


@pytest.fixture(autouse=True)
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The package is installed."""
    info = tmp_path / "site" / "cold-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: cold\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[coopt.methods]\ncold = cold:Cold\nbroken = nowhere:Nothing\n")
    (tmp_path / "site" / "cold.py").write_text(MODULE)
    install(tmp_path / "site", monkeypatch)


def test_it_is_used_like_our_own(photos: Path, clip: str, tmp_path: Path) -> None:
    assert ", broken, cold, auto." in " ".join(run("fit", "--help").stdout.split())
    given = ("fit", photos, "--backbone", clip, "--method", "cold", "--epochs", 2, "--n-ctx", 2)
    document = run_json(*given, "--set", "warmth=2.0", "--out", tmp_path / "out")
    assert (document["method"], document["settings"]["warmth"]) == ("cold", 2.0)
    assert "'set': ['warmth=2.0']" in str(_config(tmp_path / "out"))
    used = run_json("eval", tmp_path / "out", photos)
    assert used["accuracy"] == document["metrics"]["learned"]["accuracy"]
    again = run_json("fit", "--config", tmp_path / "out" / "config.yaml", "--overwrite")
    assert again["metrics"]["learned"] == document["metrics"]["learned"]


def test_what_is_wrong_with_it_is_said(photos: Path, clip: str, tmp_path: Path) -> None:
    given = ("fit", photos, "--backbone", clip, "--out", tmp_path / "out", "--method")
    for arguments, message in (
        (("cold", "--set", "warmth=-1"), "--set warmth must be a number >= 0. Got -1 instead."),
        (("cold", "--set", "wamth=1"), "The method 'cold' has no parameter 'wamth'. Did you mean warmth?"),
        (("broken",), "The method 'broken' of the package cold cannot be loaded from 'nowhere:Nothing'"),
    ):
        refused = run(*given, *arguments)
        assert refused.exit_code == 1 and message in refused.stderr, refused.stderr
        assert not (tmp_path / "out").exists()


def _config(folder: Path) -> Any:
    import yaml

    return yaml.safe_load((folder / "config.yaml").read_text())
