from __future__ import annotations

import socket
from pathlib import Path

import pytest

from coopt.backbones.sources import openclip_names, openclip_suggestions
from coopt.backbones.sources.openclip_models import model_configs

from .small_models import CLIP, CUSTOM


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """No backbone may ask the network unless it was told to: here any attempt fails the test at once."""

    def refuse(*_: object) -> None:
        pytest.fail("a test tried to use the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """open_clip's tables with two small models in them, one of which has published weights."""
    tags = {
        "quick": {"hf_hub": "org/small/", "quick_gelu": True, "interpolation": "bilinear", "mean": (0.5, 0.5, 0.5)},
        "file_on_hub": {"hf_hub": "org/other/weights.bin"},
        "plain_address": {"url": "https://example.org/small-1234.pt"},
        "e16_v2": {"hf_hub": "org/small/"},
    }
    configs = {"small": CLIP, "small-custom": CUSTOM, "ViT-B-16": model_configs()["ViT-B-16"]}
    for module in (openclip_names, openclip_suggestions):
        monkeypatch.setattr(module, "model_configs", lambda: configs)
        monkeypatch.setattr(module, "weight_tags", lambda: {"small": tags})


@pytest.fixture
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An empty Hugging Face cache, and a home folder without weights."""
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path / "hub"
