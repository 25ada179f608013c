"""`coopt fit --memory`: what learning may hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.conftest import run, run_json


def test_memory_decides_nothing_that_is_learned_or_saved(photos: Path, short: Path, clip: str, tmp_path: Path) -> None:
    fit = ("fit", photos, "--backbone", clip, "--config", short, "--no-cache")
    free = run_json(*fit, "--out", tmp_path / "free")
    bound = run_json(*fit, "--out", tmp_path / "bound", "--memory", "1G")
    assert bound["settings"] == free["settings"] and "memory" not in free["settings"]
    for name in ("prompt.json", "prompt.safetensors"):
        assert (tmp_path / "bound" / name).read_bytes() == (tmp_path / "free" / name).read_bytes()


@pytest.mark.parametrize(
    ("memory", "message"),
    [("much", "must be 'auto', a number of bytes, or a text such as '4G'"), ("50K", "must be at least")],
)
def test_too_little_or_no_memory_is_refused(
    memory: str, message: str, photos: Path, short: Path, clip: str, tmp_path: Path
) -> None:
    result = run("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out", "--memory", memory)
    assert result.exit_code == 1 and message in result.stderr


def test_a_large_step_is_announced(
    photos: Path, short: Path, clip: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopt.app.fitting.LARGE", 1000)
    result = run("fit", photos, "--backbone", clip, "--config", short, "--out", tmp_path / "out")
    assert "A training step holds up to " in result.stdout and "--memory SIZE lowers that" in result.stdout
