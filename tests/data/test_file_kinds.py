from __future__ import annotations

from pathlib import Path

import pytest

from coopt.data import open_image
from coopt.data.file_kinds import what_it_is
from coopt.errors import BadImageError

from .conftest import picture


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0", "a Git LFS pointer and not the file itself"),
        (b"/annex/objects/SHA256E-s1", "a git-annex pointer"),
        (b"\xef\xbb\xbf\n <!DOCTYPE HTML>", "a web page (HTML)"),
        (b"<html><head>", "a web page (HTML)"),
        (b'<?xml version="1.0"?><svg width="1">', "an SVG drawing"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an XML document"),
        (b'{"error": "not found"}', "a JSON document"),
        (b"PK\x03\x04", "a ZIP archive"),
        (b"\0" * 257 + b"ustar", "a tar archive"),
        (b"\0" * 128 + b"DICM", "a DICOM image"),
        (b"\0\0\0\x18ftypheic", "a HEIC (HEIF) image. Install what reads it with `pip install 'coopt[heic]'`"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"\0\0\0\x0cJXL \r\n", "a JPEG XL image"),
        (b"%PDF-1.7", "a PDF document"),
    ],
)
def test_files_are_named_as_what_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, kind: str
) -> None:
    monkeypatch.setattr("coopt.data.images._READS_HEIF", False)
    (tmp_path / "x.jpg").write_bytes(data)
    with pytest.raises(BadImageError) as caught:
        open_image(tmp_path / "x.jpg")
    assert str(caught.value).startswith(f"'{tmp_path}/x.jpg' is {kind}")
    assert str(caught.value).endswith(", or leave it out.")


def test_others_are_not_guessed_at() -> None:
    assert what_it_is(b"hello, world") is None
    assert what_it_is(b"") is None


def test_heic_is_read_where_pillow_heif_is_installed(tmp_path: Path) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    from coopt.data import IMAGE_EXTENSIONS

    pillow_heif.from_pillow(picture(size=(64, 48))).save(tmp_path / "x.heic")
    assert ".heic" in IMAGE_EXTENSIONS
    assert open_image(tmp_path / "x.heic").size == (64, 48)
