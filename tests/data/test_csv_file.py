from __future__ import annotations

import os
from pathlib import Path

import pytest

from coopt.data import load_dataset
from coopt.errors import CooptWarning, DataError, SkippedImageWarning

from .conftest import make_folder, save_picture


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return make_folder(tmp_path / "data", {"a": 3, "b": 3})


def _write(folder: Path, text: str | bytes, name: str = "labels.csv") -> Path:
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder / name


ROWS = [f"{c}/00{i}.png,{label}" for c, label in (("a", "red panda"), ("b", "dog")) for i in range(3)]


def test_paths_and_labels(folder: Path) -> None:
    dataset = load_dataset(_write(folder, "\n".join(["path,label", *ROWS])), test_fraction=0)
    assert dataset.name == "labels"
    assert dataset.class_names == ("dog", "red panda")
    assert dataset.train.paths[0] == folder / "a" / "000.png"
    assert dataset.train.counts == {"red panda": 3, "dog": 3}


@pytest.mark.parametrize(("delimiter", "bom"), [(",", True), (";", False), ("\t", True), ("|", False)])
def test_what_spreadsheets_write(folder: Path, delimiter: str, bom: bool) -> None:
    lines = ["Label,PATH , note", *(f"{label},{path},x" for path, label in (row.split(",") for row in ROWS)), ",,", ""]
    text = "\r\n".join(lines).replace(",", delimiter)
    file = _write(folder, (b"\xef\xbb\xbf" if bom else b"") + text.encode(), "labels.tsv")
    assert load_dataset(file, test_fraction=0).train.counts == {"red panda": 3, "dog": 3}


def test_splits_and_absolute_paths_and_quotes(folder: Path) -> None:
    save_picture(folder / "with, comma.png", 99)
    text = ["path,label,split", *(f"{folder}/{row},Train" for row in ROWS)]
    text += ['"with, comma.png",dog,val', "a/000.png,red panda,test"]
    dataset = load_dataset(_write(folder, "\n".join(text)))
    assert [len(split) for split in (dataset.train, dataset.val, dataset.test) if split is not None] == [6, 1, 1]
    assert not dataset.held_out_made


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"labels\.csv' is empty\. Expected a header path,label"),
        ("path,label\n", r"has a header but no images"),
        ("where,what\na/000.png,a", r"has no column 'path' and 'label'\. Its first line reads 'where', 'what'"),
        ("path,what\na/000.png,a", r"has no column 'label'\..* other names are given with label_column='NAME'"),
        ("a/000.png,a\nb/000.png,b", r"It has no header: put a line path,label above it"),
        ("path,label,label\na/000.png,a,b", r"has 2 columns 'label'\. Rename all but one"),
        (
            "file,image,label\na/000.png,b,a",
            r"several columns that may hold the image's path: 'file' and 'image'\. Say which with path_column='file'",
        ),
        ("path,label\na/000.png", r"has 2 columns, but line 2 has 1 cells\. Put quotes around"),
        ("path,label\na/000.png,a\n\n,b", r"has 1 rows without a path: line 4"),
        ("path,label\na/000.png,a\nb/000.png,", r"has 1 rows without a label: line 3"),
        ("path,label,split\na/000.png,a,dev", r"unknown split \(expected train, val, test\): line 2 \('dev'\)"),
        (
            "path,label\na/000.png,a\na/000.png,b",
            r"another label .*: line 3 \('a/000\.png' is 'b', and 'a' in line 2\)",
        ),
        ("path,label\na/000.png,\u200b\u00a0\nb/000.png,b", r"has 1 rows without a label: line 2"),
        (
            "path,label\na/000.png,a\na/../a/000.png,b",
            r"another label for the same image: line 3 \('a/\.\./a/000\.png' is 'b', and 'a' in line 2\)",
        ),
        ("path,label\na/000.png,a", r"has only one class: 'a'"),
        ("path,label,split\na/000.png,a,train\nb/000.png,b,train\nb/001.png,c,test", r"does not have: 'c'"),
    ],
)
def test_bad_files_are_explained_with_line_numbers(folder: Path, text: str | bytes, message: str) -> None:
    with pytest.raises(DataError, match=message):
        load_dataset(_write(folder, text))


def test_labels_without_a_file(folder: Path) -> None:
    missing = [f"gone/{i}.png,dog" for i in range(7)]
    file = _write(folder, "\n".join(["path,label", *ROWS, *missing, "a,dog"]))
    with pytest.raises(DataError) as caught:
        load_dataset(file)
    message = str(caught.value)
    assert "names 8 of 14 images that do not exist: line 8 ('gone/0.png'), line 9 ('gone/1.png')" in message
    assert "on_bad_image='skip'" in message
    with pytest.warns(SkippedImageWarning, match=r"8 of 14 images that do not exist: .* They are left out"):
        dataset = load_dataset(file, on_bad_image="skip", test_fraction=0)
    assert len(dataset.train) == 6


