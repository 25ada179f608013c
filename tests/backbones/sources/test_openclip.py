from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from coopt.backbones import caches
from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.protocol import ScoreHead
from coopt.backbones.sources import openclip_models
from coopt.backbones.sources.openclip_loading import build_model, load_openclip
from coopt.backbones.sources.openclip_models import ask_open_clip, list_models, model_configs, natural_key, weight_tags
from coopt.errors import BackboneError, UnsupportedBackboneError, WeightsNotFoundError
from tests.backbones.small_models import CLIP, CUSTOM, configuration, put_in_cache, save_folder, small_model

from .test_openai_archive import assert_same_model

# ---- refusals


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ({"pool_type": "first"}, "its text tower pools at 'first', neither at the end token nor at the last position"),
        ({"tokenizer_mode": "clips"}, r"its tokenizer frames texts in a way of its own \(tokenizer_mode 'clips'\)"),
        ({"hf_model_name": "org/bert", "hf_pooler_type": "max_pooler"}, "its text tower pools with 'max_pooler'"),
    ],
    ids=str,
)
def test_folders_are_refused_from_their_configuration_before_weights_are_read(
    tmp_path: Path, text: dict, reason: str
) -> None:
    config = configuration(text_cfg=text)
    (tmp_path / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    said = rf"^openclip:local-dir:{tmp_path}: {reason}, so prompts cannot be learned for it. `coopt backbones` lists"
    with pytest.raises(UnsupportedBackboneError, match=said):
        load_openclip(f"local-dir:{tmp_path}", download=True)


def test_folder_of_siglips_kind(tmp_path: Path) -> None:
    """A bidirectional tower that reads out at the last position, and a bias on the scores."""
    text = {"no_causal_mask": True, "pool_type": "last"}
    config = {**configuration(text_cfg=text), "custom_text": True, "init_logit_bias": -10}
    model = small_model(text_cfg=text, custom_text=True, init_logit_bias=-10)
    with torch.no_grad():
        model.logit_bias.fill_(-12.5)
    backbone = load_openclip(f"local-dir:{save_folder(model, tmp_path / 'model', config)}")
    assert backbone.text.text_path == "reference" and not backbone.text.causal
    assert backbone.score_head == ScoreHead(backbone.logit_scale, -12.5, "sigmoid")
    ids = torch.zeros(1, 77, dtype=torch.long)
    ids[0, :3] = torch.tensor([49406, 320, 49407])
    assert torch.equal(backbone.text(backbone.text.embed(ids), ids), model.encode_text(ids))


# ---- published tags, without a network


def test_missing_weights_say_what_where_and_how(small: None, cache: Path) -> None:
    with pytest.raises(WeightsNotFoundError) as caught:
        load_openclip("small/quick")
    message = str(caught.value)
    assert message.startswith("The weights of openclip:small/quick are not on this machine.")
    assert f"open_clip_pytorch_model.bin of org/small in the Hugging Face cache {cache}" in message
    assert message.endswith("To fetch it once with the network: load_backbone(..., download=True).")
    with pytest.raises(WeightsNotFoundError, match=r"weights.safetensors or weights.bin of org/other"):
        load_openclip("small/file_on_hub")
    with pytest.raises(WeightsNotFoundError, match=r"Looked for .*/home/.cache/clip/small-1234.pt. To fetch"):
        load_openclip("small/plain-address")


def test_every_published_tag_of_supported_models_is_looked_for(cache: Path) -> None:
    supported = [row for row in list_models() if row.supported]
    for row in supported:
        for tag in row.tags:
            with pytest.raises(WeightsNotFoundError, match=f"The weights of openclip:{row.name}/{tag} are not on this"):
                load_openclip(f"{row.name}/{tag}")


def test_cached_tag(small: None, cache: Path) -> None:
    """The weights' own settings count: their activation, and how their images are prepared."""
    model = small_model(quick_gelu=True)
    save_file(model.state_dict(), put_in_cache(cache, "org/small", "open_clip_model.safetensors"))
    backbone = load_openclip("small/quick")
    assert_same_model(backbone, model)
    assert backbone.preprocessing == Preprocessing(size=(32, 32), mean=(0.5, 0.5, 0.5), interpolation="bilinear")
    assert backbone.name == "openclip:small/quick"
    # another tag of the same weights, without QuickGELU, is another backbone
    plain = load_openclip("small/e16-v2")
    assert plain.fingerprint != backbone.fingerprint
    assert_same_model(plain, small_model(quick_gelu=False))


def test_quick_gelu_of_openais_tags() -> None:
    assert weight_tags()["ViT-B-16"]["openai"]["quick_gelu"]
    assert not model_configs()["ViT-B-16"].get("quick_gelu")


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_archive_kept_by_openais_own_package(small: None, cache: Path, tmp_path: Path) -> None:
    from .test_openai_archive import save_archive

    model = small_model(quick_gelu=True)
    (tmp_path / "home/.cache/clip").mkdir(parents=True)
    save_archive(model, tmp_path / "home/.cache/clip/small-1234.pt")
    assert_same_model(load_openclip("small/plain_address"), model)


def test_hub_model(cache: Path) -> None:
    model = small_model()
    with pytest.raises(WeightsNotFoundError, match=rf"hf-hub:org/mine is not on this machine.*config.json.*{cache}"):
        load_openclip("hf-hub:org/mine")
    put_in_cache(cache, "org/mine", "open_clip_config.json").write_text(json.dumps({"model_cfg": CLIP}))
    with pytest.raises(WeightsNotFoundError, match=r"Looked for open_clip_model.safetensors or"):
        load_openclip("hf-hub:org/mine")
    torch.save(model.state_dict(), put_in_cache(cache, "org/mine", "open_clip_pytorch_model.bin"))
    assert_same_model(load_openclip("hf-hub:org/mine"), model)
    with pytest.raises(BackboneError, match=r"'a/b/c' is not the name of a Hugging Face repository"):
        load_openclip("hf-hub:a/b/c")


# ---- files and folders


@pytest.mark.parametrize("config", [CLIP, CUSTOM], ids=["CLIP", "CustomTextCLIP"])
def test_model_folder(tmp_path: Path, config: dict) -> None:
    model = small_model(**({"custom_text": True} if config is CUSTOM else {}))
    assert type(model).__name__ == ("CustomTextCLIP" if config is CUSTOM else "CLIP")
    folder = save_folder(model, tmp_path / "model", config, {"resize_mode": "squash", "std": [1, 1, 1]})
    backbone = load_openclip(f"local-dir:{folder}", name="mine")
    assert_same_model(backbone, model)
    assert backbone.name == "mine" and backbone.text.open is not None
    assert backbone.preprocessing.resize_mode == "squash" and backbone.preprocessing.std == (1.0, 1.0, 1.0)
    assert not backbone.model.training and not any(weight.requires_grad for weight in backbone.model.parameters())
    assert backbone.logit_scale == pytest.approx(1 / 0.07, rel=1e-5)


@pytest.mark.parametrize("layout", ["state dict", "training checkpoint", "distributed", "safetensors", "old format"])
def test_checkpoint_files(small: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str) -> None:
    model = small_model()
    state = model.state_dict()
    path = tmp_path / ("my weights.safetensors" if layout == "safetensors" else "my weights.pt")
    if layout == "safetensors":
        save_file(state, path)
    elif layout == "training checkpoint":
        optimizer = {"state": {0: {"step": torch.tensor(3.0)}}, "param_groups": [{"lr": 0.1, "params": [0]}]}
        torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": optimizer}, path)
    elif layout == "distributed":
        torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, path)
    else:
        torch.save(state, path, _use_new_zipfile_serialization=layout != "old format")
    assert_same_model(load_openclip(f"small/{path}"), model)
    monkeypatch.chdir(tmp_path)
    assert_same_model(load_openclip(f"small/./{path.name}"), model)
    assert_same_model(load_openclip(f"small/../{tmp_path.name}/{path.name}"), model)


