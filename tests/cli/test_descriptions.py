"""Texts about classes from a file: `--descriptions`."""

from __future__ import annotations

import json
from pathlib import Path

from .conftest import run, run_json


def test_on_the_command_line(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    file = tmp_path / "texts.json"
    file.write_text(
        json.dumps({"red car": ["A red vehicle."], "green leaf": ["foliage"], "blue sky": ["The heavens."]})
    )
    common = ("--backbone", clip, "--descriptions", file)
    measured = run_json("zero-shot", photos, "--split", "all", *common, "--out", tmp_path / "written")
    assert run_json("eval", tmp_path / "written", photos, "--split", "all")["accuracy"] == measured["accuracy"]
    saved = json.loads((tmp_path / "written" / "prompt.json").read_text())["parameters"]["descriptions"]
    assert saved == {"red car": ["A red vehicle."], "green_leaf": ["foliage"], "blue sky": ["The heavens."]}
    out = tmp_path / "out"
    document = run_json("fit", photos, *common, "--config", short, "--out", out)
    saved = json.loads((out / "prompt.json").read_text())["parameters"]["descriptions"]
    assert saved["green_leaf"] == ["foliage"]
    assert run_json("eval", out, photos)["accuracy"] == document["metrics"]["learned"]["accuracy"]
    again = run_json("fit", "--config", out / "config.yaml", "--overwrite")
    assert again["metrics"] == document["metrics"]
    refused = run("fit", photos, *common, "--method", "linear_probe", "--out", tmp_path / "probe")
    assert refused.exit_code == 1 and "The method 'linear_probe' has no --descriptions" in refused.stderr
