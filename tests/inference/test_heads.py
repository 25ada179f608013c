"""Heads against the formulas of their papers, and exported."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity, normalize

from coopt.backbones import Backbone
from coopt.backbones.protocol import ScoreHead
from coopt.inference.heads import CacheHead, ConditionalHead, CosineHead, KernelHead, LinearHead, UnitLinearHead
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts
from coopt.text.plain import PlainText

DIM, CLASSES = 16, 5
HEAD = ScoreHead(50.0)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


TEXT = normalize(drawn(CLASSES, DIM, seed=1), dim=-1)
KEYS, LABELS = normalize(drawn(9, DIM, seed=2), dim=-1), torch.arange(9) % CLASSES


def conditional(backbone: Backbone, kind: str) -> ConditionalHead:
    prompts = context_prompts(backbone, ["cat", "red cat", "dog"], 2)
    dim, width = backbone.embed_dim, backbone.text.width
    meta_net = {
        "linear1.weight": drawn(3, dim, seed=3),
        "linear1.bias": drawn(3, seed=4),
        "linear2.weight": 0.1 * drawn(width, 3, seed=5),
        "linear2.bias": 0.1 * drawn(width, seed=6),
    }
    text = PlainText(backbone, prompts) if kind == "plain" else TextEncoder(backbone, prompts, learning=False)
    return ConditionalHead(0.1 * drawn(2, width, seed=7), meta_net, text, backbone.score_head)


def test_cosine() -> None:
    features = drawn(4, DIM)
    expected = 50 * cosine_similarity(features[:, None], TEXT[None], dim=-1)
    torch.testing.assert_close(CosineHead(TEXT, HEAD)(features), expected)
    biased = CosineHead(TEXT, ScoreHead(50.0, -10.0, "sigmoid"))
    torch.testing.assert_close(biased(features), expected - 10)


def test_links() -> None:
    scores = drawn(3, CLASSES)
    torch.testing.assert_close(HEAD.probabilities(scores), scores.softmax(1))
    torch.testing.assert_close(ScoreHead(1.0, -3.0, "sigmoid").probabilities(scores), scores.sigmoid())


def test_linear() -> None:
    features, weight, bias = drawn(4, DIM), drawn(CLASSES, DIM, seed=1), drawn(CLASSES, seed=2)
    torch.testing.assert_close(LinearHead(weight, bias)(features), torch.nn.functional.linear(features, weight, bias))


def test_linear_on_normalised_features() -> None:
    features, weight, bias = drawn(4, DIM), drawn(CLASSES, DIM, seed=1), drawn(CLASSES, seed=2)
    expected = torch.stack([feature / feature.norm() @ weight.T + bias for feature in features])
    torch.testing.assert_close(UnitLinearHead(weight, bias)(features), expected)
    torch.testing.assert_close(UnitLinearHead(weight, bias)(3 * features), expected)


def test_kernel() -> None:
    features, values = drawn(4, DIM), drawn(9, CLASSES, seed=3)
    expected = CosineHead(TEXT, HEAD)(features)
    for image in range(4):
        for key, value in zip(KEYS, values, strict=True):
            expected[image] += torch.exp(-3.0 * (1 - cosine_similarity(features[image], key, dim=0))) * value
    torch.testing.assert_close(KernelHead(TEXT, KEYS, values, 3.0, HEAD)(features), expected)


def test_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    features = drawn(4, DIM)
    head = CacheHead(TEXT, KEYS, LABELS, alpha=0.7, beta=3.0, score_head=HEAD)
    expected = CosineHead(TEXT, HEAD)(features)
    for image in range(4):
        for key, label in zip(KEYS, LABELS.tolist(), strict=True):
            near = cosine_similarity(features[image], key, dim=0)
            expected[image, label] += 0.7 * torch.exp(-3.0 * (1 - near))
    torch.testing.assert_close(head(features), expected)
    monkeypatch.setattr("coopt.inference.heads.ROWS_TOGETHER", 3)
    torch.testing.assert_close(head(features), expected)
    assert head(features[:0]).shape == (0, CLASSES)


@pytest.mark.parametrize("kind", ["plain", "encoder"])
def test_conditional(backbone: Backbone, kind: str) -> None:
    head, features = conditional(backbone, kind), drawn(4, backbone.embed_dim)
    encode = TextEncoder(backbone, context_prompts(backbone, ["cat", "red cat", "dog"], 2), path="reference")
    for feature, scores in zip(features, head(features), strict=True):
        image = normalize(feature, dim=0)
        hidden = torch.relu(head.get_buffer("linear1_weight") @ image + head.get_buffer("linear1_bias"))
        shift = head.get_buffer("linear2_weight") @ hidden + head.get_buffer("linear2_bias")
        text = normalize(encode(head.get_buffer("context") + shift), dim=-1)
        torch.testing.assert_close(scores, backbone.logit_scale * text @ image, atol=1e-3, rtol=1e-4)


def exported(head: nn.Module, features: Tensor) -> Tensor:
    images = torch.export.Dim("images", min=1, max=64)
    program = torch.export.export(head, (features[:3],), dynamic_shapes={"features": {0: images}})
    return program.module()(features)


@pytest.mark.parametrize(
    "head",
    [
        CosineHead(TEXT, HEAD),
        LinearHead(drawn(CLASSES, DIM), drawn(CLASSES)),
        UnitLinearHead(drawn(CLASSES, DIM), drawn(CLASSES)),
        KernelHead(TEXT, KEYS, drawn(9, CLASSES), 3.0, HEAD),
        CacheHead(TEXT, KEYS, LABELS, 0.7, 3.0, HEAD),
    ],
    ids=lambda head: type(head).__name__,
)
def test_exported(head: nn.Module) -> None:
    features = drawn(7, DIM)
    torch.testing.assert_close(exported(head, features), head(features))


def test_conditional_exported(backbone: Backbone) -> None:
    head, features = conditional(backbone, "plain"), drawn(7, backbone.embed_dim)
    with torch.no_grad():
        torch.testing.assert_close(exported(head, features), head(features), atol=1e-3, rtol=1e-4)
