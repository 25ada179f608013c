"""The text towers' attributes against what the towers do: every open_clip configuration, shrunk, is perturbed."""

from __future__ import annotations

import copy
import json
from collections import Counter
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from coopt.backbones import list_backbones
from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.openclip_hf_text import HuggingFaceText
from coopt.backbones.openclip_text import OpenClipText, is_causal
from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.protocol import Framing
from coopt.backbones.sources.openclip_loading import build_model
from coopt.backbones.sources.openclip_models import model_configs, text_path_of, unsupported_reason
from coopt.backbones.text_tower import Tokens
from coopt.errors import BackboneError, UnsupportedBackboneError

from .hf_models import FramedTokenizer, text_config
from .small_models import VIT, FakeTokenizer, configuration, scramble, small_model

ENCODERS = {"roberta-base": "roberta", "xlm-roberta-base": "xlm-roberta", "xlm-roberta-large": "xlm-roberta",
            "google/mt5-base": "mt5", "google/mt5-xl": "mt5", "facebook/nllb-200-distilled-600M": "m2m_100",
            "facebook/nllb-200-distilled-1.3B": "m2m_100"}  # fmt: skip
"""What the encoders that open_clip's configurations name are, which their own configurations on the hub say."""


def shrunk(config: dict) -> dict:
    """The configuration with a small text tower of the same kind, and any small image tower, pooled as it says."""
    config = copy.deepcopy(config)
    config["embed_dim"] = 48
    pooled = {
        key: config["vision_cfg"][key] for key in ("attentional_pool", "output_tokens") if key in config["vision_cfg"]
    }
    config["vision_cfg"] = {**VIT, "layers": 1, **pooled}
    if config["text_cfg"].get("hf_model_name"):
        config["text_cfg"]["hf_model_name"] = ENCODERS[config["text_cfg"]["hf_model_name"]]
        config["text_cfg"].pop("hf_tokenizer_name")
    else:
        config["text_cfg"] |= {"width": 64, "heads": 2, "layers": 2, "vocab_size": 600}
    if "multimodal_cfg" in config:
        config["multimodal_cfg"] |= {"width": 64, "heads": 2, "layers": 1, "vocab_size": 600}
    for key in ("hf_tokenizer_name", "tokenizer_kwargs"):
        config["text_cfg"].pop(key, None)
    return config


def kinds() -> dict[str, list[str]]:
    """Each kind of text tower that open_clip has, and the configurations that have it."""
    found: dict[str, list[str]] = {}
    for name, config in model_configs().items():
        found.setdefault(json.dumps(shrunk(config), sort_keys=True), []).append(name)
    return found


KINDS = kinds()
UNIQUE = {names[0]: json.loads(config) for config, names in KINDS.items()}
Tower = OpenClipText | HuggingFaceText


class Opened(NamedTuple):
    name: str
    model: Any
    tower: Tower
    tokenizer: Any
    backbone: ClipBackbone


def tokenizer_of(config: dict) -> Any:
    """A tokenizer that ends where the configuration's tower reads, and pads as its encoder does."""
    text = config["text_cfg"]
    if text.get("hf_model_name"):
        return FramedTokenizer(text["hf_model_name"])
    tokenizer = FakeTokenizer()
    end = text.get("eos_id") if text.get("pool_type") == "eos" else None
    tokenizer.framing = Framing(start=500, end=end, pad=0) if end is not None else FakeTokenizer.framing
    return tokenizer


@pytest.fixture(scope="module", params=list(UNIQUE))
def opened(request: pytest.FixtureRequest) -> Opened:
    torch.manual_seed(0)
    config = UNIQUE[request.param]
    encoder = config["text_cfg"].get("hf_model_name")
    model = build_model(config, text_config=text_config(encoder) if encoder else None)
    model = scramble(model.eval().requires_grad_(False))
    tokenizer = tokenizer_of(config)
    backbone = ClipBackbone(model, request.param, tokenizer, Preprocessing(size=(32, 32)))
    return Opened(request.param, model, backbone.text, tokenizer, backbone)


