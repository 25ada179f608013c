"""The text towers' attributes against what the towers do: every open_clip configuration, shrunk, is perturbed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import torch
from torch import Tensor

from coopt.backbones.catalogue import list_backbones, model_configs, unsupported_reason
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.openclip import build_model
from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.protocol import TextTower
from coopt.backbones.towers import is_causal, open_text_tower
from coopt.errors import BackboneError, UnsupportedBackboneError

from .small_models import VIT, FakeTokenizer, scramble, small_model


def shrunk(config: dict) -> dict:
    """The configuration with a small text tower of the same kind, and any small image tower."""
    config = copy.deepcopy(config)
    config["embed_dim"] = 48
    config["vision_cfg"] = {**VIT, "layers": 1}
    config["text_cfg"] |= {"width": 64, "heads": 2, "layers": 2, "vocab_size": 600}
    for key in ("multimodal_cfg", "hf_tokenizer_name", "tokenizer_kwargs", "output_tokens"):
        config.pop(key, None)
        config["text_cfg"].pop(key, None)
    return config


def unique_configs() -> dict[str, dict]:
    """One configuration of each kind of text tower that open_clip has, under the name of the first that has it."""
    kinds: dict[str, str] = {}
    for name, config in model_configs().items():
        if not config["text_cfg"].get("hf_model_name"):
            kinds.setdefault(json.dumps(shrunk(config), sort_keys=True), name)
    return {name: json.loads(config) for config, name in kinds.items()}


UNIQUE = unique_configs()
COCA = [name for name, config in UNIQUE.items() if config["text_cfg"].get("embed_cls")]


@pytest.fixture(scope="module", params=[name for name in UNIQUE if name not in COCA])
def opened(request: pytest.FixtureRequest) -> tuple[str, Any, TextTower]:
    torch.manual_seed(0)
    model = scramble(build_model(UNIQUE[request.param]).eval().requires_grad_(False))
    return request.param, model, open_text_tower(model, FakeTokenizer())


def ids_of(tower: TextTower, length: int) -> Tensor:
    """A prompt of `length` tokens and padding; no id of it is above the end token's."""
    words = list(range(20, 20 + length - 2))
    ids = torch.full((1, tower.context_length), tower.pad_id)
    ids[0, :length] = torch.tensor([tower.start_id if tower.end_id == 599 else 500, *words, tower.end_id])
    return ids


