from __future__ import annotations

import pytest

from coopt.data.text_files import decode_text, in_unicode, visible


@pytest.mark.parametrize(
    "encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le"], ids=lambda one: one
)
def test_every_unicode_encoding(encoding: str) -> None:
    assert decode_text("path,ä猫\n".encode(encoding)) == "path,ä猫\n"


def test_other_bytes_are_kept_and_read_where_they_are_shown() -> None:
    text = decode_text(b"caf\xe9 \x80")
    assert text.encode("utf-8", "surrogateescape") == b"caf\xe9 \x80"
    assert in_unicode(text) == "café €"
    assert in_unicode(decode_text(b"\x81")) == "\x81"  # which Windows-1252 does not have
    assert in_unicode("猫") == "猫"
    assert decode_text(b"") == ""


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("  a b\t", "a b"),
        ("\ufeff\u200bcat\u00a0\u2060", "cat"),
        ("\u200b\u00a0\u3164\u2800\x00\x1b", ""),
        ("\ufe0f", ""),
        ("❤\ufe0f", "❤\ufe0f"),
        ("👩\u200d🍳", "👩\u200d🍳"),
        ("\u200fחתול\u200f", "חתול"),
        ("\U0001f3f4\U000e0067\U000e007f", "\U0001f3f4\U000e0067\U000e007f"),
        ("\udce9", "\udce9"),  # an undecoded byte
        ("", ""),
    ],
)
def test_what_is_seen_of_a_name(text: str, seen: str) -> None:
    assert visible(text) == seen