def test_nothing_left_is_an_error_also_when_skipping(folder: Path) -> None:
    with pytest.raises(DataError, match=r"names 1 of 1 images that do not exist"):
        load_dataset(_write(folder, "path,label\ngone.png,dog"), on_bad_image="skip")


def test_file_names_that_are_not_utf8(folder: Path) -> None:
    path = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png"))
    try:
        save_picture(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    dataset = load_dataset(_write(folder, b"path,label\ncaf\xe9.png,a\nb/000.png,b"), test_fraction=0)
    assert dataset.train.paths[0] == path
    assert len(dataset.hash) == 64


@pytest.mark.parametrize(
    "encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "cp1252"], ids=lambda one: one
)
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"], ids=["unix", "windows", "old-mac"])
@pytest.mark.parametrize("head", ["path;label", "sep=;\npath;label"], ids=["plain", "sep"])
@pytest.mark.filterwarnings("ignore:.*is not UTF-8")
def test_encodings_line_ends_and_backslashes(folder: Path, encoding: str, end: str, head: str) -> None:
    lines = [head, *(f"{c}\\00{i}.png;{label}" for c, label in (("a", "café"), ("b", "\u200bdog ")) for i in range(3))]
    lines = [line.replace("\u200b", "") for line in lines] if encoding == "cp1252" else lines
    file = _write(folder, "\n".join(lines).replace("\n", end).encode(encoding))
    dataset = load_dataset(file, test_fraction=0)
    assert dataset.train.counts == {"café": 3, "dog": 3}
    assert dataset.train.paths[0] == folder / "a" / "000.png"


def test_labels_that_are_not_utf8_are_read_and_said(folder: Path) -> None:
    file = _write(folder, b"path,label\na/000.png,caf\xe9\nb/000.png,b")
    with pytest.warns(CooptWarning, match=r"not UTF-8: 1 labels were read as Windows-1252 \('café' in line 2\)"):
        assert load_dataset(file, test_fraction=0).class_names == ("b", "café")


def test_line_numbers_count_the_line_of_excel(folder: Path) -> None:
    with pytest.raises(DataError, match=r"without a label: line 3"):
        load_dataset(_write(folder, "sep=,\npath,label\na/000.png,\nb/000.png,b"))


def test_other_column_names_are_taken_and_said(folder: Path) -> None:
    rows = [f"x,{row}" for row in ROWS]
    file = _write(folder, "\n".join(["id,File Name,Category", *rows]))
    with pytest.warns(CooptWarning, match=r"'File Name' is taken as path and the column 'Category' is taken as label"):
        assert load_dataset(file, test_fraction=0).train.counts == {"red panda": 3, "dog": 3}


@pytest.mark.filterwarnings("error")
def test_columns_as_the_user_calls_them(folder: Path) -> None:
    rows = [f"{row},{part}" for row, part in zip(ROWS, ["train", "test", "train"] * 2, strict=True)]
    file = _write(folder, "\n".join(["where,what,how", *rows]))
    dataset = load_dataset(file, path_column="where", label_column="What", split_column="how")
    assert dataset.train.counts == {"red panda": 2, "dog": 2}
    assert dataset.test is not None and len(dataset.test) == 2
    with pytest.raises(DataError, match=r"has no column 'whta'\. .* Did you mean 'what'\?"):
        load_dataset(file, path_column="where", label_column="whta")


def test_a_column_called_subset_is_a_split_when_it_says_so(folder: Path) -> None:
    for values, tested in ((["train", "test", "val"], 2), (["A", "B", "C"], None)):
        rows = [f"{row},{values[i % 3]}" for i, row in enumerate(ROWS)]
        dataset = load_dataset(_write(folder, "\n".join(["path,label,subset", *rows])), test_fraction=0)
        assert (dataset.test and len(dataset.test)) == tested


def test_an_image_named_twice_counts_once(folder: Path) -> None:
    again = ["./a/000.png,red panda", "b/../a/001.png,red panda", f"{folder}/b/000.png,dog", "b\\001.png,dog"]
    file = _write(folder, "\n".join(["path,label", *ROWS, *again]))
    with pytest.warns(
        CooptWarning, match=r"4 rows that name an image again \(line 8 \('\./a/000\.png', as in line 2\)"
    ):
        assert load_dataset(file, test_fraction=0).train.counts == {"red panda": 3, "dog": 3}


def test_names_are_found_as_other_systems_write_them(folder: Path) -> None:
    save_picture(folder / "café.png", 9)
    rows = ["path,label", "cafe\u0301.png,a", "b/000.png,b"]
    dataset = load_dataset(_write(folder, "\n".join(rows)), test_fraction=0)
    assert dataset.train.paths[0].samefile(folder / "café.png")


def test_labels_that_are_numbers_take_names(folder: Path) -> None:
    rows = [row.replace("red panda", "1").replace("dog", "0") for row in ROWS]
    file = _write(folder, "\n".join(["path,label", *rows]))
    dataset = load_dataset(file, test_fraction=0, class_names=["a dog", "a panda"])
    assert dataset.train.counts == {"a panda": 3, "a dog": 3}
