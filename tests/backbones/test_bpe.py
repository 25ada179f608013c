"""The byte-pair encoding is open_clip's."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.backbones.bpe import CLEANERS, MERGES_FILE, BytePairEncoding
from coopt.backbones.sources.openclip_models import model_configs, open_clip_folder

ODD = [
    "a photo of a Dog's toy, 12345 he'll they've I'M",
    "Ünïcode 🦊 漢字 e\u0301 \u200b \ufb01ligature ＦＵＬＬ",
    "&lt;b&gt; &amp;amp; &amp;#39;",
    "schÃ¶n â€œquotedâ€\x9d",
    "snake_case--dash...!!!",
    "\x00\x7f\x80\ud7ff\uffff",
    "x" * 300,
    "aaaaaaaaabbbbbbaaab",
    "",
]


@pytest.fixture(scope="module")
def ours() -> BytePairEncoding:
    return BytePairEncoding(open_clip_folder() / MERGES_FILE)


@pytest.fixture(scope="module")
def theirs():
    from open_clip.tokenizer import SimpleTokenizer

    return SimpleTokenizer()


def test_ids_of_odd_texts(ours: BytePairEncoding, theirs) -> None:
    for text in ODD:
        assert ours.encode(CLEANERS["lower"](text)) == theirs.encode(text)


@settings(max_examples=300, deadline=None)
@given(st.text(max_size=40))
def test_ids_of_any_text(ours: BytePairEncoding, theirs, text: str) -> None:
    if re.search("start_of_text|end_of_text", text, re.IGNORECASE):
        return
    ids = ours.encode(CLEANERS["lower"](text))
    assert ids == theirs.encode(text)
    assert ours.decode(ids) == theirs.decode(ids)


def test_clean_up(ours: BytePairEncoding) -> None:
    from open_clip.tokenizer import get_clean_fn

    for name, clean in CLEANERS.items():
        for text in ODD:
            assert clean(text) == get_clean_fn(name)(text), name


def test_every_clean_up_that_a_configuration_names_is_known() -> None:
    named = {
        (config["text_cfg"].get("tokenizer_kwargs") or {}).get("clean", "lower") for config in model_configs().values()
    }
    assert named <= set(CLEANERS) and len(named) > 1


def test_special_tokens(ours: BytePairEncoding, theirs) -> None:
    assert (ours.start_id, ours.end_id, ours.vocab_size) == (theirs.sot_token_id, theirs.eot_token_id, 49408)
    assert ours.decode([ours.start_id, 320, ours.end_id]) == theirs.decode([ours.start_id, 320, ours.end_id])
