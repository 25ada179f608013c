"""A small CLIP in a file, small folders of images, a prompt learned once, and `run`: a command in this process."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image

from coopt.backbones import Backbone

Run = Callable[..., Result]

COLOURS = {"red car": (200, 40, 40), "green_leaf": (40, 180, 60), "blue sky": (50, 80, 210)}
# OpenAI's files, and no others, hold these beside their weights.
OPENAI_NUMBERS = {key: torch.tensor(0) for key in ("input_resolution", "context_length", "vocab_size")}
SHORT = "n-ctx: 2\nrecipe: {name: fast, epochs: 8, views: 2, lr: 0.02}\n"


def run(*arguments: Any) -> Result:
    """`coopt ARGUMENTS`; an exception that gets out is a failure of the test."""
    import coopt.cli

    result = CliRunner().invoke(coopt.cli.main, [str(argument) for argument in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def install(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is found from now on; the command line begins anew, as it reads once what there is."""
    monkeypatch.syspath_prepend(site)
    for name in [one for one in sys.modules if one == "coopt.cli" or one.startswith("coopt.cli.")]:
        monkeypatch.delitem(sys.modules, name)


def run_json(*arguments: Any) -> dict[str, Any]:
    """The one document that `coopt ARGUMENTS --json` prints."""
    result = run(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


def save_image(path: Path, colour: tuple[int, int, int], seed: int) -> Path:
    """A picture of one colour with its own pattern."""
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.RandomState(seed).randint(-40, 40, (4, 4, 3))
    blocks = (np.array(colour) + noise).clip(0, 255).astype(np.uint8)
    Image.fromarray(blocks).resize((32, 32), Image.Resampling.NEAREST).save(path)
    return path


def make_photos(root: Path, count: int = 6, seed: int = 0) -> Path:
    """One sub-folder per colour."""
    for c, (name, colour) in enumerate(COLOURS.items()):
        for i in range(count):
            save_image(root / name / f"{i}.png", colour, 1000 * seed + 100 * c + i)
    return root


@pytest.fixture(scope="session")
def clip(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of the golden small CLIP, written as one of OpenAI's files."""
    file = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save({**backbone.model.state_dict(), **OPENAI_NUMBERS}, file)
    return f"openai:{file}"


@pytest.fixture(scope="session")
def other_clip(backbone: Backbone, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same architecture with other weights."""
    file = tmp_path_factory.mktemp("clip") / "other.pt"
    state = {name: tensor.clone() for name, tensor in backbone.model.state_dict().items()}
    state["text_projection"] = state["text_projection"] * 2
    torch.save({**state, **OPENAI_NUMBERS}, file)
    return f"openai:{file}"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return make_photos(tmp_path / "photos")


@pytest.fixture
def short(tmp_path: Path) -> Path:
    """A configuration file for quick fits."""
    file = tmp_path / "short.yaml"
    file.write_text(SHORT)
    return file


@pytest.fixture(scope="session")
def learned(clip: str, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A learned prompt and what it was learned from; not to be changed."""
    folder = tmp_path_factory.mktemp("learned")
    (folder / "short.yaml").write_text(SHORT)
    data, out = make_photos(folder / "photos"), folder / "prompt"
    result = run("fit", data, "--backbone", clip, "--config", folder / "short.yaml", "--out", out, "--no-cache")
    assert result.exit_code == 0, result.stderr
    return out, data
