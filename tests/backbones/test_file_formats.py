"""Files and folders that are no weights are said to be what they are."""

from __future__ import annotations

import gzip
import json
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from coopt.backbones import check_backbone_name, load_backbone
from coopt.errors import BackboneError

from .small_models import CLIP


def message_of(name: str) -> str:
    with pytest.raises(BackboneError) as caught:
        load_backbone(name, device="cpu")
    return str(caught.value)


def write(path: Path, kind: str) -> Path:
    """A file of some kind under a weights file's name."""
    if kind == "git-lfs pointer":
        path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 353976522\n")
    elif kind == "web page":
        path.write_text("\n <!DOCTYPE html><html><body>Sign in</body></html>")
    elif kind == "XML":
        path.write_text("<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>")
    elif kind == "JSON":
        path.write_text('{"error": "Repository not found"}')
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "gzip":
        path.write_bytes(gzip.compress(b"weights"))
    elif kind == "tar":
        with tarfile.open(path, "w") as archive:
            archive.add(__file__, "weights")
    elif kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("ViT-B-32.pt", b"")
    elif kind == "NumPy":
        with path.open("wb") as file:
            np.save(file, np.ones(3))
    elif kind == "text":
        path.write_text("hello")
    return path


KINDS = {
    "git-lfs pointer": "is a pointer of git-lfs and not the file itself. Run `git lfs install` and `git lfs pull`",
    "web page": "is a web page. Fetch the file from its own address.",
    "XML": "is a web page.",
    "JSON": "is text (JSON). Name the file with the weights.",
    "empty": "is empty. Delete it and fetch or save it again.",
    "gzip": "is a compressed archive. Unpack it first.",
    "tar": "is a tar archive. Unpack it first.",
    "zip": "is a zip file, but not one that torch wrote",
    "NumPy": "is a NumPy array and not weights",
    "text": "is damaged, cut short or not a torch file",
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".bin"])
def test_files_that_are_no_weights(tmp_path: Path, kind: str, suffix: str) -> None:
    path = write(tmp_path / f"weights{suffix}", kind)
    expected = "damaged or cut short" if (kind, suffix) == ("text", ".safetensors") else KINDS[kind]
    for name in (f"openai:{path}", f"openclip:ViT-B-32/{path}"):
        message = message_of(name)
        assert str(path) in message and expected in message
        if kind not in ("zip", "text"):  # that needs more than a look at the beginning
            with pytest.raises(BackboneError) as caught:
                check_backbone_name(name)
            assert str(caught.value) == message


def test_pointers_in_a_model_folder(tmp_path: Path) -> None:
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP}))
    write(tmp_path / "open_clip_model.safetensors", "git-lfs pointer")
    message = message_of(f"openclip:local-dir:{tmp_path}")
    assert "open_clip_model.safetensors is a pointer of git-lfs" in message
    write(tmp_path / "open_clip_config.json", "git-lfs pointer")
    assert "open_clip_config.json is a pointer of git-lfs" in message_of(f"openclip:local-dir:{tmp_path}")


@pytest.mark.parametrize("files", [("model.safetensors",), ("pytorch_model.bin",), ()], ids=str)
def test_folders_in_transformers_format(tmp_path: Path, files: tuple[str, ...]) -> None:
    folder = tmp_path / "clip-vit-large-patch14"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "clip", "text_config": {}, "vision_config": {}}))
    for file in files:
        torch.save({}, folder / file)
    for name in (str(folder), f"openclip:local-dir:{folder}", f"openai:{folder}", f"openclip:{folder}"):
        message = message_of(name)
        assert "in the format of the package transformers (config.json, text_model.*, vision_model.*)" in message
        assert f"write 'transformers:{folder}'." in message
