"""The zoo's tokenizers as coopt's: text to ids without start, end and padding, and back."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from coopt.backbones.bpe import CLEANERS, MERGES_FILE, BytePairEncoding
from coopt.backbones.protocol import Framing
from coopt.backbones.source import how_to_get
from coopt.backbones.sources.openclip_models import open_clip_folder
from coopt.backbones.zoo import require_transformers
from coopt.errors import BackboneError, WeightsNotFoundError


class ClipTokenizer:
    """CLIP's byte-pair encoding (49,408 tokens), the one nearly all open_clip models and all of OpenAI's use.

    Args:
        clean: open_clip's name of the clean-up before encoding: "lower", "whitespace" or "canonicalize".
    """

    def __init__(self, clean: str = "lower") -> None:
        self.clean = clean
        self._bpe = BytePairEncoding(open_clip_folder() / MERGES_FILE)
        self.framing = Framing(self._bpe.start_id, self._bpe.end_id, pad=0)
        self.vocab_size: int = self._bpe.vocab_size

    def __reduce__(self) -> tuple:
        # Worker processes take the one of their own process: the table of merges is large and the same everywhere.
        return clip_tokenizer, (self.clean,)

    def vocabulary(self, start: str, end: str) -> dict[str, int]:
        """Every symbol and its id; the start and end tokens under these names."""
        return self._bpe.vocabulary(start, end)

    def encode(self, text: str) -> list[int]:
        """Token ids of the cleaned text. No id is a start or end token, whatever the text says."""
        return self._bpe.encode(CLEANERS[self.clean](text))

    def decode(self, ids: list[int]) -> str:
        """The text of token ids (lower case, one blank between words)."""
        return self._bpe.decode(list(ids)).strip()


class HubTokenizer:
    """A Hugging Face tokenizer, framed by hand: open_clip's multilingual models use these.

    Args:
        tokenizer: what transformers' AutoTokenizer returns.
        clean: the text's clean-up before encoding.
        name: for messages.
        strip_end: the end token is taken away again and 0 stands there instead, as CLIPA's models learned it.

    Raises:
        BackboneError: it frames a text in a way that prompts cannot use.
    """

    def __init__(
        self, tokenizer: Any, clean: Callable[[str], str], name: str = "this", strip_end: bool = False
    ) -> None:
        self._tokenizer = tokenizer
        self._clean = clean
        framed = list(tokenizer("a").input_ids)
        plain = list(tokenizer("a", add_special_tokens=False).input_ids)
        # What the tokenizer itself puts before and after is the truth: mT5 for one has no start token.
        before = len(framed) - len(plain) - 1
        if not plain or before not in (0, 1) or framed[before:-1] != plain:
            raise BackboneError(
                f"The tokenizer {name!r} frames the ids {plain} as {framed}: expected at most one token before "
                "the text and exactly one after it."
            )
        end = 0 if strip_end and framed[-1] == tokenizer.sep_token_id else framed[-1]
        if tokenizer.pad_token_id is None:
            raise BackboneError(f"The tokenizer {name!r} has no padding token, which prompts need.")
        self.framing = Framing(framed[0] if before else None, end, int(tokenizer.pad_token_id))
        self.vocab_size: int = len(tokenizer)
        self._frame = {*framed[:before], framed[-1], end, self.framing.pad}

    def encode(self, text: str) -> list[int]:
        """Token ids of the cleaned text. No id is of a token that frames or pads, whatever the text says."""
        ids = self._tokenizer(self._clean(text), add_special_tokens=False).input_ids
        return [number for number in ids if number not in self._frame]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids."""
        return str(self._tokenizer.decode(list(ids))).strip()


@functools.cache
def clip_tokenizer(clean: str = "lower") -> ClipTokenizer:
    """CLIP's tokenizer: one for all backbones, as it never changes."""
    return ClipTokenizer(clean)


def tokenizer_for(text_cfg: dict, folder: str | None, download: bool) -> ClipTokenizer | HubTokenizer:
    """The tokenizer that open_clip uses for a text configuration.

    Args:
        text_cfg: the model configuration's "text_cfg".
        folder: of a model that came from one: there the tokenizer's files are looked for first.
        download: whether the network may be used.

    Raises:
        BackboneError: transformers is not installed.
        WeightsNotFoundError: the tokenizer's files are not on this machine.
    """
    settings = dict(text_cfg.get("tokenizer_kwargs") or {})
    name = text_cfg.get("hf_tokenizer_name")
    if not name:
        return clip_tokenizer(settings.get("clean", "lower"))
    require_transformers(f"The tokenizer {name!r}")
    from transformers import AutoTokenizer  # pyright: ignore[reportMissingImports]

    clean = CLEANERS[settings.pop("clean", "whitespace")]
    strip_end = bool(settings.pop("strip_sep_token", False))
    settings.pop("language", None)
    for source in (folder, name) if folder else (name,):
        try:
            tokenizer = AutoTokenizer.from_pretrained(
                source, local_files_only=not download, trust_remote_code=False, **settings
            )
        except (OSError, ValueError, TypeError):  # TypeError: of a path that is None, where the vocabulary is missing
            continue
        if _knows_words(tokenizer):
            return HubTokenizer(tokenizer, clean, name, strip_end)
    where = f"in {folder} and in the Hugging Face cache" if folder else "in the Hugging Face cache"
    raise WeightsNotFoundError(f"The files of the tokenizer {name!r} were not found {where}. {how_to_get()}")


def _knows_words(tokenizer: Any) -> bool:
    """Whether it has a vocabulary: where the file is missing, transformers makes a tokenizer of special tokens alone."""
    ids = tokenizer("a", add_special_tokens=False).input_ids
    return bool(ids) and getattr(tokenizer, "unk_token_id", None) not in ids
