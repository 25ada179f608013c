"""A small few-shot problem: image features of four classes, and the same as pictures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from coopt.backbones import Backbone
from coopt.training import loop

NAMES = ["forest_road", "cat", "o'clock", "3d printer"]

ONE_STEP = {"optimizer": "sgd", "warmup_lr": 0.1, "weight_decay": 0.0, "batch_size": 24, "epochs": 1}
"""A single step of plain gradient descent, by 0.1 times the gradient."""


@pytest.fixture(scope="session")
def features(backbone: Backbone) -> np.ndarray:
    """(24, D): six noisy copies of each of four centres, classes in turn."""
    random = np.random.default_rng(0)
    centres = random.normal(size=(4, backbone.embed_dim))
    noise = random.normal(size=(24, backbone.embed_dim))
    return (np.tile(centres, (6, 1)) + 0.3 * noise).astype(np.float32)


@pytest.fixture(scope="session")
def uneven(backbone: Backbone) -> tuple[np.ndarray, np.ndarray]:
    """(31, D) and (31,): 20, 1, 7 and 3 images of the four classes, in mixed order."""
    random = np.random.default_rng(4)
    which = random.permutation(np.repeat(np.arange(4), (20, 1, 7, 3)))
    centres = random.normal(size=(4, backbone.embed_dim))
    noise = random.normal(size=(31, backbone.embed_dim))
    return (centres[which] + 0.5 * noise).astype(np.float32), np.array(NAMES)[which]


@pytest.fixture(scope="session")
def pixels() -> np.ndarray:
    """(24, 3, 32, 32): the same as preprocessed images, for methods that have image features of their own."""
    random = np.random.default_rng(2)
    centres = np.kron(random.normal(size=(4, 3, 4, 4)), np.ones((8, 8)))
    return (np.tile(centres, (6, 1, 1, 1)) + 0.1 * random.normal(size=(24, 3, 32, 32))).astype(np.float32)


@pytest.fixture(scope="session")
def labels() -> np.ndarray:
    return np.array(NAMES * 6)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Path], list[str]]:
    """Twelve images of three colours, as files, with their labels."""
    folder = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(1)
    paths, labels = [], []
    for i in range(12):
        pixels = random.integers(0, 60, (40, 36, 3), dtype=np.uint8)
        pixels[..., i % 3] += 180
        paths.append(folder / f"{i}.png")
        Image.fromarray(pixels).save(paths[-1])
        labels.append(("red", "green", "blue")[i % 3])
    return paths, labels


def stopped_at_epoch(epoch: int, fit: Callable[[], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs what learns, and stops it as Ctrl-C would at this epoch, counted from 0."""
    original = loop._epoch

    def stop(*args: Any) -> float:
        if args[-1] == epoch:
            raise KeyboardInterrupt
        return original(*args)

    monkeypatch.setattr(loop, "_epoch", stop)
    with pytest.raises(KeyboardInterrupt):
        fit()
    monkeypatch.setattr(loop, "_epoch", original)


@pytest.fixture(autouse=True)
def _few_threads() -> None:
    torch.set_num_threads(1)
