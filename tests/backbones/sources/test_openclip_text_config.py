"""Models whose text tower comes from the package transformers: found, refused and loaded without the network."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from coopt import CoOp, load
from coopt.backbones import check_backbone_name, load_backbone, local_backbones
from coopt.backbones.openclip_hf_text import HuggingFaceText
from coopt.backbones.protocol import Backbone
from coopt.backbones.sources import network
from coopt.backbones.sources.openclip import OpenClip
from coopt.backbones.sources.openclip_loading import build_model, load_openclip
from coopt.backbones.sources.openclip_text_config import KINDS, find_text_config, read_text_config
from coopt.errors import BackboneError, UnsupportedBackboneError, WeightsNotFoundError
from coopt.testing import check_source
from tests.backbones.hf_models import (
    TEXT_CONFIGS,
    hf_configuration,
    save_hf_folder,
    save_tokenizer,
    text_config,
)
from tests.backbones.small_models import configuration, put_in_cache, save_folder, scramble


@pytest.fixture(scope="module")
def biomed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A model with all that BiomedCLIP's configuration says, in a folder with the encoder's own config.json."""
    return save_hf_folder("bert", tmp_path_factory.mktemp("biomed"))


@torch.no_grad()
def assert_same_features(backbone: Backbone, model: Any) -> None:
    framing = backbone.tokenizer.framing
    start = [] if framing.start is None else [framing.start]
    row = [*start, *backbone.tokenizer.encode("a photo of a cat"), framing.end]
    ids = torch.full((1, backbone.text.context_length), framing.pad)
    ids[0, : len(row)] = torch.tensor(row)
    features = backbone.text(backbone.text.embed(ids), ids)
    torch.testing.assert_close(features, model.encode_text(ids, normalize=False), atol=1e-6, rtol=1e-6)
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(backbone.encode_image(pixels), model.encode_image(pixels, normalize=False))


# ---- loading


@pytest.mark.parametrize("kind", TEXT_CONFIGS)
def test_folders_of_every_kind(kind: str, tmp_path: Path, cache: Path) -> None:
    pooler = "cls_pooler" if kind == "m2m_100" else "mean_pooler"
    model, folder = save_hf_folder(kind, tmp_path, hf_pooler_type=pooler, hf_proj_type="linear")
    backbone = load_openclip(f"local-dir:{folder}")
    assert isinstance(backbone.text, HuggingFaceText) and backbone.text.text_path == "packed"
    assert backbone.text.pooling == ("first" if kind == "m2m_100" else "mean")
    assert (backbone.tokenizer.framing.start is None) == (kind == "mt5")
    assert_same_features(backbone, model)


def test_a_folder_like_biomedclips(biomed: tuple[Any, Path], cache: Path) -> None:
    """Its tokenizer's settings, its projection by two layers and its length are those of the configuration."""
    model, folder = biomed
    backbone = load_backbone(f"openclip:local-dir:{folder}")
    assert (backbone.text.context_length, backbone.text.pooling, backbone.embed_dim) == (60, "first", 48)
    assert len(backbone.text.proj) == 3  # type: ignore[arg-type]
    assert_same_features(backbone, model)
    check_source(OpenClip, f"local-dir:{folder}")


@pytest.mark.filterwarnings("ignore::coopt.errors.WeightsWarning")
def test_a_prompt_is_learned_saved_and_loaded(biomed: tuple[Any, Path], cache: Path, tmp_path: Path) -> None:
    name = f"openclip:local-dir:{biomed[1]}"
    images = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    images[::2, 0] += 3.0
    labels = ["a cat", "a red dog"] * 4
    learned = CoOp(name, n_ctx=2, recipe={"name": "fast", "epochs": 8}).fit(images, labels)
    expected = learned.predict_proba(images)
    assert learned.losses_[-1] < learned.losses_[0]
    assert expected[::2, 0].min() > expected[1::2, 0].max()  # of the first class, more for each of its own images
    learned.save(tmp_path / "prompt")
    again = load(tmp_path / "prompt")
    assert (again.predict_proba(images) == expected).all()
    assert again.backbone_.fingerprint == load_backbone(name).fingerprint


