"""Text towers of the package transformers, beyond what all towers are held to in `test_towers.py`."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from coopt.backbones.clip_model import ClipBackbone
from coopt.backbones.openclip_hf_text import HuggingFaceText
from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.protocol import Framing
from coopt.errors import BackboneError, UnsupportedBackboneError
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts

from .hf_models import TEXT_CONFIGS, FramedTokenizer, hf_model

POOLERS = ("mean_pooler", "cls_pooler", "cls_last_hidden_state_pooler")


def backbone_of(kind: str, **text: object) -> ClipBackbone:
    return ClipBackbone(hf_model(kind, **text), kind, FramedTokenizer(kind), Preprocessing(size=(32, 32)))


def prompts_of(kind: str, lengths: tuple[int, ...], full: int) -> Tensor:
    framing = FramedTokenizer(kind).framing
    start = [] if framing.start is None else [framing.start]
    ids = torch.full((len(lengths), full), framing.pad)
    for row, length in zip(ids, lengths, strict=True):
        row[:length] = torch.tensor([*start, *range(20, 20 + length - 1 - len(start)), framing.end])
    return ids


@pytest.mark.parametrize(("kind", "pooler", "proj"), list(itertools.product(TEXT_CONFIGS, POOLERS, ["linear", "mlp"])))
def test_every_encoder_pooling_and_projection(kind: str, pooler: str, proj: str) -> None:
    """Bits are those of `encode_text`; without padding they are equal but for rounding."""
    model = hf_model(kind, hf_pooler_type=pooler, hf_proj_type=proj)
    tower = HuggingFaceText(model, FramedTokenizer(kind))
    assert tower.pooling == ("mean" if pooler == "mean_pooler" else "first")
    assert (tower.width, tower.context_length, tower.depth, tower.heads, tower.dim) == (64, 60, 2, 2, 48)
    ids = prompts_of(kind, (3, 7, 12), 60)
    features = tower(tower.embed(ids), ids)
    assert torch.equal(features, model.encode_text(ids))
    torch.testing.assert_close(tower(tower.embed(ids)[:, :12], ids[:, :12]), features, atol=1e-6, rtol=1e-5)
    for i, length in enumerate((3, 7, 12)):
        alone = ids[i : i + 1, :length]
        torch.testing.assert_close(tower(tower.embed(alone), alone)[0], features[i], atol=1e-6, rtol=1e-5)
    assert (features[0] - features[1]).abs().max() > 1e-3


def test_width_of_the_feed_forward_layers() -> None:
    """What memory is estimated from: of mT5, where one half gates the other, both."""
    widths = {kind: HuggingFaceText(hf_model(kind), FramedTokenizer(kind)).hidden for kind in TEXT_CONFIGS}
    assert widths == {"bert": 128, "roberta": 128, "xlm-roberta": 128, "mt5": 2 * 96, "m2m_100": 128}


@pytest.mark.parametrize(("asked", "given"), [(60, 60), (77, 77), (256, 80)])
def test_length_is_what_the_encoder_has_positions_for(asked: int, given: int) -> None:
    assert HuggingFaceText(hf_model("bert", context_length=asked), FramedTokenizer("bert")).context_length == given
    # RoBERTa's first position is behind that of the padding; mT5 has none
    assert (
        HuggingFaceText(hf_model("roberta", context_length=asked), FramedTokenizer("roberta")).context_length == given
    )
    assert HuggingFaceText(hf_model("mt5", context_length=asked), FramedTokenizer("mt5")).context_length == asked


def test_full_prompts_at_the_last_position() -> None:
    for kind in TEXT_CONFIGS:
        model = hf_model(kind, context_length=200)
        tower = HuggingFaceText(model, FramedTokenizer(kind))
        ids = prompts_of(kind, (tower.context_length,), tower.context_length)
        assert torch.equal(tower(tower.embed(ids), ids), model.encode_text(ids))


@pytest.mark.parametrize("kind", TEXT_CONFIGS)
@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_contexts_and_their_gradients(kind: str, position: str) -> None:
    """Context vectors that are words' embeddings give the words' features, and the gradients of these embeddings."""
    backbone = backbone_of(kind)
    words = torch.tensor([21, 22])  # which the names have not
    prompts = context_prompts(backbone, ["dog", "a cat"], n_ctx=2, position=position)  # type: ignore[arg-type]
    context = backbone.text.embed(words).detach().requires_grad_()
    features = TextEncoder(backbone, prompts, path="reference")(context)
    ids = torch.full((2, backbone.text.context_length), backbone.tokenizer.framing.pad)
    ids[:, : prompts.token_ids.shape[1]] = prompts.token_ids
    ids[prompts.is_context.nonzero(as_tuple=True)] = words.repeat(2)
    embedding = backbone.text._embedding.weight.requires_grad_()  # type: ignore[union-attr]
    own = backbone.model.encode_text(ids)  # type: ignore[operator]
    torch.testing.assert_close(features, own, atol=1e-6, rtol=1e-5)
    toward = torch.linspace(-1, 1, own.numel()).view_as(own)
    (features * toward).sum().backward()
    (own * toward).sum().backward()
    scale = getattr(backbone.text._embedding, "embed_scale", 1.0)
    assert context.grad is not None and embedding.grad is not None and context.grad.norm() > 1e-3
    torch.testing.assert_close(context.grad * scale, embedding.grad[words], atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("kind", TEXT_CONFIGS)
def test_bf16_is_near(kind: str) -> None:
    backbone = backbone_of(kind)
    prompts = context_prompts(backbone, ["dog", "a cat"], n_ctx=2)
    context = torch.randn(2, 64, generator=torch.Generator().manual_seed(0))
    exact, near = (TextEncoder(backbone, prompts, precision=one)(context) for one in ("fp32", "bf16"))
    assert torch.nn.functional.cosine_similarity(exact, near).min() > 0.995 and not torch.equal(exact, near)


def test_fingerprint_is_of_what_weights_do_not_tell() -> None:
    """Pooling, the number of heads and the encoder's kind change answers, and the fingerprint."""
    first = backbone_of("bert")
    assert backbone_of("bert").fingerprint == first.fingerprint
    others = [backbone_of("bert", hf_pooler_type="mean_pooler")]
    for change in ({"num_attention_heads": 4}, {"layer_norm_eps": 1e-3}, {"hidden_act": "relu"}):
        with pytest.MonkeyPatch.context() as patch:
            for key, value in change.items():
                patch.setitem(TEXT_CONFIGS["bert"], key, value)
            others.append(backbone_of("bert"))
    assert len({one.fingerprint for one in (first, *others)}) == 5


