"""The text towers' attributes against what the towers do: every open_clip configuration, shrunk, is perturbed."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from coopt.backbones import list_backbones
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.openclip_text import OpenClipText, is_causal
from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.protocol import Framing
from coopt.backbones.sources.openclip_loading import build_model
from coopt.backbones.sources.openclip_models import model_configs, text_path_of, unsupported_reason
from coopt.backbones.text_tower import Tokens
from coopt.errors import BackboneError, UnsupportedBackboneError

from .small_models import VIT, FakeTokenizer, configuration, scramble, small_model


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
Opened = tuple[str, Any, OpenClipText]


def tokenizer_of(config: dict) -> FakeTokenizer:
    """A tokenizer that ends where the configuration's tower reads."""
    tokenizer = FakeTokenizer()
    end = config["text_cfg"].get("eos_id") if config["text_cfg"].get("pool_type") == "eos" else None
    tokenizer.framing = Framing(start=500, end=end, pad=0) if end is not None else FakeTokenizer.framing
    return tokenizer


@pytest.fixture(scope="module", params=[name for name in UNIQUE if name not in COCA])
def opened(request: pytest.FixtureRequest) -> Opened:
    torch.manual_seed(0)
    config = UNIQUE[request.param]
    model = scramble(build_model(config).eval().requires_grad_(False))
    return request.param, model, OpenClipText(model, tokenizer_of(config))


def ids_of(tower: OpenClipText, length: int) -> Tensor:
    """A prompt of `length` tokens and padding; no id of it is above the end token's."""
    words = list(range(20, 20 + length - 2))
    ids = torch.zeros(1, tower.context_length, dtype=torch.long)
    ids[0, :length] = torch.tensor([598 if tower.end_id == 599 else 500, *words, tower.end_id])
    return ids


def feature_of(tower: OpenClipText, ids: Tensor) -> Tensor:
    return tower(tower.embed(ids), ids)


def hidden_and_feature(tower: OpenClipText, ids: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """The states after the final norm at every position, and the feature, of given embeddings."""
    kept: list[Tensor] = []
    handle = tower.ln_final.register_forward_hook(lambda *call: kept.append(call[2]))
    feature = tower(embeddings, ids)
    handle.remove()
    return kept[0][0], feature[0]


def test_every_configuration_is_decided() -> None:
    """Each of open_clip's 144: on the fast path, on the reference path, or refused by reason."""
    rows = list_backbones()
    assert len(rows) == 144
    assert Counter(row.text_path for row in rows) == {"fast": 92, "reference": 39, "": 13}
    assert all(bool(row.reason) != row.supported == bool(row.text_path) for row in rows)
    foreign = [row for row in rows if "Hugging Face model" in row.reason]
    class_token = [row for row in rows if "class token" in row.reason]
    assert len(foreign) == 10 and len(class_token) == 3


def test_configuration_and_tower_agree(opened: Opened) -> None:
    name, model, tower = opened
    config = model_configs()[name]
    assert unsupported_reason(config) is None
    assert (tower.open is not None) == (not tower.causal or tower.pooling != "last")
    assert tower.text_path == text_path_of(config)
    backbone = ClipBackbone(model, name, tokenizer_of(UNIQUE[name]), Preprocessing(size=(32, 32)))
    has_bias = config.get("init_logit_bias") is not None
    assert backbone.score_head.link == ("sigmoid" if has_bias else "softmax")
    assert backbone.score_head.bias == (float(model.logit_bias) if has_bias else 0)


def test_bits_are_those_of_the_models_own_forward(opened: Opened) -> None:
    _, model, tower = opened
    ids = torch.cat([ids_of(tower, length) for length in (4, 9, tower.context_length)])
    assert torch.equal(feature_of(tower, ids), model.encode_text(ids))


def test_causal(opened: Opened) -> None:
    """A changed embedding reaches later positions, and earlier ones exactly when the tower is not causal."""
    _, _, tower = opened
    ids = ids_of(tower, 8)
    embeddings = tower.embed(ids)
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
def test_pooling(opened: Opened, length: int) -> None:
    """The feature is the projection of the state at the position that the tower's pooling names."""
    _, _, tower = opened
    ids = ids_of(tower, length)
    hidden, feature = hidden_and_feature(tower, ids, tower.embed(ids))
    where = {
        "argmax": int(ids[0].argmax()),
        "eos": int((ids[0] == tower.end_id).int().argmax()),
        "last": tower.context_length - 1,
    }[tower.pooling]
    assert tower.pooling == "last" or where == length - 1
    torch.testing.assert_close(tower._project(hidden[where : where + 1])[0], feature)
    if tower.open is not None:
        torch.testing.assert_close(tower.open.projection(hidden[where]), feature)


@pytest.mark.parametrize("block", [0, 1])
def test_tokens_at_a_block(opened: Opened, block: int) -> None:
    """They stand at its input and nowhere else: blocks before it do not see them, and what stood there is gone."""
    _, _, tower = opened
    assert tower.depth == 2
    ids, vectors = ids_of(tower, 7), torch.randn(2, tower.width)
    tokens = Tokens(torch.zeros(2, dtype=torch.long), torch.tensor([2, 3]), vectors)
    seen: list[Tensor] = []
    blocks = tower.transformer.resblocks
    handles = [one.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])) for one in blocks]
    tower(tower.embed(ids), ids, {block: tokens})
    plain = len(seen)
    tower(tower.embed(ids), ids)
    for handle in handles:
        handle.remove()
    assert torch.equal(seen[block][0, 2:4], vectors)
    assert all(torch.equal(seen[i], seen[plain + i]) for i in range(block))
    others = [i for i in range(tower.context_length) if i not in (2, 3)]
    assert torch.equal(seen[block][0, others], seen[plain + block][0, others])


