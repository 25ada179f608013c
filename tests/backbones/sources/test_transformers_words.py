"""Words and learned vectors on towers whose tokenizers are not CLIP's: what begins as words is the hand-made prompt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

import coopt
from coopt.backbones import Backbone, load_backbone
from coopt.backbones.tokenizers import clip_tokenizer
from coopt.prompts.context import word_context
from coopt.prompts.words import nearest_words
from coopt.runtime import Runtime
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts, template_prompts
from tests.backbones.sources.small_transformers import KINDS, made

NAMES = ["cat", "red car", "old_oak", "dog (b)", "x"]
WORDS = "a photo of a"


@pytest.fixture(scope="module", params=KINDS)
def backbone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    folder = tmp_path_factory.mktemp("words") / request.param
    made(request.param, folder)
    return load_backbone(f"transformers:{folder}")


def filled(backbone: Backbone, prompts: Any, words: str) -> torch.Tensor:
    """Token ids of prompts with words in the context slots."""
    ids = torch.tensor(backbone.tokenizer.encode(words))
    return torch.where(prompts.is_context, ids[prompts.context_index.clamp(min=0)], prompts.token_ids)


def test_a_context_that_begins_as_words_is_the_hand_made_prompt(backbone: Backbone) -> None:
    context = word_context(backbone, WORDS)
    assert len(context) == len(backbone.tokenizer.encode(WORDS))
    learned, written = (
        context_prompts(backbone, NAMES, len(context)),
        template_prompts(backbone, NAMES, f"{WORDS} {{}}."),
    )
    assert torch.equal(filled(backbone, learned, WORDS), written.token_ids)
    assert torch.equal(learned.lengths, written.lengths)
    features = TextEncoder(backbone, learned, learning=False)(context)
    expected = TextEncoder(backbone, written, learning=False)()
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


def test_words_behind_the_name_are_the_hand_made_prompts_too(backbone: Backbone) -> None:
    words, names = "in art", ["cat", "red car"]
    context = word_context(backbone, words, position="front")
    learned = context_prompts(backbone, names, len(context), "front")
    written = template_prompts(backbone, names, f"{{}} {words}.")
    assert torch.equal(learned.lengths, written.lengths)
    features = TextEncoder(backbone, learned, learning=False)(context)
    expected = TextEncoder(backbone, written, learning=False)()
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("position", ["middle", "front"])
def test_elsewhere_the_words_stand_around_the_name(backbone: Backbone, position: Any) -> None:
    encode, words = backbone.tokenizer.encode, backbone.tokenizer.encode(WORDS)
    prompts = context_prompts(backbone, NAMES, len(words), position)
    before = len(words) // 2 if position == "middle" else 0
    start = 0 if backbone.tokenizer.framing.start is None else 1
    for row, name in zip(filled(backbone, prompts, WORDS).tolist(), ("cat", "red car"), strict=False):
        ids, bare = (encode(f"a {text}")[len(encode("a")) :] if before else encode(text) for text in (f"{name}.", name))
        cut = len(bare)  # SigLIP's tokenizer takes the period away
        assert row[start:][: len(words) + len(ids)] == [*words[:before], *ids[:cut], *words[before:], *ids[cut:]]


def test_words_are_nearest_to_themselves(backbone: Backbone) -> None:
    ids = backbone.tokenizer.encode(WORDS)
    found = nearest_words(backbone, word_context(backbone, WORDS), top_k=1)
    assert [row[0].token_id for row in found] == ids and all(row[0].distance < 1e-5 for row in found)
    assert all(isinstance(row[0].word, str) for row in found)


def test_zero_shot_and_what_is_not_yet_learned_agree(backbone: Backbone) -> None:
    images = torch.randn(10, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    labels = [NAMES[i % len(NAMES)] for i in range(10)]
    still = {"epochs": 1, "lr": 0.0}
    options: Any = {"class_names": NAMES, "runtime": Runtime(cache=False)}
    learned = coopt.CoOp(backbone, init=WORDS, recipe=still, **options).fit(images, labels)
    written = coopt.ZeroShot(backbone, templates=f"{WORDS} {{}}.").fit_classes(NAMES)
    torch.testing.assert_close(
        *(torch.from_numpy(one.logits(images)) for one in (learned, written)), rtol=1e-4, atol=1e-4
    )


def test_behind_other_words_clips_tokens_are_the_same() -> None:
    encode = clip_tokenizer().encode
    names = (Path(__file__).parents[3] / "benchmarks" / "names.py").read_text(encoding="utf-8").split('"')
    for text in [*names[:800], "crane (bird).", "'s", "-x", "2", "..", "ﬁsh", "&amp;", "中", "café", "e\u0301"]:
        if text.strip():
            assert encode(f"a {text}") == [*encode("a"), *encode(text)]
