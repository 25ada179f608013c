from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from coopt.data import encode_labels, load_dataset
from coopt.data.class_names import renamed
from coopt.data.splits import ImageDataset, Split
from coopt.errors import ClassNameWarning, DataError
from coopt.wording import spoken

from .conftest import make_folder

WORDNET = ("n01440764", "n01443537", "n02012849", "n03126707")


def _dataset(*names: str) -> ImageDataset:
    split = Split(tuple(Path(f"/root/{name}/1.png") for name in names), names)
    return ImageDataset("made", Path("/root"), tuple(sorted(names)), split, test=split)


def _names(names: Any, *classes: str) -> tuple[str, ...]:
    return renamed(_dataset(*classes), names).class_names


class TestMapping:
    def test_everything_else_stays(self) -> None:
        dataset = _dataset("10", "9")
        other = renamed(dataset, {"9": "nine", "10": " ten\u200b", "11": "eleven"})
        assert other.class_names == ("ten", "nine")  # the classes keep their places
        assert other.train.labels == ("ten", "nine")
        assert other.test == other.train
        assert other.train.paths == dataset.train.paths
        assert other.notes == ("Class names are those of class_names: '9' is 'nine', '10' is 'ten'.",)
        assert other.hash != dataset.hash

    def test_keys_may_be_integers(self) -> None:
        assert _names({0: "a", 1: "b"}, "0", "1") == ("a", "b")

    def test_a_list_counts_numbers_by_value(self) -> None:
        classes = [str(i) for i in range(11)]
        names = [f"name {i}" for i in range(11)]
        other = renamed(_dataset(*classes), names)
        assert dict(zip(other.train.labels, classes, strict=True)) == dict(zip(names, classes, strict=True))
        assert _names(["x", "y"], "b", "a") == ("x", "y")

    @pytest.mark.parametrize(
        ("names", "message"),
        [
            ({"a": "x"}, r"class_names has no name for 1 of 2 classes: 'b'\. Add a name for each"),
            ({"a": "x", "bb": "y"}, r"no name for .*'b'\. Did you mean that class by 'bb'\?"),
            ({"a": "x", "b": "x"}, r"gives the name 'x' to two classes, 'a' and 'b'\. .*move their images into one"),
            ({"a": "x", "b": "\u200b "}, r"gives 1 classes a blank name: 'b'"),
            ({"a": "x", "b": 1.5}, r"must be text\. Got 1\.5 \(float\)"),
            (["x"], r"has 1 names for 2 classes \('a', 'b'\)\. Expected one for each, in this order"),
        ],
    )
    def test_what_does_not_fit_is_said(self, names: Any, message: str, unchecked: None) -> None:
        with pytest.raises(DataError, match=message):
            _names(names, "a", "b")


