"""The README's commands and lines of Python do what it says."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from coopt.cli import main

README = (Path(__file__).parents[1] / "README.md").read_text()
ROOT = Path(__file__).parents[1]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of photos/CLASS/*.jpg, a folder new/ with images to classify, and new.jpg; the current folder."""
    random = np.random.default_rng(0)
    for name in ("red car", "blue car"):
        for i in range(6):
            pixels = random.integers(0, 90, (48, 48, 3), dtype=np.uint8)
            pixels[..., 0 if name == "red car" else 2] += 150
            for file in (tmp_path / "photos" / name / f"{i}.jpg", tmp_path / "new" / f"{name} {i}.jpg"):
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(pixels).save(file)
    Image.fromarray(pixels).save(tmp_path / "new.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_own_images_on_the_command_line(photos: Path) -> None:
    printed = []
    for line in next(block for block in blocks("console") if "my-prompt" in block).strip().splitlines():
        result = CliRunner().invoke(main, shlex.split(line, comments=True)[1:])
        assert result.exit_code == 0, result.output
        printed.append(result.output)
    assert printed[1].count("new/") == 12
    assert len(list(Path("sorted").rglob("*.jpg"))) == 12 and Path("sorted.html").exists()
    assert Path("mistakes", "confusion.png").exists()
    size = sum(file.stat().st_size for file in Path("my-prompt").glob("prompt.*"))
    assert size < 20_000


def test_own_images_in_python(photos: Path) -> None:
    paths = sorted(Path("photos").rglob("*.jpg"))
    scope = {"images": paths, "labels": [path.parent.name for path in paths]}
    exec(blocks("python")[0], scope)
    assert scope["model"].class_names_ == ("cat", "dog", "axolotl")  # type: ignore[attr-defined]


def test_every_command_is_there() -> None:
    named = set(re.findall(r"`coopt ([a-z-]+)", README))
    result = CliRunner().invoke(main, ["--help"])
    assert named and all(f"  {name} " in result.output for name in named)
    assert "demo" in result.output


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)]+)\)", README):
        assert (ROOT / target).exists(), target


def test_scripts_are_there() -> None:
    for line in re.findall(r"^python (\S+)", README, re.MULTILINE):
        assert (ROOT / line).is_file()
