"""A backbone small enough to check by hand, and image files of every kind."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.protocol import Backbone, ScoreHead

GOLDEN = Path(__file__).parent.parent / "golden"


class TinyBackbone(Backbone):
    """Features are a fixed linear map of a 2x2 mean of the pixels. Counts what it encodes."""

    def __init__(self, fingerprint: str = "f" * 64, dim: int = 6) -> None:
        self.name = "tiny"
        self.fingerprint = fingerprint
        self.device = torch.device("cpu")
        self.embed_dim = dim
        self.score_head = ScoreHead(100.0)
        self.preprocessing = Preprocessing(size=(16, 16))
        self.weights = torch.randn(12, dim, generator=torch.Generator().manual_seed(0))
        self.batches: list[int] = []

    def encode_image(self, pixels: torch.Tensor) -> torch.Tensor:
        self.batches.append(len(pixels))
        means = torch.nn.functional.adaptive_avg_pool2d(pixels, 2)
        return means.flatten(1) @ self.weights

    @property
    def encoded(self) -> int:
        return sum(self.batches)

    def alone(self, image: Image.Image) -> torch.Tensor:
        """The feature of one image, made without any of the code under test."""
        return self.encode_image(self.preprocessing.test(image)[None])[0]


@pytest.fixture
def backbone() -> TinyBackbone:
    return TinyBackbone()


def picture(seed: int = 0, size: tuple[int, int] = (24, 20), mode: str = "RGB") -> Image.Image:
    """A picture with structure (random blocks), different for each seed."""
    rng = np.random.RandomState(seed)
    blocks = Image.fromarray(rng.randint(0, 256, (4, 4, 3), dtype=np.uint8))
    return blocks.resize(size, Image.Resampling.BICUBIC).convert(mode)


def save_picture(path: Path, seed: int = 0, **options: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture(seed).save(path, **options)
    return path


def make_folder(root: Path, classes: dict[str, int], seed: int = 0) -> Path:
    """A folder of class folders; every image differs from all others."""
    rng = random.Random(f"{root.name} {seed}")
    for name, count in classes.items():
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            save_picture(root / name / f"{i:03}.png", rng.randrange(2**31))
    return root