def hidden_and_feature(tower: TextTower, ids: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """The states after the final norm at every position, and the feature, with embeddings put in."""
    kept: list[Tensor] = []
    handle = tower.ln_final.register_forward_hook(lambda *call: kept.append(call[2]))
    with tower.injected(embeddings):
        feature = tower.forward(ids)
    handle.remove()
    return kept[0][0], feature[0]


def test_every_configuration_is_decided() -> None:
    rows = list_backbones()
    assert len(rows) == 144
    assert sum(row.supported for row in rows) == 92
    assert sum(not row.supported for row in rows) == 52
    assert all(bool(row.reason) != row.supported for row in rows)


def test_configuration_and_tower_agree(opened: tuple[str, Any, TextTower]) -> None:
    name, model, tower = opened
    usable = tower.causal and tower.pooling != "last"
    assert usable == (unsupported_reason(model_configs()[name]) is None)
    preprocessing = Preprocessing(size=(32, 32))
    if usable:
        assert ClipBackbone(model, name, FakeTokenizer(), preprocessing).text.blocks is not None
    else:
        with pytest.raises(UnsupportedBackboneError, match=f"^{name}: its text tower "):
            ClipBackbone(model, name, FakeTokenizer(), preprocessing)


def test_causal(opened: tuple[str, Any, TextTower]) -> None:
    """A changed embedding reaches later positions, and earlier ones exactly when the tower is not causal."""
    _, _, tower = opened
    ids = ids_of(tower, 8)
    embeddings = tower.token_embedding(ids)
    before, _ = hidden_and_feature(tower, ids, embeddings)
    changed = embeddings.clone()
    changed[0, 4] += torch.linspace(-1, 1, tower.width)  # not a constant, which a layer norm would take away
    after, _ = hidden_and_feature(tower, ids, changed)
    moved = (after - before).abs().amax(-1)
    assert (moved[4:] > 1e-5).all()
    assert bool((moved[:4] > 1e-5).all()) is not tower.causal
    if tower.causal:
        assert torch.equal(moved[:4] < 1e-6, torch.ones(4, dtype=torch.bool))


@pytest.mark.parametrize("length", [4, 9])
def test_pooling(opened: tuple[str, Any, TextTower], length: int) -> None:
    """The feature is the projection of the state at the position that the tower's pooling names."""
    _, _, tower = opened
    ids = ids_of(tower, length)
    hidden, feature = hidden_and_feature(tower, ids, tower.token_embedding(ids))
    where = {
        "argmax": int(ids[0].argmax()),
        "eos": int((ids[0] == tower.end_id).int().argmax()),
        "last": tower.context_length - 1,
    }[tower.pooling]
    assert tower.pooling == "last" or where == length - 1
    torch.testing.assert_close(tower.projection(hidden[where]), feature)


def test_padding_matters(opened: tuple[str, Any, TextTower]) -> None:
    """Other ids after the end token change the feature exactly when the tower says so."""
    _, _, tower = opened
    ids = ids_of(tower, 6)
    other = ids.clone()
    other[0, 6:] = 30
    moved = (tower.forward(ids) - tower.forward(other)).abs().max()
    assert bool(moved > 1e-5) is tower.padding_matters
    if not tower.padding_matters:
        assert moved < 1e-6


def test_blocks_are_the_tower(opened: tuple[str, Any, TextTower]) -> None:
    """The opened blocks, put together by hand, give the native forward's feature."""
    _, _, tower = opened
    assert tower.blocks is not None and len(tower.blocks) == 2
    ids = ids_of(tower, 7)
    x = tower.token_embedding(ids) + tower.positional_embedding
    for block in tower.blocks:
        q, k, v = torch.nn.functional.linear(block.ln_1(x), block.qkv_weight, block.qkv_bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (tower.heads, -1)).transpose(1, 2) for part in (q, k, v))
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=tower.causal)
        x = x + block.scale_1(block.out_proj(attended.transpose(1, 2).flatten(2)))
        x = x + block.scale_2(block.proj(block.activation(block.fc(block.ln_2(x)))))
    _, feature = hidden_and_feature(tower, ids, tower.token_embedding(ids))
    where = tower.context_length - 1 if tower.pooling == "last" else 6
    torch.testing.assert_close(tower.projection(tower.ln_final(x)[0, where]), feature, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", COCA)
def test_class_token_is_refused(name: str) -> None:
    model = build_model(UNIQUE[name])
    with pytest.raises(UnsupportedBackboneError, match=r"appends a class token after the text, as CoCa does"):
        open_text_tower(model, FakeTokenizer(), name)


def test_custom_blocks_keep_to_the_native_forward() -> None:
    for change in ({"scale_attn": True}, {"qk_norm": True}, {"scale_fc": True}):
        model = small_model(text_cfg={"vocab_size": 600, **change})
        assert open_text_tower(model, FakeTokenizer()).blocks is None


def test_layer_scale_is_opened() -> None:
    model = small_model(text_cfg={"vocab_size": 600, "ls_init_value": 0.3})
    blocks = open_text_tower(model, FakeTokenizer()).blocks
    assert blocks is not None
    assert all(type(scale).__name__ == "LayerScale" for block in blocks for scale in (block.scale_1, block.scale_2))


def test_unusable_pooling_is_refused() -> None:
    model = small_model(text_cfg={"vocab_size": 600, "pool_type": "first"})
    with pytest.raises(UnsupportedBackboneError, match=r"pools at 'first'; prompts need the end token"):
        open_text_tower(model, FakeTokenizer(), "mine")


def test_last_position_pooling_is_refused_as_a_backbone() -> None:
    model = small_model(text_cfg={"vocab_size": 600, "pool_type": "last"})
    assert open_text_tower(model, FakeTokenizer()).padding_matters
    with pytest.raises(UnsupportedBackboneError, match=r"mine: its text tower pools at the last position"):
        ClipBackbone(model, "mine", FakeTokenizer(), Preprocessing(size=(32, 32)))


def test_foreign_text_tower_is_refused() -> None:
    model = torch.nn.Module()
    model.text = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedBackboneError, match=r"its text tower is a Linear without token_embedding"):
        open_text_tower(model, FakeTokenizer(), "mine")


def test_tokenizer_larger_than_the_tower() -> None:
    model = small_model(text_cfg={"vocab_size": 599})
    with pytest.raises(BackboneError, match=r"its tokenizer has 600 tokens and its text tower only 599"):
        ClipBackbone(model, "mine", FakeTokenizer(), Preprocessing(size=(32, 32)))


def test_is_causal_reads_the_mask() -> None:
    mask = torch.full((4, 4), float("-inf")).triu(1)
    assert is_causal(mask)
    assert not is_causal(None)
    assert not is_causal(torch.zeros(4, 4))
    assert not is_causal(torch.full((4, 4), float("-inf")).triu(2))
    assert not is_causal(torch.full((4, 4), float("-inf")).triu(0))