def ids_of(opened: Opened, length: int) -> Tensor:
    """A prompt of `length` tokens and padding; no id of it is above the end token's."""
    framing = opened.tokenizer.framing
    start = [] if framing.start is None else [framing.start]
    words = range(20, 20 + length - 1 - len(start))
    ids = torch.full((1, opened.tower.context_length), framing.pad)
    ids[0, :length] = torch.tensor([*start, *words, framing.end])
    return ids


def feature_of(tower: Tower, ids: Tensor) -> Tensor:
    return tower(tower.embed(ids), ids)


def hidden_and_feature(tower: Tower, ids: Tensor, embeddings: Tensor) -> tuple[Tensor, Tensor]:
    """The states at every position that the feature is pooled from, and the feature, of given embeddings."""
    kept: list[Tensor] = []
    if isinstance(tower, HuggingFaceText):
        handle = tower.pooler.register_forward_pre_hook(lambda _, given: kept.append(given[0].last_hidden_state))
    else:
        handle = tower.transformer.register_forward_hook(lambda *call: kept.append(tower.ln_final(call[2])))
    feature = tower(embeddings, ids)
    handle.remove()
    return kept[0][0], feature[0]


def test_every_configuration_is_decided() -> None:
    """Each of open_clip's 144 is built small below, and has its path; where that is not the fast one, it says why."""
    rows = list_backbones()
    assert sum(len(names) for names in KINDS.values()) == len(rows) == 144
    assert all(row.supported and not row.reason for row in rows)
    assert Counter(row.text_path for row in rows) == {"fast": 92, "packed": 10, "reference": 42}
    assert all(bool(row.why) == (row.text_path != "fast") for row in rows)
    why = Counter(row.why for row in rows if row.why)
    assert why == {
        "not causal, and padding is seen": 39,
        "not causal; padding is masked": 10,
        "a class token behind the text, which sees a token of padding": 3,
    }


def test_configuration_and_tower_agree(opened: Opened) -> None:
    name, _, tower, _, backbone = opened
    config = model_configs()[name]
    assert unsupported_reason(config) is None
    assert tower.text_path == text_path_of(config)
    opens = isinstance(tower, OpenClipText) and (not tower.causal or tower.pooling != "last")
    assert (tower.open is not None) == opens
    has_bias = config.get("init_logit_bias") is not None
    assert backbone.score_head.link == ("sigmoid" if has_bias else "softmax")
    assert backbone.score_head.bias == (float(opened.model.logit_bias) if has_bias else 0)


def test_bits_are_those_of_the_models_own_forward(opened: Opened) -> None:
    _, model, tower, _, backbone = opened
    ids = torch.cat([ids_of(opened, length) for length in (4, 9, tower.context_length)])
    assert torch.equal(feature_of(tower, ids), model.encode_text(ids, normalize=False))
    pixels = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(backbone.encode_image(pixels), model.encode_image(pixels, normalize=False))


def test_causal(opened: Opened) -> None:
    """A changed embedding reaches later positions, and earlier ones exactly when the tower is not causal."""
    tower, ids = opened.tower, ids_of(opened, 8)
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
    """The feature is the projection of the state, or of the states' mean, that the tower's pooling names."""
    tower, ids = opened.tower, ids_of(opened, length)
    hidden, feature = hidden_and_feature(tower, ids, tower.embed(ids))
    if isinstance(tower, HuggingFaceText):
        pooled = hidden[0] if tower.pooling == "first" else hidden[:length].mean(0)
        torch.testing.assert_close(tower.proj(pooled), feature)
        return
    where = {
        "argmax": int(ids[0].argmax()),
        "eos": int((ids[0] == tower.end_id).int().argmax()),
        "last": len(hidden) - 1,  # behind the context length, where there is a class token
    }[tower.pooling]
    assert tower.pooling == "last" or where == length - 1
    torch.testing.assert_close(tower._project(hidden[where : where + 1])[0], feature)
    if tower.open is not None:
        torch.testing.assert_close(tower.open.projection(hidden[where]), feature)


def blocks_of(tower: Tower) -> Any:
    return tower._blocks if isinstance(tower, HuggingFaceText) else tower.transformer.resblocks


