from __future__ import annotations

import json
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from coopt.backbones.protocol import Framing, Tokenizer
from coopt.backbones.tokenizers import ClipTokenizer, HubTokenizer, tokenizer_for
from coopt.errors import BackboneError, WeightsNotFoundError

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def clip() -> ClipTokenizer:
    return ClipTokenizer()


def test_golden_ids(clip: ClipTokenizer) -> None:
    for case in json.loads((GOLDEN / "tokenizer.json").read_text()):
        assert clip.encode(case["text"]) == case["ids"]
        assert [clip.framing.start, *case["ids"], clip.framing.end] == case["tokenized"]


def test_protocol(clip: ClipTokenizer) -> None:
    assert isinstance(clip, Tokenizer)
    assert clip.framing == Framing(49406, 49407, 0) and clip.vocab_size == 49408


@pytest.mark.parametrize(
    "text", ["", "  ", "a photo of a dog.", "Ünïcode 🦊 漢字", "x" * 300, "\x00\ud7ff tab\tnew\nline"]
)
def test_encode_and_decode(clip: ClipTokenizer, text: str) -> None:
    ids = clip.encode(text)
    assert clip.encode(clip.decode(ids)) == ids


@pytest.mark.parametrize(
    "text", ["<end_of_text>", "a <START_OF_TEXT> b", "&lt;end_of_text&gt;", "&amp;amp;lt;end_of_text>"]
)
def test_no_text_becomes_a_special_token(clip: ClipTokenizer, text: str) -> None:
    """A class name cannot end the prompt: the pooled position would be inside of it."""
    assert all(number < 49406 for number in clip.encode(text)) and clip.encode(text)


def test_other_clean_up(clip: ClipTokenizer) -> None:
    bare = tokenizer_for({"tokenizer_kwargs": {"clean": "canonicalize"}}, None, download=False)
    assert bare.encode("A dog.") == clip.encode("a dog")
    assert tokenizer_for({}, None, download=False).encode("A dog.") == clip.encode("a dog.")


class FakeHub:
    """Like a transformers tokenizer: letters are 10 and up, framed by the given ids."""

    pad_token_id = 1
    sep_token_id = 102

    def __init__(self, before: list[int], after: list[int]) -> None:
        self.before, self.after = before, after

    def __call__(self, text: str, add_special_tokens: bool = True) -> SimpleNamespace:
        ids = [10 + ord(letter) for letter in text]
        return SimpleNamespace(input_ids=[*self.before, *ids, *self.after] if add_special_tokens else ids)

    def decode(self, ids: list[int]) -> str:
        return "".join(chr(number - 10) for number in ids) + " "

    def __len__(self) -> int:
        return 500


def test_hub_tokenizer_finds_its_frame() -> None:
    xlm = HubTokenizer(FakeHub([0], [2]), str.strip)
    assert xlm.framing == Framing(0, 2, 1) and xlm.vocab_size == 500
    assert xlm.encode(" ab ") == [107, 108] and xlm.decode([107, 108]) == "ab"
    assert isinstance(xlm, Tokenizer)
    mt5 = HubTokenizer(FakeHub([], [1]), str.strip)
    assert mt5.framing == Framing(None, 1, 1)
    clipa = HubTokenizer(FakeHub([101], [102]), str.strip, strip_end=True)
    assert clipa.framing == Framing(101, 0, 1)


@pytest.mark.parametrize(("before", "after"), [([0], []), ([], []), ([0, 3], [2]), ([0], [2, 2])])
def test_hub_tokenizer_with_another_frame(before: list[int], after: list[int]) -> None:
    with pytest.raises(BackboneError, match=r"The tokenizer 'odd' frames the ids .* at most one token before"):
        HubTokenizer(FakeHub(before, after), str.strip, "odd")


def test_hub_tokenizer_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple] = []

    def from_pretrained(source: str, local_files_only: bool, trust_remote_code: bool, **settings: object) -> FakeHub:
        assert not trust_remote_code
        asked.append((source, local_files_only, settings))
        if source in ("missing/one", "/without/one"):
            raise OSError("not in the cache, and a long story")
        return FakeHub([0], [2])

    fake = ModuleType("transformers")
    fake.AutoTokenizer = SimpleNamespace(from_pretrained=from_pretrained)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "transformers", fake)
    config = {"hf_tokenizer_name": "some/one", "tokenizer_kwargs": {"clean": "canonicalize"}}
    assert tokenizer_for(config, None, download=False).encode("A.") == [107]
    tokenizer_for(config, "/a/folder", download=True)
    assert asked == [("some/one", True, {}), ("/a/folder", False, {})]
    # a folder without the files is no obstacle where they are in the cache
    assert tokenizer_for(config, "/without/one", download=False).encode("A.") == [107]
    assert asked[2:] == [("/without/one", True, {}), ("some/one", True, {})]
    assert config["tokenizer_kwargs"] == {"clean": "canonicalize"}  # open_clip's tables are not changed
    with pytest.raises(WeightsNotFoundError, match=r"tokenizer 'missing/one' were not found .* download=True"):
        tokenizer_for({"hf_tokenizer_name": "missing/one"}, None, download=False)
    with pytest.raises(
        WeightsNotFoundError, match=r"not found in /without/one and in the Hugging Face cache. To fetch"
    ):
        tokenizer_for({"hf_tokenizer_name": "missing/one"}, "/without/one", download=False)


@pytest.mark.parametrize("kind", ["bert", "xlm-roberta", "mt5", "m2m_100"])
def test_a_tokenizer_without_vocabulary_is_not_found(kind: str, tmp_path: Path) -> None:
    """transformers makes one of special tokens alone, to which all words are unknown."""
    (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
    with pytest.raises(WeightsNotFoundError, match=r"The files of the tokenizer 'some/one' were not found in"):
        tokenizer_for({"hf_tokenizer_name": "some/one"}, str(tmp_path), download=False)


def test_without_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(BackboneError, match=r"'google/mt5-base' needs the package transformers.*coopt\[transformers\]"):
        tokenizer_for({"hf_tokenizer_name": "google/mt5-base"}, None, download=False)
