"""A pickled backbone names itself; other weights under its name are refused."""

from __future__ import annotations

import gc
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from coopt.backbones import Backbone, load_backbone
from coopt.backbones.pickled import PickledBackbone
from coopt.errors import BackboneMismatchError, WeightsNotFoundError
from tests.models import small_open_clip

from .small_models import save_folder, small_model

IN_ANOTHER_PROCESS = """
import pickle, sys
backbone = pickle.load(open(sys.argv[1], "rb"))
print(backbone.name, backbone.fingerprint, backbone.preprocessing.value_range, backbone.load_again is None)
"""


def in_another_process(content: bytes, folder: Path) -> list[str]:
    (folder / "pickle").write_bytes(content)
    command = [sys.executable, "-c", IN_ANOTHER_PROCESS, str(folder / "pickle")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.split(" ")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return save_folder(small_model(), tmp_path / "model")


def test_a_pickle_names_the_backbone_and_another_process_loads_it(folder: Path, tmp_path: Path) -> None:
    backbone = load_backbone(f"openclip:local-dir:{folder}", value_range=(0, 4095))
    content = pickle.dumps(backbone)
    assert len(content) < 2000
    said = in_another_process(content, tmp_path)
    assert said[:2] == [backbone.name, backbone.fingerprint] and "".join(said[2:]) == "(0,4095)False\n"


def test_the_process_that_holds_it_is_given_that_one(backbone: Backbone) -> None:
    for one in (load_backbone("bundled"), load_backbone("bundled", value_range=(0, 4095)), backbone):
        assert pickle.loads(pickle.dumps(one)) is one


def test_one_that_no_name_loads_is_pickled_whole(tmp_path: Path) -> None:
    backbone = small_open_clip()
    content, fingerprint = pickle.dumps(backbone), backbone.fingerprint
    said = in_another_process(content, tmp_path)
    assert said == [backbone.name, fingerprint, "None", "True\n"]
    pixels = torch.randn(1, 3, 32, 32)
    expected = backbone.encode_image(pixels)
    del backbone
    gc.collect()
    assert torch.equal(pickle.loads(content).encode_image(pixels), expected)


def test_a_changed_image_tower_is_pickled(tmp_path: Path) -> None:
    bundled = load_backbone("bundled")
    tower = bundled.image_tower()
    with torch.no_grad():
        next(tower.parameters()).add_(1.0)
    changed = bundled.with_image_tower(tower)
    assert pickle.loads(pickle.dumps(changed)).fingerprint == changed.fingerprint != bundled.fingerprint
    assert in_another_process(pickle.dumps(changed), tmp_path)[1] == changed.fingerprint


def test_weights_that_are_gone_or_others_are_refused(folder: Path) -> None:
    name = f"openclip:local-dir:{folder}"
    backbone = load_backbone(name)
    pickled = PickledBackbone.of(backbone, *backbone._made_by())
    elsewhere = PickledBackbone(name, "0" * 64, pickled.preprocessing, pickled.device, pickled.load, None)
    with pytest.raises(
        BackboneMismatchError, match=r"with fingerprint 000000000000, but .* has fingerprint .*other weights"
    ):
        elsewhere.backbone()
    gone = PickledBackbone(
        "openai:gone.pt", "0" * 64, pickled.preprocessing, "cpu", lambda: load_backbone("openai:gone.pt"), None
    )
    with pytest.raises(
        WeightsNotFoundError, match=r"The pickle names the backbone 'openai:gone.pt', which cannot be loaded"
    ):
        gone.backbone()