@pytest.mark.parametrize("block", [0, 1])
def test_tokens_at_a_block(opened: Opened, block: int) -> None:
    """They stand at its input and nowhere else: blocks before it do not see them, and what stood there is gone."""
    tower = opened.tower
    assert tower.depth == 2
    ids, vectors = ids_of(opened, 7), torch.randn(2, tower.width)
    tokens = Tokens(torch.zeros(2, dtype=torch.long), torch.tensor([2, 3]), vectors)
    seen: list[Tensor] = []
    handles = [one.register_forward_pre_hook(lambda _, given: seen.append(given[0])) for one in blocks_of(tower)]
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
    tower, ids = opened.tower, ids_of(opened, 7)
    last = list(blocks_of(tower)[1].parameters())[-1]
    name = next(name for name, weight in tower.named_parameters() if weight is last)
    delta = (last + torch.linspace(-1, 1, last.numel()).view_as(last)).requires_grad_()
    changed = functional_call(tower, {name: delta}, (tower.embed(ids), ids))
    assert not torch.allclose(changed, feature_of(tower, ids))
    changed.sum().backward()
    assert delta.grad is not None


def test_padding_matters(opened: Opened) -> None:
    """What stands behind the end token changes the feature exactly when the tower says so."""
    tower, ids = opened.tower, ids_of(opened, 6)
    vectors = tower.embed(ids)
    other = vectors.clone()
    other[0, 6:] = tower.embed(torch.tensor(30))
    moved = (tower(vectors, ids) - tower(other, ids)).abs().max()
    assert bool(moved > 1e-5) is tower.padding_matters
    if not tower.padding_matters:
        assert moved < 1e-6


def test_cut_prompts(opened: Opened) -> None:
    """A tower that takes prompts of any length gives the same features without the padding."""
    tower = opened.tower
    ids = torch.cat([ids_of(opened, length) for length in (4, 9)])
    if tower.any_length:
        torch.testing.assert_close(
            tower(tower.embed(ids)[:, :9], ids[:, :9]), feature_of(tower, ids), atol=1e-6, rtol=1e-5
        )


def test_learned_vectors_are_words(opened: Opened) -> None:
    """Vectors may be learned where ids say so, and then ids are for masks, positions and pooling alone."""
    tower, ids = opened.tower, ids_of(opened, 9)
    learned = ids.clone()
    learned[0, 2:6] = opened.tokenizer.framing.placeholder
    assert torch.equal(tower(tower.embed(ids), learned), feature_of(tower, ids))


def test_blocks_are_the_tower(opened: Opened) -> None:
    """The opened blocks, put together by hand, give the tower's own feature."""
    tower = opened.tower
    if tower.open is None:
        pytest.skip("served by its own forward")
    opening = tower.open
    assert len(opening.blocks) == 2
    ids = ids_of(opened, 7)
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


def test_a_corrected_class_token_sees_no_padding() -> None:
    """The published models shift the mask by one; a model that does not ("correct_cls_mask") is computed as it says."""
    config = shrunk(model_configs()["coca_ViT-B-32"])
    torch.manual_seed(0)
    model = scramble(build_model(config).eval().requires_grad_(False))
    model.text.correct_cls_mask = True
    tower = OpenClipText(model, FakeTokenizer())
    ids = torch.zeros(1, 76, dtype=torch.long)
    ids[0, :4] = torch.tensor([598, 20, 21, 599])
    assert torch.equal(feature_of(tower, ids), model.encode_text(ids, normalize=False))
    other = tower.embed(ids)
    other[0, 4:] += 1.0
    torch.testing.assert_close(tower(other, ids), feature_of(tower, ids))


def test_class_token_with_another_padding_is_refused() -> None:
    model = build_model(shrunk(model_configs()["coca_ViT-B-32"]))
    tokenizer = FakeTokenizer()
    tokenizer.framing = Framing(start=598, end=599, pad=7)
    with pytest.raises(
        BackboneError, match=r"takes the token 0 for padding, and its tokenizer pads with 7; the configu"
    ):
        OpenClipText(model, tokenizer)


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
