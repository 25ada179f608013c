"""Fetching, with the network replaced: what is said when there is none, and what is left behind."""

from __future__ import annotations

import json
import logging
import re
import socket
import urllib.error
import urllib.request
from email.message import Message
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from coopt.backbones.sources.openclip_loading import load_openclip
from coopt.errors import BackboneError
from tests.backbones.small_models import CLIP, put_in_cache, small_model

from .test_openai_archive import assert_same_model

OPENAI = "https://openaipublic.azureedge.net/clip/models"


class RemoteEntryNotFoundError(Exception):
    """Named as the one of huggingface_hub, which goes by another name in other versions."""


class Network:
    """Stands for the network: answers, or the error of every question; remembers what was asked for."""

    def __init__(self) -> None:
        self.error: dict[str, Exception] = {}
        self.asked: list[str] = []
        self.fetched: list[tuple[str, str]] = []
        self.on_hub: dict[str, Any] = {}

    def open(self, request: urllib.request.Request, timeout: float) -> Any:
        self.asked.append(f"{request.get_method()} {request.full_url}")
        for part, error in self.error.items():
            if part in request.full_url:
                raise error
        return open(__file__, "rb")  # noqa: PTH123 (anything that can be closed)


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, cache: Path) -> Network:
    net = Network()

    def from_hub(repo: str, file: str, cache_dir: Path) -> str:
        net.fetched.append((repo, file))
        if file not in net.on_hub:
            raise RemoteEntryNotFoundError("404 Client Error\nand more")
        if isinstance(net.on_hub[file], Exception):
            raise net.on_hub[file]
        path = put_in_cache(cache_dir, repo, file)
        net.on_hub[file](path)
        return str(path)

    monkeypatch.setattr(urllib.request, "urlopen", net.open)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    return net


def message_of(name: str) -> str:
    with pytest.raises(BackboneError) as caught:
        load_openclip(name.removeprefix("openclip:"), download=True)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_are_fetched_only_when_asked_for(small: None, network: Network) -> None:
    with pytest.raises(BackboneError, match="not on this machine"):
        load_openclip("small/quick")
    assert not network.asked and not network.fetched
    model = small_model(quick_gelu=True)
    network.on_hub["open_clip_pytorch_model.bin"] = lambda path: torch.save(model.state_dict(), path)
    assert_same_model(load_openclip("small/quick", download=True), model)
    assert network.asked == ["HEAD https://huggingface.co/org/small/resolve/main/open_clip_model.safetensors"]
    assert [file for _, file in network.fetched][-1] == "open_clip_pytorch_model.bin" and len(network.fetched) == 3


def test_hub_models_are_fetched(network: Network) -> None:
    model = small_model(seed=5)
    network.on_hub["open_clip_config.json"] = lambda path: path.write_text(json.dumps({"model_cfg": CLIP}))
    network.on_hub["open_clip_model.safetensors"] = lambda path: save_file(model.state_dict(), path)
    assert_same_model(load_openclip("hf-hub:org/mine", download=True), model)
    assert network.fetched == [("org/mine", "open_clip_config.json"), ("org/mine", "open_clip_model.safetensors")]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (urllib.error.URLError(socket.gaierror(-3, "Temporary failure")), "its name was not found: no network, or no"),
        (urllib.error.URLError(ConnectionRefusedError(111, "Connection refused")), "the connection was refused"),
        (urllib.error.URLError(TimeoutError()), "there was no answer within 6 seconds"),
        (TimeoutError("timed out"), "there was no answer within 6 seconds"),
        (
            urllib.error.URLError(OSError("Tunnel connection failed: 403 Forbidden")),
            "the proxy refused: Tunnel connection failed: 403 Forbidden",
        ),
        (urllib.error.URLError(OSError(101, "Network is unreachable")), r"[Errno 101] Network is unreachable"),
        (urllib.error.HTTPError("https://x", 407, "Login", Message(), None), "the proxy asks for a login"),
    ],
    ids=str,
)
def test_no_network_is_said_at_once(network: Network, cache: Path, error: Exception, words: str) -> None:
    network.error["https://"] = error
    message = message_of("openclip:ViT-B-16/laion2b_s34b_b88k")
    snapshot = cache / "models--laion--CLIP-ViT-B-16-laion2B-s34B-b88K" / "snapshots" / "main"
    assert message.startswith(
        "The weights of openclip:ViT-B-16/laion2b_s34b_b88k could not be fetched: huggingface.co cannot be reached ("
    )
    assert words in message and message.endswith(
        "By hand: fetch https://huggingface.co/laion/CLIP-ViT-B-16-laion2B-s34B-b88K/resolve/main/"
        f"open_clip_model.safetensors into the folder {snapshot}."
    )
    assert len(network.asked) == 1 and not network.fetched