def test_text_tower_at_the_top_is_moved_for_custom_models(small: None, tmp_path: Path) -> None:
    model = small_model()
    torch.save(model.state_dict(), tmp_path / "old.pt")
    assert_same_model(load_openclip(f"small-custom/{tmp_path}/old.pt"), model)


def test_weights_of_another_architecture(small: None, tmp_path: Path) -> None:
    torch.save(small_model(text_cfg={"layers": 1}).state_dict(), tmp_path / "other.pt")
    with pytest.raises(BackboneError, match=r"other.pt do not fit this model's architecture.*resblocks\.1"):
        load_openclip(f"small/{tmp_path}/other.pt")
    torch.save(small_model(embed_dim=16).state_dict(), tmp_path / "other.pt")
    with pytest.raises(BackboneError, match=r"do not fit this model's architecture.*size mismatch for text_projection"):
        load_openclip(f"small/{tmp_path}/other.pt")


def test_missing_file(small: None) -> None:
    with pytest.raises(WeightsNotFoundError, match=r"The weights file .*/no/such.pt does not exist. Check the path"):
        load_openclip("small/./no/such.pt")


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("kept", [0, 7, 500, -1])
def test_truncated_file(small: None, tmp_path: Path, suffix: str, kept: int) -> None:
    path = tmp_path / f"weights.{suffix}"
    model = small_model()
    save_file(model.state_dict(), path) if suffix == "safetensors" else torch.save(model.state_dict(), path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(BackboneError, match=rf"weights.{suffix} (is|are) (damaged|empty)"):
        load_openclip(f"small/{path}")


@pytest.mark.parametrize(
    ("files", "kind", "message"),
    [
        ({}, WeightsNotFoundError, "has no open_clip_config.json; it is not a model in open_clip's layout"),
        ({"open_clip_config.json": "{"}, BackboneError, "is not an open_clip configuration.*JSONDecodeError"),
        (
            {"open_clip_config.json": '{"model_cfg": {}}'},
            BackboneError,
            "expected model_cfg with embed_dim, vision_cfg",
        ),
        ({"open_clip_config.json": "[1]"}, BackboneError, "is not an open_clip configuration"),
        ({"open_clip_config.json": json.dumps(CLIP)}, WeightsNotFoundError, "has no weights: expected open_clip_model"),
        (
            {"open_clip_config.json": json.dumps(CLIP), "a.pt": "", "b.bin": ""},
            BackboneError,
            r"has 2 weight files \(a.pt, b.bin\): name the right one open_clip_model.safetensors",
        ),
    ],
)
def test_odd_folders(tmp_path: Path, files: dict, kind: type, message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(kind, match=message):
        load_openclip(f"local-dir:{tmp_path}")


def test_missing_folder() -> None:
    with pytest.raises(WeightsNotFoundError, match=r"The model folder /no/such does not exist"):
        load_openclip("local-dir:/no/such")


def test_configuration_that_open_clip_does_not_know() -> None:
    config: dict[str, Any] = configuration(text_cfg={"attention": "new"})
    with pytest.raises(BackboneError, match=r"open_clip \S+ cannot build this configuration: TypeError: .*'attention'"):
        build_model(config)


# ---- what open_clip has


def test_tags_and_configurations_are_open_clips() -> None:
    """When this fails: `python tools/open_clip_tags.py`."""
    from open_clip.factory import _MODEL_CONFIGS

    assert openclip_models.code_of_tags() == json.loads(openclip_models.TAGS.read_text())["sha256"]
    assert weight_tags() == ask_open_clip()
    assert list(weight_tags()) == list(ask_open_clip())
    assert model_configs() == _MODEL_CONFIGS
    assert list(model_configs()) == list(_MODEL_CONFIGS)


def test_asking_open_clip_gives_its_whole_table() -> None:
    from open_clip.pretrained import _PRETRAINED

    assert ask_open_clip() == {model: tags for model, tags in _PRETRAINED.items() if tags}


def test_another_open_clip_is_asked(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for file in ("constants.py", "pretrained.py"):
        code = (openclip_models.open_clip_folder() / file).read_text()
        (tmp_path / file).write_text(f"{code}# a change\n")
    monkeypatch.setattr(openclip_models, "open_clip_folder", lambda: tmp_path)
    monkeypatch.setattr(openclip_models, "ask_open_clip", lambda: {"new": {"tag": {"hf_hub": "org/new/"}}})
    assert weight_tags.__wrapped__() == {"new": {"tag": {"hf_hub": "org/new/"}}}


def test_natural_order() -> None:
    assert sorted(["b-128", "b-16", "a"], key=natural_key) == ["a", "b-16", "b-128"]


def test_hub_weights_names_are_open_clips() -> None:
    from open_clip.constants import HF_CONFIG_NAME, HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

    assert {HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME} < set(caches.HUB_WEIGHTS)
    assert HF_CONFIG_NAME == caches.HUB_CONFIG