def test_wrong_tokenizers_are_refused() -> None:
    tokenizer = FramedTokenizer("bert")
    tokenizer.framing = Framing(3, 4, 1)
    with pytest.raises(
        BackboneError, match=r"^mine: its text tower takes the token 0 for padding, and .* pads with 1; the"
    ):
        HuggingFaceText(hf_model("bert"), tokenizer, "mine")
    with pytest.raises(
        BackboneError, match=r"its tokenizer has 600 tokens and its text tower only 500; the configuration"
    ):
        HuggingFaceText(hf_model("bert", vocab_size=500), FramedTokenizer("bert"))


def test_other_encoders_and_poolers_are_refused() -> None:
    model = hf_model("bert")
    model.text.transformer.encoder.blocks = model.text.transformer.encoder.layer
    del model.text.transformer.encoder.layer
    with pytest.raises(
        UnsupportedBackboneError, match=r"is a BertModel of the package .* encoder.layer or layers or block"
    ):
        HuggingFaceText(model, FramedTokenizer("bert"))
    model = hf_model("bert", hf_pooler_type="max_pooler")
    ids = prompts_of("bert", (4,), 60)
    with pytest.raises(RuntimeError):  # why it is refused
        model.encode_text(ids)
    with pytest.raises(
        UnsupportedBackboneError, match=r"pools with a MaxPooler; prompts need the first token or the mean"
    ):
        HuggingFaceText(model, FramedTokenizer("bert"))
