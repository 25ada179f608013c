"""The helper that gives the bundled model another scale or width leaves its answers alone."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from coopt.backbones import Backbone, load_backbone
from tests.reparametrised import bundled_config, doubled, doubled_config, doubled_state, scaled, write_folder

TEXTS = ("a photo of a cat.", "a large tiger with a small apple in the corner .", "red", "the background is striped")


@pytest.fixture(scope="module")
def bundled() -> Backbone:
    return load_backbone("bundled", "cpu")


def features(backbone: Backbone) -> Float[Tensor, "texts dim"]:
    framing = backbone.tokenizer.framing
    ids = torch.full((len(TEXTS), backbone.text.context_length), framing.pad)
    for row, text in zip(ids, TEXTS, strict=True):
        tokens = [framing.start, *backbone.tokenizer.encode(text), framing.end]
        row[: len(tokens)] = torch.tensor(tokens)
    with torch.no_grad():
        return backbone.text(backbone.text.embed(ids), ids)


def size_of_words(backbone: Backbone) -> float:
    words = torch.tensor(backbone.tokenizer.encode("a photo of a"))
    return backbone.text.embed(words).square().mean().sqrt().item()


@pytest.mark.parametrize("times", [0.25, 4.0])
def test_another_scale_of_the_embeddings_gives_the_same_bits(bundled: Backbone, times: float) -> None:
    other = scaled(bundled, times)
    assert size_of_words(other) == pytest.approx(times * size_of_words(bundled))
    assert torch.equal(features(other), features(bundled))
    assert other.fingerprint != bundled.fingerprint


def test_twice_the_width_gives_the_same_features(bundled: Backbone) -> None:
    other = doubled(bundled)
    assert other.text.width == 2 * bundled.text.width
    assert size_of_words(other) == pytest.approx(size_of_words(bundled))
    assert torch.allclose(features(other), features(bundled), atol=1e-5, rtol=1e-5)


def test_a_folder_holds_the_same_model(bundled: Backbone, tmp_path: Path) -> None:
    config = bundled_config()
    heads = config["model_cfg"]["text_cfg"]["heads"]
    name = write_folder(tmp_path / "wide", doubled_state(bundled.model.state_dict(), heads), doubled_config(config))
    similar = F.cosine_similarity(features(load_backbone(name, "cpu")), features(bundled))
    assert similar.min() > 1 - 1e-5
