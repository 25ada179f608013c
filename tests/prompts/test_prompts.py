"""Initial contexts, hand-made templates and nearest words."""

from __future__ import annotations

import pytest
import torch
from torch.nn.functional import normalize

from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.prompts.context import initial_context, random_context, word_context
from coopt.prompts.templates import ENSEMBLE, template_features
from coopt.prompts.words import distance_scale, nearest_words
from coopt.text.encode import TextEncoder
from coopt.text.layout import template_prompts


def test_random_context_is_normal_and_seeded(backbone: Backbone) -> None:
    context = random_context(backbone, 16, 10, seed=3)
    assert context.shape == (10, 16, backbone.text.width)
    assert abs(float(context.mean())) < 1e-3 and abs(float(context.std()) - 0.02) < 1e-3
    assert torch.equal(context, random_context(backbone, 16, 10, seed=3))
    assert not torch.equal(context, random_context(backbone, 16, 10, seed=4))
    assert random_context(backbone, 4, None, seed=3).shape == (4, backbone.text.width)


def test_words_are_counted_in_tokens(backbone: Backbone) -> None:
    """ "itap of a" is three words and four tokens."""
    ids = backbone.tokenizer.encode("itap of a")
    context = word_context(backbone, "itap_of_a")
    assert len(ids) == 4 and torch.equal(context, backbone.text.embed(torch.tensor(ids)))


def test_words_are_copied_per_class(backbone: Backbone) -> None:
    context = initial_context(backbone, ["cat", "dog"], None, True, "a photo of a", seed=1)
    assert context.shape == (2, 4, backbone.text.width) and torch.equal(context[0], context[1])


def test_a_context_begins_as_words_at_random_or_as_the_usual_words(backbone: Backbone) -> None:
    def start(n_ctx: int | None, init: str | None) -> torch.Tensor:
        return initial_context(backbone, ["cat", "dog"], n_ctx, False, init, seed=1)

    assert torch.equal(start(None, None), word_context(backbone, "a photo of a"))
    assert torch.equal(start(3, "some old cat"), word_context(backbone, "some old cat"))
    assert torch.equal(start(5, None), random_context(backbone, 5, None, seed=1))
    with pytest.raises(ParameterError, match="words of init, 'some cat', are 2 tokens, but n_ctx is 5"):
        start(5, "some cat")


def test_a_word_context_encodes_as_its_words(backbone: Backbone) -> None:
    from coopt.text.layout import context_prompts

    names = ["cat", "forest_road"]
    learned = TextEncoder(backbone, context_prompts(backbone, names, 4))(word_context(backbone, "a photo of a"))
    written = TextEncoder(backbone, template_prompts(backbone, names, "a photo of a {}."))()
    assert torch.allclose(learned, written, atol=1e-5)


@pytest.mark.parametrize("words", ["", "_ "])
def test_no_words_are_refused(backbone: Backbone, words: str) -> None:
    with pytest.raises(ParameterError, match="'init' parameter of a context must hold at least one word"):
        word_context(backbone, words)


def test_an_ensemble_is_the_normalised_mean_of_normalised_features(backbone: Backbone) -> None:
    names = ["cat", "dog"]
    single = [TextEncoder(backbone, template_prompts(backbone, names, t), path="reference")() for t in ENSEMBLE]
    expected = normalize(sum(normalize(s, dim=-1) for s in single) / len(ENSEMBLE), dim=-1)
    assert torch.allclose(template_features(backbone, names, ENSEMBLE), expected, atol=1e-6)


def test_no_template_is_refused(backbone: Backbone) -> None:
    with pytest.raises(ParameterError, match="at least one template"):
        template_features(backbone, ["cat"], [])


def test_nearest_word_of_an_embedding_is_itself(backbone: Backbone) -> None:
    ids = backbone.tokenizer.encode("cat violin")
    words = nearest_words(backbone, word_context(backbone, "cat violin"), top_k=2)
    assert [(row[0].word, row[0].token_id, row[0].distance) for row in words] == [
        ("cat", ids[0], 0),
        ("violin", ids[1], 0),
    ]
    assert all(row[0].distance < row[1].distance for row in words)


def test_distance_scale_is_that_of_this_vocabulary(backbone: Backbone) -> None:
    # Entries are 0.1 x normal here, so two of them lie about 0.1 sqrt(2 W) apart, and a near-zero vector 0.1 sqrt(W).
    scale, width = distance_scale(backbone), backbone.text.width
    assert 0.6 < scale["word_to_word"] / (0.1 * (2 * width) ** 0.5) < 1
    assert 0.6 < scale["random_to_word"] / (0.1 * width**0.5) < 1.05