@pytest.mark.parametrize("attentional", [True, False])
def test_coca_folders(tmp_path: Path, attentional: bool) -> None:
    """All weights must fit, those of the decoder too, which then is left out: no feature depends on it."""
    config = configuration(text_cfg={"context_length": 76, "embed_cls": True, "output_tokens": True})
    config["vision_cfg"] |= {"attentional_pool": attentional, "attn_pooler_heads": 2, "output_tokens": True}
    config |= {"custom_text": True, "multimodal_cfg": {"width": 64, "heads": 2, "layers": 1, "context_length": 76}}
    torch.manual_seed(0)
    model = scramble(build_model(config).eval())
    folder = save_folder(model, tmp_path / "model", config)
    backbone = load_openclip(f"local-dir:{folder}")
    assert_same_features(backbone, model)
    assert hasattr(model, "text_decoder") and not hasattr(backbone.model, "text_decoder")
    image_tower = backbone.image_tower()
    pixels = torch.randn(1, 3, 32, 32)
    torch.testing.assert_close(image_tower(pixels), model.encode_image(pixels, normalize=False))
    # another decoder, the same features: the same backbone
    state = {key: value + key.startswith("text_decoder.") for key, value in model.state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    assert load_openclip(f"local-dir:{folder}").fingerprint == backbone.fingerprint
    if attentional:
        check_source(OpenClip, f"local-dir:{folder}")
    del state["text_decoder.ln_final.weight"]
    save_file(state, folder / "open_clip_model.safetensors")
    with pytest.raises(BackboneError, match=r"do not fit this model's architecture.*text_decoder.ln_final.weight"):
        load_openclip(f"local-dir:{folder}")


def test_coca_with_an_encoder(tmp_path: Path, cache: Path) -> None:
    size = save_tokenizer("roberta", tmp_path)
    config = hf_configuration(output_tokens=True, hf_proj_type="linear", hf_pooler_type=None)
    config["vision_cfg"] |= {"output_tokens": True}
    config |= {"custom_text": True, "multimodal_cfg": {"width": 48, "heads": 2, "layers": 1, "context_length": 76}}
    torch.manual_seed(0)
    model = scramble(build_model(config, text_config=text_config("roberta", size)).eval())
    (tmp_path / "config.json").write_text(json.dumps(text_config("roberta", size)))
    backbone = load_openclip(f"local-dir:{save_folder(model, tmp_path, config)}")
    assert isinstance(backbone.text, HuggingFaceText) and backbone.text.pooling == "mean"
    assert_same_features(backbone, model)


@pytest.mark.parametrize("kind", ["roberta", "m2m_100"])
def test_weights_saved_by_older_versions_of_transformers(kind: str, tmp_path: Path, cache: Path) -> None:
    """They hold tables that follow from the configuration."""
    model, folder = save_hf_folder(kind, tmp_path)
    tables = {
        "roberta": {"text.transformer.embeddings.position_ids": torch.arange(82)[None]},
        "m2m_100": {"text.transformer.embed_positions.weights": torch.zeros(82, 64)},
    }[kind]
    save_file({**model.state_dict(), **tables}, folder / "open_clip_model.safetensors")
    assert_same_features(load_openclip(f"local-dir:{folder}"), model)
    save_file({**model.state_dict(), "text.more": torch.zeros(2)}, folder / "open_clip_model.safetensors")
    with pytest.raises(BackboneError, match=r"do not fit this model's architecture.*text.more"):
        load_openclip(f"local-dir:{folder}")


# ---- finding the encoder's configuration


def test_where_it_is_looked_for(biomed: tuple[Any, Path], cache: Path, tmp_path: Path) -> None:
    """In the model's folder, by the name that open_clip's configuration says, and in the Hugging Face cache."""
    model, folder = biomed
    folder = Path(shutil.copytree(folder, tmp_path / "model"))
    content = (folder / "config.json").read_text()
    (folder / "config.json").unlink()
    with pytest.raises(WeightsNotFoundError) as caught:
        load_openclip(f"local-dir:{folder}")
    assert str(caught.value) == (
        f"The configuration of the text tower of openclip:local-dir:{folder} is not on this machine. Looked for "
        f"config.json of the text tower in {folder}; and for config.json of org/biomed-bert in the Hugging Face cache "
        f"{cache}. To fetch it once with the network: load_backbone(..., download=True)."
    )
    # one of the whole model, as many repositories have
    (folder / "config.json").write_text(json.dumps({"model_type": "clip"}))
    with pytest.raises(WeightsNotFoundError, match=r"The configuration of the text tower of"):
        check_backbone_name(f"openclip:local-dir:{folder}")
    put_in_cache(cache, "org/biomed-bert", "config.json").write_text(content)
    assert_same_features(load_openclip(f"local-dir:{folder}"), model)
    inside = folder / "org" / "biomed-bert" / "config.json"
    inside.parent.mkdir(parents=True)
    inside.write_text(content)
    assert find_text_config(hf_configuration(), folder) == (inside, [])
    named = {"text_cfg": {"hf_model_name": str(tmp_path / "encoder")}}
    assert find_text_config(named)[0] is None
    (tmp_path / "encoder").mkdir()
    (tmp_path / "encoder" / "config.json").write_text(content)
    assert find_text_config(named)[0] == tmp_path / "encoder" / "config.json"


def test_hub_model(biomed: tuple[Any, Path], cache: Path) -> None:
    """As BiomedCLIP lies in the cache once open_clip has used it: the encoder's files are another repository's."""
    folder = biomed[1]
    name = "openclip:hf-hub:org/biomed-clip"
    for file in ("open_clip_config.json", "open_clip_model.safetensors"):
        shutil.copy(folder / file, put_in_cache(cache, "org/biomed-clip", file))
    with pytest.raises(
        WeightsNotFoundError, match=rf"config.json of org/biomed-bert in the Hugging Face cache {cache}"
    ):
        check_backbone_name(name)
    assert local_backbones() == ()  # which would not load
    for file in ("config.json", "vocab.txt", "tokenizer_config.json"):
        shutil.copy(folder / file, put_in_cache(cache, "org/biomed-bert", file))
    check_backbone_name(name)
    (row,) = local_backbones()
    assert row.name == name and row.bytes == (folder / "open_clip_model.safetensors").stat().st_size


def test_published_tags_ask_for_the_encoder(cache: Path) -> None:
    weights = put_in_cache(cache, "laion/CLIP-ViT-B-32-roberta-base-laion2B-s12B-b32k", "open_clip_model.safetensors")
    save_file({"a.weight": torch.zeros(1)}, weights)
    name = "openclip:roberta-ViT-B-32/laion2b_s12b_b32k"
    with pytest.raises(
        WeightsNotFoundError, match=r"The configuration of the text tower of .* config.json of roberta-base"
    ):
        check_backbone_name(name)
    check_backbone_name(name, download=True)
    put_in_cache(cache, "roberta-base", "config.json").write_text(json.dumps(text_config("roberta")))
    check_backbone_name(name)
    assert local_backbones() == ()  # the tokenizer is missing
    put_in_cache(cache, "roberta-base", "vocab.json").write_text("{}")
    assert [row.name for row in local_backbones()] == [name]


def test_it_is_fetched_when_asked_for(
    biomed: tuple[Any, Path], cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, folder = biomed
    folder = Path(shutil.copytree(folder, tmp_path / "model"))
    content = (folder / "config.json").read_text()
    (folder / "config.json").unlink()
    fetched: list[tuple[str, str]] = []

    def from_hub(repo: str, file: str, cache_dir: Path) -> str:
        fetched.append((repo, file))
        path = put_in_cache(cache_dir, repo, file)
        path.write_text(content)
        return str(path)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", from_hub)
    monkeypatch.setattr(network, "cannot_reach", lambda address, faults: False)
    with pytest.raises(
        BackboneError, match=r"^The configuration of the text tower of .* HF_HUB_OFFLINE is set.*By hand"
    ):
        load_openclip(f"local-dir:{folder}", download=True)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert_same_features(load_openclip(f"local-dir:{folder}", download=True), model)
    assert fetched == [("org/biomed-bert", "config.json")]


def test_odd_configurations(biomed: tuple[Any, Path], cache: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(biomed[1], tmp_path / "model"))
    (folder / "config.json").unlink()
    path = put_in_cache(cache, "org/biomed-bert", "config.json")
    path.write_text(json.dumps({"model_type": "gpt2"}))
    with pytest.raises(
        UnsupportedBackboneError, match=r"of the kind 'gpt2' .*open_clip knows the kinds bert, m2m_100, mt5, roberta"
    ):
        check_backbone_name(f"openclip:local-dir:{folder}")
    for content in ("{", "[]", "{}"):
        path.write_text(content)
        with pytest.raises(
            BackboneError, match=r"is not the configuration of a text tower: expected a JSON object with"
        ):
            check_backbone_name(f"openclip:local-dir:{folder}")
    path.write_text(json.dumps({**text_config("bert"), "hidden_size": "wide"}))
    with pytest.raises(BackboneError, match=r"cannot build this configuration"):
        load_openclip(f"local-dir:{folder}")


def test_what_is_built_of_it(tmp_path: Path) -> None:
    """In float32, without code of others, and with the smallest decoder, which is thrown away."""
    path = tmp_path / "config.json"
    more = {"torch_dtype": "float16", "auto_map": {"AutoConfig": "mine.Config"}, "num_decoder_layers": 24}
    path.write_text(json.dumps({**text_config("mt5"), **more}))
    assert read_text_config(path, "mine") == {**text_config("mt5"), "num_decoder_layers": 1}
    path.write_text(json.dumps({**text_config("m2m_100"), "dtype": "float16"}))
    content = read_text_config(path, "mine")
    assert content == {**text_config("m2m_100"), "decoder_layers": 1}
    assert (
        build_model(hf_configuration(), text_config=content).text.transformer.layers[0].fc1.weight.dtype
        == torch.float32
    )


def test_kinds_are_open_clips() -> None:
    from open_clip.hf_configs import arch_dict

    assert set(KINDS) == set(arch_dict) == set(TEXT_CONFIGS)


def test_without_transformers(biomed: tuple[Any, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackboneError, match=r"The text tower of openclip:local-dir:.* needs the package transformers"):
        check_backbone_name(f"openclip:local-dir:{biomed[1]}")
