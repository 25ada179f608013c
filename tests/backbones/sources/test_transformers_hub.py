"""Models of the Hugging Face hub in the format of the package transformers: in the cache, and fetched."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

from coopt.backbones import load_backbone, local_backbones
from coopt.backbones.names import check_backbone_name
from coopt.backbones.sources.transformers_loading import load_transformers
from coopt.errors import BackboneError, UnsupportedBackboneError, WeightsNotFoundError
from tests.backbones.small_models import put_in_cache

from .small_transformers import made
from .test_openclip_download import Network, RemoteEntryNotFoundError
from .test_transformers_files import _parts, message_of

pytest.importorskip("transformers")
SAVE = pytest.importorskip("safetensors.torch").save_file


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("original") / "model"
    return folder, made("chinese_clip", folder)


def put(cache: Path, repo: str, folder: Path) -> Path:
    """A folder as a repository in the cache."""
    root = cache / f"models--{repo.replace('/', '--')}"
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text("abc")
    return Path(shutil.copytree(folder, root / "snapshots" / "abc"))


def test_a_model_of_the_cache(cache: Path, original: tuple[Path, Any]) -> None:
    put(cache, "org/mine", original[0])
    backbone = load_backbone("transformers:org/mine")
    assert backbone.name == "transformers:org/mine"
    assert backbone.fingerprint == load_backbone(f"transformers:{original[0]}").fingerprint


def test_what_is_on_this_machine(cache: Path, original: tuple[Path, Any], tmp_path: Path) -> None:
    snapshot = put(cache, "org/mine", original[0])
    made("clip", tmp_path / "clip")
    put(cache, "openai/clip-vit-base-patch16", tmp_path / "clip")
    put(cache, "org/cut", original[0]).joinpath("model.safetensors").unlink()
    (put(cache, "org/other", original[0]) / "config.json").write_text('{"model_type": "bert"}')
    first, second = (row for row in local_backbones() if row.name.startswith("transformers:"))
    assert first.name == "transformers:openai/clip-vit-base-patch16" and first.imagenet == 68.3
    assert (second.name, second.imagenet) == ("transformers:org/mine", None)
    assert second.path == snapshot / "model.safetensors" and second.bytes == second.path.stat().st_size


def test_the_bytes_of_all_parts_are_counted(cache: Path, original: tuple[Path, Any]) -> None:
    snapshot = put(cache, "org/mine", original[0])
    whole = (snapshot / "model.safetensors").stat().st_size
    (snapshot / "model.safetensors").unlink()
    _parts(SAVE, ("model", "safetensors"))(original[1], snapshot)  # type: ignore[arg-type]
    (row,) = local_backbones()
    assert row.path == snapshot and abs(row.bytes - whole) < 10_000


def test_what_is_on_this_machine_is_listed_without_torch(cache: Path, original: tuple[Path, Any]) -> None:
    put(cache, "org/mine", original[0])
    program = (
        "import sys; from coopt.backbones import local_backbones; assert local_backbones();"
        "sys.exit(3 * bool({'torch', 'transformers', 'open_clip', 'numpy'} & set(sys.modules)))"
    )
    environment = {"HF_HUB_CACHE": str(cache), "PYTHONPATH": ":".join(sys.path), "HOME": str(cache)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_names_that_mean_such_a_model(cache: Path, original: tuple[Path, Any]) -> None:
    put(cache, "org/mine", original[0])
    assert "There is no backbone 'org/mine'. Did you mean 'transformers:org/mine'?" in message_of("org/mine")
    assert "Did you mean 'transformers:org/mine'?" in message_of("transformer:org/mine")
    said = message_of("openclip:hf-hub:org/mine")
    assert "hf-hub:org/mine is in the format of the package transformers: write 'transformers:org/mine'." in said


def test_a_repository_in_open_clips_layout(cache: Path) -> None:
    put_in_cache(cache, "org/mine", "open_clip_config.json").write_text("{}")
    assert "In open_clip's layout it is there: write 'openclip:hf-hub:org/mine'." in message_of("transformers:org/mine")


# ---- fetching


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch, cache: Path, original: tuple[Path, Any], tmp_path: Path) -> Network:
    """A hub on which org/mine is the folder `tmp_path / "hub folder"`."""
    net, folder = Network(), Path(shutil.copytree(original[0], tmp_path / "hub folder"))

    def from_hub(repo: str, file: str, cache_dir: Path) -> str:
        net.fetched.append((repo, file))
        if not (folder / file).is_file():
            raise RemoteEntryNotFoundError("404 Client Error\nand more")
        root = cache_dir / f"models--{repo.replace('/', '--')}"
        (root / "refs").mkdir(parents=True, exist_ok=True)
        (root / "refs" / "main").write_text("abc")
        target = root / "snapshots" / "abc" / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / file, target)
        return str(target)

    monkeypatch.setattr(urllib.request, "urlopen", net.open)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_hub)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy", "HTTP_PROXY", "http_proxy"):
        monkeypatch.delenv(name, raising=False)
    return net


def test_a_model_is_fetched_only_when_asked_for(network: Network, original: tuple[Path, Any], tmp_path: Path) -> None:
    (tmp_path / "hub folder" / "pytorch_model.bin").write_text("which is not needed")
    with pytest.raises(WeightsNotFoundError, match="not on this machine"):
        load_transformers("org/mine")
    assert not network.asked and not network.fetched
    backbone = load_transformers("org/mine", download=True)
    assert backbone.fingerprint == load_transformers(str(original[0])).fingerprint
    assert network.asked == ["HEAD https://huggingface.co/org/mine/resolve/main/config.json"]
    files = [file for _, file in network.fetched]
    assert files[:2] == ["config.json", "preprocessor_config.json"] and files[-1] == "model.safetensors"
    assert "vocab.txt" in files and "pytorch_model.bin" not in files
    load_transformers("org/mine", download=True)
    assert len(network.asked) == 1


def test_weights_in_parts_are_fetched(network: Network, original: tuple[Path, Any], tmp_path: Path) -> None:
    folder = tmp_path / "hub folder"
    (folder / "model.safetensors").unlink()
    _parts(SAVE, ("model", "safetensors"))(original[1], folder)  # type: ignore[arg-type]
    expected = load_transformers(str(original[0])).fingerprint
    assert load_transformers("org/mine", download=True).fingerprint == expected


def test_what_is_missing_in_the_cache_is_fetched(cache: Path, network: Network, original: tuple[Path, Any]) -> None:
    snapshot = put(cache, "org/mine", original[0])
    (snapshot / "vocab.txt").unlink()
    with pytest.raises(WeightsNotFoundError, match=r"has no tokenizer.*To fetch it once with the network"):
        load_transformers("org/mine")
    load_transformers("org/mine", download=True)


def test_other_kinds_are_refused_before_anything_large_is_fetched(network: Network, tmp_path: Path) -> None:
    (tmp_path / "hub folder" / "config.json").write_text('{"model_type": "blip"}')
    with pytest.raises(UnsupportedBackboneError, match="a model of the type 'blip', which coopt does not read"):
        load_transformers("org/mine", download=True)
    assert network.fetched == [("org/mine", "config.json")]
    (tmp_path / "hub folder" / "config.json").unlink()
    with pytest.raises(
        BackboneError, match=r"org/second of the Hugging Face hub has no config.json: it is no whole model"
    ):
        load_transformers("org/second", download=True)


def test_no_network_is_said_at_once(network: Network, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    network.error["https://"] = urllib.error.URLError(socket.gaierror(-3, "Temporary failure"))
    check_backbone_name("transformers:org/mine", download=True)
    with pytest.raises(BackboneError) as caught:
        load_transformers("org/mine", download=True)
    said = str(caught.value)
    assert said.startswith(
        "The model transformers:org/mine could not be fetched: huggingface.co cannot be reached (its"
    )
    assert f"into the folder {cache}/models--org--mine/snapshots/main." in said and "\n" not in said
    assert len(network.asked) == 1 and not network.fetched
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(BackboneError, match="HF_HUB_OFFLINE is set; unset it to use the network. By hand: fetch https"):
        load_transformers("org/mine", download=True)
