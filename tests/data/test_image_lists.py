from __future__ import annotations

import os
from pathlib import Path

import pytest

from coopt.data.image_lists import listed_images
from coopt.errors import DataError


def _listed(data: bytes, folder: Path | None = None) -> list[str]:
    return [os.fspath(path) for path in listed_images(data.splitlines(keepends=True), "list", folder)]


def test_a_list_is_taken_line_by_line() -> None:
    lines = iter([b"a b.png\n", b"\n", b"  \r\n", b"caf\xe9.png\r\n", b"a b.png"])
    names = listed_images(lines, "list")
    assert next(names) == Path("a b.png")
    assert next(lines) == b"\n"  # no more is read than is asked for
    assert [os.fsencode(name) for name in names] == [b"caf\xe9.png", b"a b.png"]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le"])
def test_encodings(encoding: str) -> None:
    assert _listed("\n/x/ä b.png\r\n\r\n/x/c.png".encode(encoding)) == ["/x/ä b.png", "/x/c.png"]


@pytest.mark.parametrize(
    "text",
    [
        "path,label\na.png,cat\nb.png,dog\n",
        "id;file_name\n1;a.png\n2;b.png\n",
        "path\na.png\nb.png",
        '"path","class","probability"\n"a.png","cat","0.9"\n"b.png","dog","0.8"\n',
        '{"path": "a.png", "class": "cat"}\n\n{"path": "b.png"}\n',
        '{"file_name": "a.png"}\n{"file_name": "b.png"}\n',
        '["a.png", "b.png"]',
        '[{"path": "a.png"},\n {"path": "b.png"}]',
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-8", "utf-16"])
def test_tables_and_records_give_their_paths(text: str, encoding: str) -> None:
    assert _listed(text.encode(encoding)) == ["a.png", "b.png"]


def test_a_file_may_be_called_like_a_column() -> None:
    assert _listed(b"image\nfile\n") == ["image", "file"]
    assert _listed(b"a,b.png\npath.png\n") == ["a,b.png", "path.png"]


def test_paths_are_found_from_here_and_from_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("here/sub/1.png", "lists/2.png", "lists/sub/1.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path / "here")
    found = _listed(b"sub\\1.png\n2.png\ngone.png\n", tmp_path / "lists")
    assert found == ["sub/1.png", f"{tmp_path}/lists/2.png", "gone.png"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"PK\x03\x04 ...", r"list of images 'list' is a ZIP archive .*Unpack it\. Expected one path per line"),
        (b"PAR1....", r"is a Parquet table"),
        (b"\x89PNG\r\n\x1a\n", r"'list' is an image, not a list of images"),
        (b'{"label": 3}\n', r'Line 1 of the list of images \'list\' names no image: \{"label": 3\}'),
        (b'{"path": "a"}\n{broken\n', r"Line 2 of the list of images 'list' is not JSON"),
        (b"path,image\na,b\n", None),
    ],
)
def test_what_is_no_list_is_named(data: bytes, message: str | None) -> None:
    if message is None:
        assert _listed(data) == ["a"]
        return
    with pytest.raises(DataError, match=message):
        _listed(data)
