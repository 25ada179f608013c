"""What is wrong with a data set is said in one sentence: where, what was expected, what is there."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path

import pytest

from coopt.data import extract_features, load_dataset
from coopt.errors import BadImageError, CooptWarning, DataError, SkippedImageWarning

from ..conftest import TinyBackbone
from .layouts import LAYOUTS, load, text, write_split

SPLIT = "split_zhou_DescribableTextures.json"
GOOD = [("banded/banded_0001.jpg", 0, "banded"), ("zigzagged/zigzagged_0001.jpg", 1, "zigzagged")]


@pytest.fixture
def dtd(tmp_path: Path) -> Path:
    LAYOUTS["dtd"](tmp_path)
    return tmp_path


def refused(name: str, root: Path) -> str:
    with pytest.raises(DataError) as caught:
        load(name, root)
    message = str(caught.value)
    assert "\n" not in message
    return message


class TestRoot:
    def test_without_one(self) -> None:
        with pytest.raises(DataError, match=r"If Caltech101 is meant, say where it lies: with root= \(--root\), or"):
            load_dataset("caltech101")

    def test_from_the_environment(self, dtd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        expected = load("dtd", dtd)
        monkeypatch.setenv("COOPT_DATA_ROOT", str(dtd))
        with pytest.warns(CooptWarning):
            assert load_dataset("dtd") == expected

    def test_a_folder_of_that_name_comes_first_without_root(self, dtd: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("COOPT_DATA_ROOT", str(dtd))
        monkeypatch.chdir(dtd)
        assert load_dataset("dtd/images", test_fraction=0).name == "images"
        (dtd / "dtd" / "pets").symlink_to(dtd / "dtd" / "images")
        monkeypatch.chdir(dtd / "dtd")
        assert load_dataset("pets", test_fraction=0).template is None

    def test_that_does_not_exist(self, tmp_path: Path) -> None:
        message = refused("eurosat", tmp_path / "gone")
        assert message.startswith(f"The root '{tmp_path}/gone' is not a folder. Expected EuroSAT's images in ")
        assert message.endswith("eurosat/2750'.")

    def test_says_what_is_there_instead(self, dtd: Path) -> None:
        assert refused("caltech101", dtd) == (
            f"Expected Caltech101's images in '{dtd}/caltech-101/101_ObjectCategories'. '{dtd}' holds dtd."
        )
        (dtd / "dtd/images").rename(dtd / "dtd/pictures")
        assert refused("dtd", dtd).endswith(f"'{dtd}/dtd' holds pictures.")

    def test_one_folder_too_deep(self, dtd: Path) -> None:
        assert refused("dtd", dtd / "dtd").endswith(f"Give the folder above it as the root: '{dtd}'.")

    def test_unknown_name(self, dtd: Path) -> None:
        assert refused("catlech101", dtd) == "There is no data set 'catlech101'. Did you mean 'caltech101' or 'ucf101'?"
        assert "There are imagenet, caltech101, oxford_pets" in refused("zzz", dtd)

    def test_a_path_stays_a_path_beside_a_root(self, dtd: Path) -> None:
        assert load(str(dtd / "dtd/images"), dtd, test_fraction=0).name == "images"

    def test_test_parts_cannot_be_learned_from(self, tmp_path: Path) -> None:
        LAYOUTS["imagenetv2"](tmp_path)
        with pytest.warns(CooptWarning), pytest.raises(DataError, match="imagenetv2 has a test part only: learn from"):
            load_dataset("imagenetv2", root=tmp_path)


class TestSplitFiles:
    def test_cut_short(self, dtd: Path) -> None:
        file = dtd / "dtd" / SPLIT
        write_split(file, {"train": GOOD})
        file.write_text(file.read_text()[:-20])
        assert "is cut short or not JSON" in refused("dtd", dtd) and "Fetch it again" in refused("dtd", dtd)
        file.write_bytes(b"\xff\xfe\x00")
        assert "is cut short or not JSON" in refused("dtd", dtd)

    @pytest.mark.parametrize(
        ("content", "expected"),
        [
            ([], "is not a split file. Expected an object with the lists train, val and test."),
            ({"train": [], "val": []}, "Expected an object with the lists train, val and test."),
            ({"train": [], "val": [], "test": []}, "names no images"),
            ({"train": [["a.jpg", "0", "a"]], "val": [], "test": []}, 'is ["a.jpg", "0", "a"]. Expected [path, label,'),
            ({"train": [["a.jpg", True, "a"]], "val": [], "test": []}, "Entry 0 of the train part in"),
            ({"train": [], "val": [], "test": [["", 0, "a"]]}, "Entry 0 of the test part in"),
            (
                {"train": [["a", 0, "a"]], "val": [], "test": [["b", 0, "b"]]},
                "gives label 0 two class names: 'a' and 'b' ('b')",
            ),
            (
                {"train": [["a", 0, "a"], ["b", 1, "a"]], "val": [], "test": []},
                "gives the class name 'a' two labels: 0 and 1 ('b')",
            ),
            (
                {"train": [["a", 0, "a"], ["b", 2, "b"]], "val": [], "test": []},
                "has 2 classes, but none with label 1. Expected labels from 0 to 1.",
            ),
        ],
    )
    def test_of_wrong_content(self, dtd: Path, content: object, expected: str) -> None:
        (dtd / "dtd" / SPLIT).write_text(json.dumps(content))
        assert expected in refused("dtd", dtd) and SPLIT in refused("dtd", dtd)

    def test_that_name_missing_images(self, dtd: Path) -> None:
        gone = [("banded/gone_1.jpg", 0, "banded"), ("nowhere/gone_2.jpg", 1, "zigzagged")]
        write_split(dtd / "dtd" / SPLIT, {"train": [*GOOD, *gone]})
        assert refused("dtd", dtd).startswith(
            "2 of 4 images of DescribableTextures are missing, the first: "
            f"'{dtd}/dtd/images/banded/gone_1.jpg'. Unpack the data set again"
        )
        with pytest.warns(SkippedImageWarning, match="2 of 4 images .* They are left out"), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*not comparable.*")
            dataset = load_dataset("dtd", root=dtd, on_bad_image="skip")
        assert [path.name for path in dataset.train.paths] == ["banded_0001.jpg", "zigzagged_0001.jpg"]

    def test_that_name_only_missing_images(self, dtd: Path) -> None:
        write_split(dtd / "dtd" / SPLIT, {"train": [("a.jpg", 0, "a"), ("b.jpg", 1, "b")]})
        with pytest.raises(DataError, match="2 of 2 images"):
            load("dtd", dtd, on_bad_image="skip")


def test_few_classes_are_warned_of(dtd: Path) -> None:
    write_split(dtd / "dtd" / SPLIT, {"train": GOOD})
    with pytest.warns(CooptWarning, match=r"has 2 classes in '.*dtd', not 47: numbers are not comparable"):
        load_dataset("dtd", root=dtd)


def test_a_broken_image_is_found_when_it_is_read(dtd: Path) -> None:
    (dtd / "dtd/images/banded/banded_0001.jpg").write_bytes(b"\xff\xd8\xff cut short")
    dataset = load("dtd", dtd)
    paths = [path for split in (dataset.train, dataset.val, dataset.test) if split for path in split.paths]
    with pytest.raises(BadImageError, match=r"banded_0001\.jpg"):
        extract_features(TinyBackbone(), sorted(paths), cache=None)


OFFICIAL = {
    "oxford_pets": "annotations/trainval.txt",
    "stanford_cars": "devkit/cars_train_annos.mat",
    "oxford_flowers": "imagelabels.mat",
    "fgvc_aircraft": "images_variant_train.txt",
    "sun397": "Training_01.txt",
    "ucf101": "ucfTrainTestlist/trainlist01.txt",
}


class TestOfficialLists:
    @pytest.mark.parametrize("name", OFFICIAL)
    def test_missing(self, name: str, tmp_path: Path) -> None:
        LAYOUTS[name](tmp_path)
        folder = next(tmp_path.iterdir())
        (folder / OFFICIAL[name]).unlink()
        message = refused(name, tmp_path)
        assert message.startswith(f"In '{folder}', {OFFICIAL[name]} is missing, without which ")
        assert ("Put split_zhou_" in message) == (name != "fgvc_aircraft")

    @pytest.mark.parametrize("name", OFFICIAL)
    @pytest.mark.parametrize("content", [b"", b"not what it should be\n", b"\xff\xfe\x00\x01" * 50])
    def test_damaged(self, name: str, content: bytes, tmp_path: Path) -> None:
        LAYOUTS[name](tmp_path)
        file = next(tmp_path.iterdir()) / OFFICIAL[name]
        file.write_bytes(content)
        assert str(file) in refused(name, tmp_path)

    def test_a_class_that_is_not_listed(self, tmp_path: Path) -> None:
        for name, file, line in (
            ("fgvc_aircraft", "fgvc_aircraft/variants.txt", "F/A-18"),
            ("sun397", "sun397/ClassName.txt", "/a/abbey"),
            ("ucf101", "ucf101/ucfTrainTestlist/classInd.txt", "1 ApplyEyeMakeup"),
        ):
            LAYOUTS[name](tmp_path)
            text(tmp_path / file, [line])
            assert f"which is not in {Path(file).name}. Fetch both again." in refused(name, tmp_path)

    def test_flowers_without_a_name(self, tmp_path: Path) -> None:
        LAYOUTS["oxford_flowers"](tmp_path)
        file = tmp_path / "oxford_flowers/cat_to_name.json"
        for content in ('{"1": "rose"}', "[1]", "{"):
            file.write_text(content)
            assert f"'{file}' does not name the classes of imagelabels.mat" in refused("oxford_flowers", tmp_path)

    def test_images_of_a_list_that_are_missing(self, tmp_path: Path) -> None:
        LAYOUTS["fgvc_aircraft"](tmp_path)
        (tmp_path / "fgvc_aircraft/images/0034311.jpg").unlink()
        assert "1 of 36 images of FGVCAircraft are missing" in refused("fgvc_aircraft", tmp_path)


class TestImageNet:
    def test_without_class_names(self, tmp_path: Path) -> None:
        LAYOUTS["imagenet_sketch"](tmp_path)
        (tmp_path / "imagenet-sketch/classnames.txt").unlink()
        message = refused("imagenet_sketch", tmp_path)
        assert re.match(r"There is no '.*imagenet-sketch/classnames.txt' nor '.*imagenet/classnames.txt'", message)

    @pytest.mark.parametrize("line", ["tench", "n01440764", "n01440764 tench", "n0144 x"])
    def test_wrong_class_names(self, tmp_path: Path, line: str) -> None:
        LAYOUTS["imagenet_sketch"](tmp_path)
        text(tmp_path / "imagenet-sketch/classnames.txt", ["n01440764 tench", line])
        assert f"reads '{line}'. Expected a WordNet id" in refused("imagenet_sketch", tmp_path)

    def test_folders_without_a_name(self, tmp_path: Path) -> None:
        LAYOUTS["imagenet_sketch"](tmp_path)
        (tmp_path / "imagenet-sketch/images/n99999999").mkdir()
        assert "has 1 folders that classnames.txt does not name: 'n99999999'" in refused("imagenet_sketch", tmp_path)
        LAYOUTS["imagenetv2"](tmp_path)
        (tmp_path / "imagenetv2/imagenetv2-matched-frequency-format-val/1000").mkdir()
        assert "has the folder '1000'. Expected folders from 0 to 3" in refused("imagenetv2", tmp_path)

    def test_validation_images_without_folders(self, tmp_path: Path) -> None:
        LAYOUTS["imagenet"](tmp_path)
        val = tmp_path / "imagenet/images/val"
        for i, file in enumerate(sorted(val.rglob("*.JPEG"))):
            file.rename(val / f"ILSVRC2012_val_{i:08}.JPEG")
        for folder in [entry for entry in val.iterdir() if entry.is_dir()]:
            folder.rmdir()
        assert "val' has no class folders (12 images lie in it directly)" in refused("imagenet", tmp_path)
        for file in val.iterdir():
            file.unlink()
        val.rmdir()
        assert f"There is no folder '{val}'" in refused("imagenet", tmp_path)

    def test_parts_with_other_folders(self, tmp_path: Path) -> None:
        LAYOUTS["imagenet"](tmp_path)
        (tmp_path / "imagenet/images/val/n01440764").rename(tmp_path / "elsewhere")
        assert "has 4 class folders in train/ and 3 in val/" in refused("imagenet", tmp_path)


def test_lists_with_byte_order_marks_are_read(dtd: Path) -> None:
    for path, _, _ in GOOD:
        (dtd / "dtd" / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        (dtd / "dtd" / "images" / path).touch()
    write_split(dtd / "dtd" / SPLIT, {"train": GOOD, "test": GOOD[:1]})
    LAYOUTS["imagenetv2"](dtd)
    expected = load("dtd", dtd), load("imagenetv2", dtd)
    for file in (dtd / "dtd" / SPLIT, dtd / "imagenetv2" / "classnames.txt"):
        file.write_text(file.read_text(encoding="utf-8"), encoding="utf-8-sig")
    assert (load("dtd", dtd), load("imagenetv2", dtd)) == expected