class TestFiles:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("names.json", '{"0": "tench", "1": "gold fish"}'),
            ("names.json", '["tench", "gold fish"]'),
            ("names.csv", "id,name\n0,tench\n1,gold fish\n"),
            ("names.csv", "0;tench\n1;gold fish\n"),
            ("names.tsv", "0\ttench\n1\tgold fish\n2\tshark"),
            ("names.txt", "0 tench\n1 gold fish\n"),
            ("names.txt", "0: tench\n\n1: gold fish\n2: shark\n"),
            ("names.txt", "0 = tench\n1 = gold fish\n"),
            ("names.txt", "0\ttench\r1\tgold fish\r"),
            ("names", "tench\ngold fish\n"),
            ("mixed.txt", "0 tench\n1\tgold fish\n"),
            ("mixed.txt", "1: gold fish\n0,tench\n"),
        ],
    )
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
    def test_what_people_write(self, tmp_path: Path, name: str, text: str, encoding: str) -> None:
        (tmp_path / name).write_bytes(text.encode(encoding))
        assert _names(tmp_path / name, "0", "1") == ("tench", "gold fish")

    def test_lists_of_imagenet(self, tmp_path: Path) -> None:
        lines = ["n01440764 tench, Tinca tinca", "n01443537 goldfish", "n02012849 crane", "n03126707 crane", "n1 x"]
        (tmp_path / "LOC_synset_mapping.txt").write_text("\n".join(lines))
        assert _names(tmp_path / "LOC_synset_mapping.txt", *WORDNET) == ("tench", "goldfish", "crane", "crane_")
        keras = {str(i): line.split(" ", 1) for i, line in enumerate(lines[:4])}
        (tmp_path / "imagenet_class_index.json").write_text(json.dumps(keras))
        assert _names(str(tmp_path / "imagenet_class_index.json"), *WORDNET[:2]) == ("tench", "goldfish")

    @pytest.mark.parametrize(
        ("name", "text", "message"),
        [
            ("x.json", '{"0": "a",', r"x\.json' is not JSON"),
            ("x.json", "3", r"holds no class names\. Expected an object"),
            ("x.json", '{"0": "a", "1": "b", "0": "c"}', r"gives the class '0' two names: 'a' and 'c'"),
            ("x.csv", "0,a,b\n1,c,d", r"row of 3 cells: '0', 'a', 'b'\. Expected two columns"),
            ("x.txt", "", r"is empty"),
            ("x.txt", "cat\ndog\ncow", r"has 3 lines for 2 classes \('0', '1'\)"),
            ("x.txt", "0 cat\n2 dog\n3 cow", r"has no name for 1 of 2 classes: '1'"),
            ("x.txt", "0 cat\n1 dog\n1 cow", r"gives the class '1' two names"),
        ],
    )
    def test_what_cannot_be_read_is_said(self, tmp_path: Path, name: str, text: str, message: str) -> None:
        (tmp_path / name).write_text(text)
        with pytest.raises(DataError, match=message):
            _names(tmp_path / name, "0", "1")

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match=r"gone\.json' cannot be read: No such file"):
            _names(tmp_path / "gone.json", "0", "1")


class TestCodes:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [
            (["0", "10"], "2 of 2"),
            (["cat", "dog", "0001"], "1 of 3"),
            (list(WORDNET), "4 of 4"),
            (["class_01", "class_02"], "2 of 2"),
            (["c0", "c1"], "2 of 2"),
            (["d41d8cd98f00b204", "cat"], "1 of 2"),
            (["123e4567-e89b-12d3-a456-426614174000", "cat"], "1 of 2"),
            (["001.Black_footed_Albatross", "002.Laysan_Albatross"], "2 of 2"),
            (["n02085620-Chihuahua", "n02085782-Japanese_spaniel"], "2 of 2"),
            (["a", "b", "7up", "B52", "1_dollar", "5_dollar", "747 jumbo", "3 people", "猫", "❤"], None),
            (["cafe", "facade", "decade", "Vitamin C", "class act"], None),
        ],
    )
    def test_names_that_say_nothing_are_warned_of(self, tmp_path: Path, names: list[str], expected: str | None) -> None:
        make_folder(tmp_path, dict.fromkeys(names, 1))
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            load_dataset(tmp_path, test_fraction=0)
        messages = [str(one.message) for one in caught]
        assert [expected] * bool(expected) == [one.split(" class names")[0] for one in messages]

    def test_the_warning_names_the_remedy(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"10": 1, "9": 1})
        with pytest.warns(ClassNameWarning, match=r'"a photo of a 10\."\. .* with class_names=\{\'10\': \'\.\.\.\'\}'):
            load_dataset(tmp_path, test_fraction=0)
        with (
            spoken({"class_names": "--class-names"}),
            pytest.warns(ClassNameWarning, match=r"with --class-names FILE\."),
        ):
            load_dataset(tmp_path, test_fraction=0)

    @pytest.mark.filterwarnings("error")
    def test_given_names_are_taken_without_a_word(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"10": 5, "9": 5})
        dataset = load_dataset(tmp_path, class_names={"9": "cat", "10": "dog"})
        plain = load_dataset(tmp_path, class_names={"9": "9", "10": "10"})
        assert dataset.class_names == ("dog", "cat")
        assert dataset.test is not None and plain.test is not None
        assert dataset.test.paths == plain.test.paths  # the same images are held out

    def test_labels_are_warned_of_and_integers_are_not(self) -> None:
        with pytest.warns(ClassNameWarning, match=r"2 of 2 class names are numbers .*, give the names as labels\."):
            encode_labels(["1", "2"])
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            encode_labels([0, 1], ["cat", "dog"])
            encode_labels(["1", "2"], ["1", "2"])
