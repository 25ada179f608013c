"""Our own build of CLIP's architecture is open_clip's: names, order, bits."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from coopt.backbones.clip_model import architecture_of
from coopt.backbones.clip_towers import Clip, fitting_model, is_plain
from coopt.backbones.sources.openclip_loading import build_model
from coopt.backbones.sources.openclip_models import model_configs
from tests.backbones.small_models import RESNET, configuration, scramble, small_model

PLAIN = [name for name, config in model_configs().items() if is_plain(config)]


def test_the_models_that_most_people_have_are_plain() -> None:
    assert {"ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-H-14", "RN50", "RN101", "ViT-B-32-quickgelu"} <= set(PLAIN)
    assert not {"ViT-B-16-SigLIP", "coca_ViT-B-32", "EVA02-B-16", "MobileCLIP-B", "ViT-bigG-14-worldwide"} & set(PLAIN)


@pytest.mark.parametrize("name", PLAIN)
def test_every_plain_configuration_has_open_clips_parts(name: str) -> None:
    config = copy.deepcopy(model_configs()[name])
    with torch.device("meta"):
        theirs: Any = build_model(config)
        ours = Clip(config, bool(config.get("quick_gelu")))
    assert {key: value.shape for key, value in ours.state_dict().items()} == {
        key: value.shape for key, value in theirs.state_dict().items()
    }
    assert list(ours.state_dict()) == list(theirs.state_dict())
    assert architecture_of(ours, "argmax", True) == architecture_of(theirs, "argmax", True)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"vision_cfg": {"head_width": 32}, "text_cfg": {"heads": 2, "mlp_ratio": 3.0}},
        {"vision_cfg": {"image_size": [32, 48], "mlp_ratio": 2.0}},
        {"vision_cfg": dict(RESNET)},
    ],
)
@pytest.mark.parametrize("quick_gelu", [False, True])
def test_features_are_open_clips_bit_for_bit(changes: dict, quick_gelu: bool) -> None:
    config = configuration(**changes)
    if "layers" in changes.get("vision_cfg", {}):
        config["vision_cfg"] = changes["vision_cfg"]
    torch.manual_seed(0)
    theirs = scramble(build_model(config, quick_gelu=quick_gelu).eval().requires_grad_(False))
    ours = fitting_model(config, theirs.state_dict(), quick_gelu)
    assert ours is not None
    ours.eval().requires_grad_(False)
    height, width = (32, 48) if changes.get("vision_cfg", {}).get("image_size") else (32, 32)
    pixels = torch.randn(3, 3, height, width)
    ids = torch.randint(1, 49406, (3, 77))
    ids[:, 40] = 49407
    with torch.no_grad():
        assert torch.equal(ours.visual(pixels), theirs.visual(pixels))
        assert torch.equal(ours.encode_text(ids), theirs.encode_text(ids))
    # And with gradients, where torch takes another way through attention.
    assert torch.equal(ours.visual(pixels.requires_grad_()), theirs.visual(pixels.requires_grad_()))
    assert torch.equal(ours.logit_scale, theirs.logit_scale)


def test_weights_are_copies_that_no_file_backs() -> None:
    theirs = small_model()
    ours = fitting_model(configuration(), theirs.state_dict(), False)
    assert ours is not None
    theirs.state_dict()["visual.proj"].zero_()
    assert ours.visual.get_parameter("proj").abs().sum() > 0


@pytest.mark.parametrize(
    "change", [{"visual.proj": None}, {"extra": torch.zeros(1)}, {"visual.proj": torch.zeros(64, 31)}]
)
def test_other_weights_are_left_to_open_clip(change: dict) -> None:
    state = dict(small_model().state_dict()) | change
    assert fitting_model(configuration(), {k: v for k, v in state.items() if v is not None}, False) is None


def test_half_precision_and_a_vector_of_one_as_logit_scale() -> None:
    state = {name: value.half() for name, value in small_model().state_dict().items()}
    state["logit_scale"] = state["logit_scale"].reshape(1)
    found = fitting_model(configuration(), state, False)
    assert found is not None
    assert found.logit_scale.shape == () and {value.dtype for value in found.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("source", ["bundled", "openai"])
def test_loading_imports_nothing_slow(tmp_path: Path, source: str) -> None:
    """Neither open_clip nor torch's compiler: each takes longer than the rest together."""
    name = "bundled"
    if source == "openai":
        torch.save(small_model(quick_gelu=True).state_dict(), tmp_path / "vit.pt")
        name = f"openai:{tmp_path / 'vit.pt'}"
    code = (
        "import sys, torch; from coopt.backbones import load_backbone\n"
        "before = set(sys.modules); backbone = load_backbone(sys.argv[1])\n"
        "backbone.encode_image(torch.zeros(1, 3, *backbone.preprocessing.size))\n"
        "slow = 'open_clip', 'torchvision', 'timm', 'sympy', 'torch._dynamo', 'transformers', 'sklearn', 'scipy'\n"
        "print([name for name in slow if name in sys.modules and name not in before])"
    )
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