def test_a_file_put_there_by_hand_is_found(small: None, network: Network, cache: Path) -> None:
    network.error["https://"] = urllib.error.URLError(socket.gaierror(-3, "Temporary failure"))
    snapshot = Path(message_of("openclip:small/quick").rpartition("into the folder ")[2].removesuffix("."))
    snapshot.mkdir(parents=True)
    model = small_model(quick_gelu=True, seed=3)
    save_file(model.state_dict(), snapshot / "open_clip_model.safetensors")
    assert_same_model(load_openclip("small/quick"), model)


def test_where_openais_own_files_belong(network: Network, tmp_path: Path) -> None:
    network.error["https://"] = urllib.error.URLError(ConnectionRefusedError())
    message = message_of("openclip:ViT-B-16/openai")
    assert "huggingface.co cannot be reached (the connection was refused); openaipublic.azureedge.net" in message
    expected = rf"By hand: fetch {OPENAI}/\w+/ViT-B-16.pt and put it at {tmp_path}/home/.cache/clip/ViT-B-16.pt\.$"
    assert re.search(expected, message)


def test_offline_by_setting(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE is set; unset it to use the network. By hand: fetch" in message_of("openclip:RN50/openai")
    assert not network.asked


def test_another_endpoint(small: None, network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "https://mirror.example.org")
    network.error["https://"] = urllib.error.URLError(ConnectionRefusedError())
    assert "mirror.example.org cannot be reached" in message_of("openclip:small/quick")
    assert network.asked == ["HEAD https://mirror.example.org/org/small/resolve/main/open_clip_model.safetensors"]


def test_repositories_of_another_kind(network: Network) -> None:
    message = message_of("openclip:hf-hub:org/mine")
    assert message.startswith("The repository org/mine of the Hugging Face hub has no open_clip_config.json: it is no")
    network.on_hub["open_clip_config.json"] = OSError("401 Client Error. Access to model org/mine is restricted.")
    assert "could not be fetched: 401 Client Error. Access to model" in message_of("openclip:hf-hub:org/mine")
    same = "The same weights are 'openclip:ViT-B-32/openai'."
    assert same in message_of("openclip:hf-hub:openai/clip-vit-base-patch32")


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_any_answer_means_that_there_is_a_network(small: None, network: Network, status: int) -> None:
    network.error["https://"] = urllib.error.HTTPError("https://x", status, "", Message(), None)
    assert "The repository org/small of the Hugging Face hub has no open_clip_model" in message_of(
        "openclip:small/quick"
    )
    assert len(network.fetched) == 3


def test_the_plain_address_where_the_hub_is_blocked(
    network: Network, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And a download that breaks off leaves nothing behind."""
    import open_clip.pretrained

    network.error["huggingface.co"] = urllib.error.URLError(ConnectionRefusedError())

    def broken(url: str, cache_dir: str) -> str:
        (Path(cache_dir) / "ViT-B-16.pt").write_bytes(b"half")
        raise OSError("Connection reset by peer")

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_url", broken)
    assert "the connection was refused); Connection reset by peer. By hand" in message_of("openclip:ViT-B-16/openai")
    clip = tmp_path / "home" / ".cache" / "clip"
    assert list(clip.iterdir()) == []

    def whole(url: str, cache_dir: str) -> str:
        path = Path(cache_dir) / "ViT-B-16.pt"
        path.write_bytes(b"not quite weights")
        return str(path)

    monkeypatch.setattr(open_clip.pretrained, "download_pretrained_from_url", whole)
    assert "ViT-B-16.pt is damaged" in message_of("openclip:ViT-B-16/openai")
    assert [path.name for path in clip.iterdir()] == ["ViT-B-16.pt"]


def test_the_library_does_not_log_its_attempts(small: None, network: Network, caplog: pytest.LogCaptureFixture) -> None:
    logger = logging.getLogger("huggingface_hub.utils._http")

    def fail(path: Path) -> None:
        logger.warning("Retrying in 1s [Retry 1/5].")
        raise OSError("No space left on device")

    network.on_hub["open_clip_model.safetensors"] = fail
    assert "No space left on device" in message_of("openclip:small/quick")
    assert not caplog.records
    logger.warning("heard again")
    assert [record.message for record in caplog.records] == ["heard again"]
