"""What is wrong with a backbone's name is said before anything is loaded."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from coopt.backbones import check_backbone_name, load_backbone
from coopt.errors import BackboneError, ParameterError, UnsupportedBackboneError, WeightsNotFoundError
from coopt.wording import spoken

from .small_models import CLIP, put_in_cache, save_folder, small_model


def message_of(name: str, download: bool = False) -> str:
    """What is said about a name; the same by the check and by loading."""
    with pytest.raises(BackboneError) as checked:
        check_backbone_name(name, download)
    with pytest.raises(BackboneError) as loaded:
        load_backbone(name, device="cpu", download=download)
    assert (str(checked.value), type(checked.value)) == (str(loaded.value), type(loaded.value))
    return str(checked.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("ViT-B/16", "openclip:ViT-B-16/openai"),
        ("ViT-B-16", "openclip:ViT-B-16/openai"),
        ("vit_b_16", "openclip:ViT-B-16/openai"),
        ("ViT-B-16/openai", "openclip:ViT-B-16/openai"),
        ("ViT-L/14@336px", "openclip:ViT-L-14-336/openai"),
        ("ViT-H-14", "openclip:ViT-H-14/laion2b_s32b_b79k"),
        ("RN50", "openclip:RN50/openai"),
        ("clip:ViT-B/16", "openclip:ViT-B-16/openai"),
        ("openclpi:ViT-B-16/openai", "openclip:ViT-B-16/openai"),
        ("OpenCLIP:ViT-B-16/openai", "openclip:ViT-B-16/openai"),
        ("open_clip:ViT-B-16/laion2b", "openclip:ViT-B-16/laion2b_s34b_b88k"),
        ("opnai:/weights/mine.pt", "openai:/weights/mine.pt"),
        ("openai/clip-vit-base-patch16", "openclip:ViT-B-16/openai"),
        ("https://huggingface.co/openai/clip-vit-large-patch14/tree/main", "openclip:ViT-L-14/openai"),
        ("hf-hub:org/mine", "openclip:hf-hub:org/mine"),
        ("local-dir:/mine", "openclip:local-dir:/mine"),
        ("bundeld", "bundled"),
    ],
)
def test_no_kind_or_a_misspelt_one(name: str, meant: str) -> None:
    assert message_of(name).startswith(f"There is no backbone {name!r}. Did you mean {meant!r}?")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("openclip:ViT-B-61/openai", "no model 'ViT-B-61'. Did you mean 'openclip:ViT-B-16/openai'?"),
        ("openclip:vit-b-16/openai", "no model 'vit-b-16'. Did you mean 'openclip:ViT-B-16/openai'?"),
        ("openclip:zzz", "open_clip has no model 'zzz'. `coopt backbones` lists all 144."),
        ("openclip:ViT-B-16/opnai", "no weights tagged 'opnai'. Did you mean 'openclip:ViT-B-16/openai'?"),
        ("openclip:ViT-B/16/opnai", "no weights tagged 'opnai'. Did you mean 'openclip:ViT-B-16/openai'?"),
        ("openclip:ViT-B-16/laion2b", "Did you mean 'openclip:ViT-B-16/laion2b_s34b_b88k'?"),
        ("openclip:ViT-B/16", "openclip:ViT-B-16 does not say which weights. Did you mean 'openclip:ViT-B-16/openai'?"),
        ("openai:ViT-B/16", "ViT-B/16 does not exist. Did you mean 'openclip:ViT-B-16/openai'?"),
        ("org/mine", "For a model on the Hugging Face hub: 'openclip:hf-hub:org/mine', or 'transformers:org/mine' in"),
        ("ViT-B-16-SigLIP", "Did you mean 'openclip:ViT-B-16-SigLIP/webli'?"),
        ("openclip:hf-hub:openai/clip-vit-base-patch32", "write 'transformers:openai/clip-vit-base-patch32'. The same"),
        ("openclip:hf-hub:a/b/c", "'a/b/c' is not the name of a Hugging Face repository (ORG/NAME)."),
        ("/no/such.pt", "is neither a name nor a path that exists. Write 'bundled', 'openclip:MODEL/TAG'"),
        ("zzz", "There is no backbone 'zzz'. Write 'bundled', 'openclip:MODEL/TAG'"),
    ],
)
def test_other_faults(name: str, part: str, cache: Path) -> None:
    assert part in message_of(name)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("smal/quick", r"open_clip has no model 'smal'. Did you mean 'openclip:small/quick'\? `coopt backbones`"),
        (
            "small/quik",
            r"no weights tagged 'quik'. Did you mean .*quick'\? .* Its tags: quick, file_on_hub, plain_addr",
        ),
        ("small", r"openclip:small does not say which weights. .*Write openclip:small/TAG.* Its tags: quick"),
        ("small-custom/x", r"no weights tagged 'x'. Write .*\./file.pt for weights of your own. It has no published"),
    ],
)
def test_tags_are_listed(small: None, spec: str, message: str) -> None:
    with pytest.raises(BackboneError, match=message):
        check_backbone_name(f"openclip:{spec}")


def test_what_is_right_passes(small: None, cache: Path, tmp_path: Path) -> None:
    model = small_model()
    check_backbone_name("bundled")
    check_backbone_name(f"openclip:local-dir:{save_folder(model, tmp_path / 'folder')}")
    torch.save(model.state_dict(), tmp_path / "mine.pt")
    check_backbone_name(f"openclip:small/{tmp_path}/mine.pt")
    check_backbone_name(f"openai:{tmp_path}/mine.pt")
    save_file(model.state_dict(), put_in_cache(cache, "org/small", "open_clip_model.safetensors"))
    check_backbone_name("openclip:small/quick")


def test_not_a_name(unchecked: None) -> None:
    with pytest.raises(ParameterError, match="A backbone must be a name or a Backbone. Got int instead"):
        check_backbone_name(3)  # type: ignore[arg-type]


def test_missing_weights_are_no_fault_where_they_will_be_fetched(small: None, cache: Path) -> None:
    for name in ("openclip:small/quick", "openclip:hf-hub:org/mine"):
        with pytest.raises(WeightsNotFoundError, match=r"not on this machine.*load_backbone\(\.\.\., download=True\)"):
            check_backbone_name(name)
        with spoken({"download": "--download"}), pytest.raises(WeightsNotFoundError, match=r"add --download to the"):
            check_backbone_name(name)
        check_backbone_name(name, download=True)
    with pytest.raises(BackboneError, match="no weights tagged 'qui'"):
        check_backbone_name("openclip:small/qui", download=True)


def test_paths_are_said_to_be_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_folder(small_model(), tmp_path / "openclip")
    (tmp_path / "photos").mkdir()
    prompt = tmp_path / "prompt"
    prompt.mkdir()
    (prompt / "prompt.json").write_text("{}")
    torch.save({"a": torch.zeros(1)}, tmp_path / "mine.pt")
    cached = put_in_cache(tmp_path, "org/mine", "config.json").parents[2]
    (cached / "snapshots" / "abc" / "config.json").touch()
    expected = {
        "openclip": "is a folder. It is a model in open_clip's layout: write 'openclip:local-dir:openclip'.",
        "photos": "is a folder. It holds no model: expected a folder with weights and open_clip_config.json or config.json",
        "prompt": "It is a learned prompt, not a backbone",
        "mine.pt": "is a file. Write 'openclip:MODEL/./mine.pt' with the weights' architecture",
        "openclip:openclip": "write 'openclip:local-dir:openclip'",
        "openclip:mine.pt": "does not name the model of this file. Write 'openclip:MODEL/./mine.pt'",
        "openclip:local-dir:mine.pt": "is a file and not a folder. Write 'openclip:MODEL/./mine.pt'",
        "openclip:local-dir:photos": "has no open_clip_config.json; it is not a model in open_clip's layout. It holds no",
        "openai:openclip": "is a folder, not a file. It is a model in open_clip's layout",
        cached.name: "It is a model of the Hugging Face cache: write 'transformers:org/mine'.",
    }
    for name, part in expected.items():
        assert part in message_of(name), name
    (cached / "snapshots" / "abc" / "open_clip_config.json").touch()
    assert "write 'openclip:hf-hub:org/mine'" in message_of(cached.name)
    (tmp_path / "photos" / "ViT-B-16.pt").write_bytes((tmp_path / "mine.pt").read_bytes())
    assert "It holds ViT-B-16.pt. Write 'openclip:MODEL/./photos/ViT-B-16.pt'" in message_of("photos")


def test_hub_models_of_other_kinds_are_refused_from_their_configuration(cache: Path) -> None:
    config = {**CLIP, "text_cfg": {**CLIP["text_cfg"], "pool_type": "first"}}
    put_in_cache(cache, "org/mine", "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(UnsupportedBackboneError, match="pools at 'first'"):
        check_backbone_name("openclip:hf-hub:org/mine", download=True)


def test_checking_imports_neither_torch_nor_open_clip() -> None:
    program = """
import sys
from coopt.backbones import check_backbone_name, local_backbones
from coopt.errors import BackboneError
for name in ("openclip:ViT-B-16/openai", "ViT-B/16", "openclip:ViT-B-16/./no.pt", "openai:no.pt"):
    try:
        check_backbone_name(name)
    except BackboneError:
        pass
local_backbones()
assert not {"torch", "open_clip", "numpy"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
