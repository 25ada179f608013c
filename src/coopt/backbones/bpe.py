"""CLIP's byte-pair encoding (Radford et al., ICML 2021): cleaned text to token ids and back.

The table of merges is the file that open_clip ships; open_clip itself is not imported, which would take longer than
all else that a prediction needs.
"""

from __future__ import annotations

import gzip
import html
import string
from collections.abc import Callable
from functools import lru_cache
from itertools import pairwise
from pathlib import Path

import regex

MERGES_FILE = "bpe_simple_vocab_16e6.txt.gz"
MERGES = 48_894
"""Merges of the file that CLIP's vocabulary takes: with bytes, bytes at a word's end and two special tokens 49,408."""

END_OF_WORD = "</w>"
_WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+", regex.IGNORECASE)


def cleaned(text: str) -> str:
    """Broken Unicode mended, HTML's entities resolved (twice, as web texts have them), one blank between words."""
    import ftfy

    return " ".join(html.unescape(html.unescape(ftfy.fix_text(text))).split())


def _canonical(text: str) -> str:
    # Punctuation goes, but an underscore is a blank.
    plain = cleaned(text).replace("_", " ").translate(str.maketrans("", "", string.punctuation))
    return " ".join(plain.lower().split())


CLEANERS: dict[str, Callable[[str], str]] = {
    "lower": lambda text: cleaned(text).lower(),
    "whitespace": cleaned,
    "canonicalize": _canonical,
}
"""open_clip's names of what is done to a text before it is encoded."""


class BytePairEncoding:
    """Token ids of a text, without start and end tokens.

    Args:
        merges_file: pairs of symbols, one per line after the first, the most frequent first.

    Attributes:
        start_id, end_id: of the special tokens, which no text becomes.
        vocab_size: number of ids.
    """

    def __init__(self, merges_file: Path) -> None:
        lines = gzip.decompress(merges_file.read_bytes()).decode("utf-8").split("\n")
        merges = [tuple(line.split()) for line in lines[1 : MERGES + 1]]
        self._letters = _letters_of_bytes()
        letters = list(self._letters.values())
        symbols = [*letters, *(letter + END_OF_WORD for letter in letters), *map("".join, merges)]
        self._rank = {pair: rank for rank, pair in enumerate(merges)}
        self._id = {symbol: i for i, symbol in enumerate(symbols)}
        self._symbols = symbols
        self._byte = {letter: byte for byte, letter in self._letters.items()}
        self.start_id, self.end_id = len(symbols), len(symbols) + 1
        self.vocab_size = len(symbols) + 2
        self._ids_of_word = lru_cache(maxsize=1 << 16)(self._encode_word)

    def vocabulary(self, start: str, end: str) -> dict[str, int]:
        """Every symbol and its id; the special tokens under these names."""
        return {**self._id, start: self.start_id, end: self.end_id}

    def encode(self, text: str) -> list[int]:
        """Token ids of a cleaned text."""
        return [token for word in _WORDS.findall(text) for token in self._ids_of_word(word)]

    def decode(self, ids: list[int]) -> str:
        """The text of token ids; bytes that are not UTF-8 are replaced, and special tokens written out."""
        special = {self.start_id: "<start_of_text>", self.end_id: "<end_of_text>"}
        text = "".join(special.get(token) or self._symbols[token] for token in ids)
        return bytes(self._byte[letter] for letter in text).decode("utf-8", "replace").replace(END_OF_WORD, " ")

    def _encode_word(self, word: str) -> tuple[int, ...]:
        letters = [self._letters[byte] for byte in word.encode("utf-8")]
        symbols = [*letters[:-1], letters[-1] + END_OF_WORD]
        while len(symbols) > 1:
            best = min(pairwise(symbols), key=lambda pair: self._rank.get(pair, len(self._rank)))
            if best not in self._rank:
                break
            symbols = _merged(symbols, best)
        return tuple(self._id[symbol] for symbol in symbols)


def _merged(symbols: list[str], pair: tuple[str, str]) -> list[str]:
    """The symbols with every occurrence of the pair, from left to right, as one."""
    out: list[str] = []
    for symbol in symbols:
        if out and (out[-1], symbol) == pair:
            out[-1] += symbol
        else:
            out.append(symbol)
    return out


def _letters_of_bytes() -> dict[int, str]:
    """A printable letter for every byte: itself where it is one in Latin-1, one above 255 otherwise."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