def test_weights_can_be_exchanged_for_one_call(opened: Opened) -> None:
    _, _, tower = opened
    ids = ids_of(tower, 7)
    assert "transformer.resblocks.1.mlp.c_fc.weight" in dict(tower.named_parameters())
    delta = {"transformer.resblocks.1.mlp.c_fc.bias": torch.ones(tower.hidden, requires_grad=True)}
    changed = functional_call(tower, delta, (tower.embed(ids), ids))
    assert not torch.allclose(changed, feature_of(tower, ids))
    changed.sum().backward()
    assert delta.popitem()[1].grad is not None


def test_padding_matters(opened: Opened) -> None:
    """Other ids after the end token change the feature exactly when the tower says so."""
    _, _, tower = opened
    ids = ids_of(tower, 6)
    other = ids.clone()
    other[0, 6:] = 30
    moved = (feature_of(tower, ids) - feature_of(tower, other)).abs().max()
    assert bool(moved > 1e-5) is tower.padding_matters
    if not tower.padding_matters:
        assert moved < 1e-6


def test_blocks_are_the_tower(opened: Opened) -> None:
    """The opened blocks, put together by hand, give the tower's own feature."""
    _, _, tower = opened
    if tower.open is None:
        pytest.skip("served by its own forward")
    opening = tower.open
    assert len(opening.blocks) == 2
    ids = ids_of(tower, 7)
    x = tower.embed(ids) + opening.positions
    for block in opening.blocks:
        q, k, v = torch.nn.functional.linear(block.ln_1(x), block.qkv_weight, block.qkv_bias).chunk(3, dim=-1)
        q, k, v = (part.unflatten(-1, (opening.heads, -1)).transpose(1, 2) for part in (q, k, v))
        attended = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=tower.causal)
        x = x + block.scale_1(block.out_proj(attended.transpose(1, 2).flatten(2)))
        x = x + block.scale_2(block.proj(block.activation(block.fc(block.ln_2(x)))))
    feature = feature_of(tower, ids)[0]
    read = opening.final_norm(x)[0, -1 if tower.pooling == "last" else 6]
    torch.testing.assert_close(opening.projection(read), feature, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", COCA)
def test_class_token_is_refused(name: str) -> None:
    model = build_model(UNIQUE[name])
    with pytest.raises(UnsupportedBackboneError, match=r"appends a class token after the text, as CoCa does"):
        OpenClipText(model, FakeTokenizer(), name)


@pytest.mark.parametrize("change", [{"scale_attn": True}, {"qk_norm": True}, {"scale_fc": True}], ids=str)
def test_custom_blocks_keep_to_the_native_forward(change: dict) -> None:
    config = configuration(text_cfg={"vocab_size": 600, **change})
    tower = OpenClipText(small_model(text_cfg={"vocab_size": 600, **change}), FakeTokenizer())
    assert tower.open is None and tower.causal and text_path_of(config) == "reference"


def test_layer_scale_is_opened() -> None:
    model = small_model(text_cfg={"vocab_size": 600, "ls_init_value": 0.3})
    opening = OpenClipText(model, FakeTokenizer()).open
    assert opening is not None
    scales = [scale for block in opening.blocks for scale in (block.scale_1, block.scale_2)]
    assert {type(scale).__name__ for scale in scales} == {"LayerScale"}


def test_unusable_pooling_is_refused() -> None:
    model = small_model(text_cfg={"vocab_size": 600, "pool_type": "first"})
    with pytest.raises(UnsupportedBackboneError, match=r"pools at 'first'; prompts need the end token"):
        OpenClipText(model, FakeTokenizer(), "mine")


def test_foreign_text_tower_is_refused() -> None:
    model = torch.nn.Module()
    model.text = torch.nn.Linear(2, 2)
    with pytest.raises(UnsupportedBackboneError, match=r"its text tower is a Linear without token_embedding"):
        OpenClipText(model, FakeTokenizer(), "mine")


def test_tokenizer_larger_than_the_tower() -> None:
    model = small_model(text_cfg={"vocab_size": 599})
    with pytest.raises(BackboneError, match=r"its tokenizer has 600 tokens and its text tower only 599"):
        ClipBackbone(model, "mine", FakeTokenizer(), Preprocessing(size=(32, 32)))


def test_tokenizer_with_another_end() -> None:
    model = small_model(text_cfg={"vocab_size": 600, "pool_type": "eos", "eos_id": 2})
    with pytest.raises(BackboneError, match=r"reads out at the token 2, and its tokenizer ends with 599"):
        OpenClipText(model, FakeTokenizer(), "mine")


def test_is_causal_reads_the_mask() -> None:
    mask = torch.full((4, 4), float("-inf")).triu(1)
    assert is_causal(mask)
    assert not is_causal(None)
    assert not is_causal(torch.zeros(4, 4))
    assert not is_causal(torch.full((4, 4), float("-inf")).triu(2))
    assert not is_causal(torch.full((4, 4), float("-inf")).triu(0))
