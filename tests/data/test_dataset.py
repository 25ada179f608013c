from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt.data import ImageDataset, Split, hold_out, load_dataset
from coopt.data.dataset import _check_parameters
from coopt.errors import CooptWarning, DataError, ParameterError

from .conftest import make_folder, save_picture


class TestFolder:
    def test_one_folder_per_class(self, tmp_path: Path) -> None:
        dataset = load_dataset(make_folder(tmp_path / "pets", {"dog": 10, "big_cat": 5}))
        assert dataset.name == "pets"
        assert dataset.class_names == ("big_cat", "dog")  # raw: underscores are the prompt's business
        assert dataset.train.counts == {"dog": 8, "big_cat": 4}
        assert dataset.test is not None
        assert dataset.test.counts == {"dog": 2, "big_cat": 1}
        assert dataset.held_out_made
        assert "3 of 15 images (20% of each class, seed 1) were held out" in dataset.notes[0]
        assert all(path.parent.name == label for path, label in zip(*_flat(dataset), strict=True))

    def test_parts_above_the_classes(self, tmp_path: Path) -> None:
        for part, count in (("Train", 3), ("valid", 2), ("test", 1)):
            make_folder(tmp_path / part, {"a": count, "b": count})
        dataset = load_dataset(tmp_path)
        assert [len(split) for split in (dataset.train, dataset.val, dataset.test) if split is not None] == [6, 4, 2]
        assert not dataset.held_out_made
        assert dataset.notes == ()

    def test_a_val_part_serves_as_test_part(self, tmp_path: Path) -> None:
        for part in ("train", "val"):
            make_folder(tmp_path / part, {"a": 2, "b": 2})
        dataset = load_dataset(tmp_path)
        assert dataset.val is None
        assert dataset.test is not None
        assert {path.parent.parent.name for path in dataset.test.paths} == {"val"}
        assert "so the val part serves as one (4 images)." in dataset.notes[0]

    def test_a_class_may_be_called_train(self, tmp_path: Path) -> None:
        assert load_dataset(make_folder(tmp_path, {"train": 2, "car": 2})).class_names == ("car", "train")

    def test_folders_beside_the_parts_are_named(self, tmp_path: Path) -> None:
        for part in ("train", "test"):
            make_folder(tmp_path / part, {"a": 2, "b": 2})
        make_folder(tmp_path, {"extra": 1})
        with pytest.warns(CooptWarning, match=r"'train', 'test' are taken as parts .*, and 'extra' are left out"):
            assert load_dataset(tmp_path).class_names == ("a", "b")

    def test_two_folders_for_one_part(self, tmp_path: Path) -> None:
        for part in ("train", "val", "valid"):
            make_folder(tmp_path / part, {"a": 1, "b": 1})
        with pytest.raises(DataError, match=r"two folders for the val part: 'val' and 'valid'\. Expected one"):
            load_dataset(tmp_path)

    def test_images_in_the_depth_belong_to_the_class_which_is_said(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 2, "b/2020/may": 1, "b/2021": 1})
        with pytest.warns(
            CooptWarning, match=r"those of '2020', '2021' to 'b'\. .* add class_from='parent'; if all is"
        ):
            assert load_dataset(tmp_path, test_fraction=0).train.labels == ("a", "a", "b", "b")

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize(
        ("class_from", "counts"),
        [
            ("top", {"animals": 3, "home": 2}),
            ("parent", {"cat": 3, "dog": 1, "home": 1}),
            ("path", {"animals cat": 2, "animals dog": 1, "home": 1, "home cat": 1}),
        ],
    )
    def test_which_folder_names_the_class(self, tmp_path: Path, class_from: Any, counts: dict[str, int]) -> None:
        for part in ("train", "test"):
            make_folder(tmp_path / part, {"animals/cat": 2, "animals/dog": 1, "home/cat": 1, "home": 1})
        dataset = load_dataset(tmp_path, class_from=class_from)
        assert dataset.train.counts == counts
        assert dataset.test is not None and dataset.test.counts == counts

    @pytest.mark.filterwarnings("error")
    def test_inner_folders_that_are_all_called_alike_need_no_word(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a/images": 2, "b/images": 2})
        assert load_dataset(tmp_path, test_fraction=0).train.counts == {"a": 2, "b": 2}

    def test_one_path_for_two_folders(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a b": 1, "a/b": 1})
        with pytest.raises(DataError, match=r"Two folders in .* give the class name 'a b'"):
            load_dataset(tmp_path, class_from="path")

    def test_a_link_to_the_folder_itself_is_no_class(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "data", {"a": 2, "b": 2})
        for name, target in (("me", tmp_path / "data"), ("above", tmp_path)):
            (tmp_path / "data" / name).symlink_to(target)
        with pytest.warns(CooptWarning, match=r"data/me' is a link to a folder that holds it, and no class"):
            assert load_dataset(tmp_path / "data", test_fraction=0).class_names == ("a", "b")

    @pytest.mark.parametrize("name", ["\u200b", "\u00a0\u3164", "\u2800", "\ufeff "])
    def test_a_name_of_invisible_characters(self, tmp_path: Path, name: str) -> None:
        make_folder(tmp_path, {"a": 1, name: 1})
        with pytest.raises(DataError, match=r"name of blanks and invisible characters only, .*Rename it"):
            load_dataset(tmp_path)

    def test_invisible_characters_around_a_name(self, tmp_path: Path) -> None:
        flag, heart = "\U0001f3f4\U000e0067\U000e007f", "\u2764\ufe0f"
        make_folder(tmp_path, {"\u200bcat\u00a0": 1, flag: 1, heart: 1, "zero\u200dwidth": 1})
        names = load_dataset(tmp_path, test_fraction=0).class_names
        assert set(names) == {"cat", flag, heart, "zero\u200dwidth"}

    def test_files_that_are_not_read_are_said(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("coopt.data.finding.IMAGE_EXTENSIONS", frozenset({".png"}))
        make_folder(tmp_path, {"a": 2, "b": 2})
        for name in ("a/1.heic", "b/deep/2.HEIC", "3.heif"):
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).touch()
        with pytest.warns(CooptWarning, match=r"Left out 2 \.heic, 1 \.heif \('3\.heif', '1\.heic', '2\.HEIC'\): `pip"):
            load_dataset(tmp_path, test_fraction=0)

    def test_a_folder_that_may_not_be_read(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        make_folder(tmp_path, {"a": 2, "b": 2, "b/locked": 1, "locked too": 1})
        scan = os.scandir

        def refuse(folder: Path) -> object:
            if Path(folder).name.startswith("locked"):
                raise PermissionError(13, "Permission denied", str(folder))
            return scan(folder)

        monkeypatch.setattr(os, "scandir", refuse)
        with pytest.raises(
            DataError, match=r"locked' cannot be read: Permission denied.* on_bad_image='skip' leaves it"
        ):
            load_dataset(tmp_path)
        with pytest.warns(CooptWarning, match=r"Left out 2 folders\. .*locked' .*locked too'"):
            assert load_dataset(tmp_path, on_bad_image="skip", test_fraction=0).train.counts == {"a": 2, "b": 2}

    def test_hidden_and_archive_folders_are_no_classes(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 2, "b": 2, ".git": 1, "__MACOSX": 1, ".ipynb_checkpoints": 1})
        save_picture(tmp_path / "a" / "._0.png")
        assert load_dataset(tmp_path, test_fraction=0).train.counts == {"a": 2, "b": 2}

    def test_loops_of_links_end(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 2, "b": 2})
        (tmp_path / "a" / "loop").symlink_to(tmp_path)
        dataset = load_dataset(tmp_path, test_fraction=0)
        assert dataset.class_names == ("a", "b")
        (tmp_path / "self").symlink_to(tmp_path / "self")
        assert load_dataset(tmp_path, test_fraction=0) == dataset

    def test_two_classes_that_link_to_one_folder_both_have_images(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"z": 2})
        (tmp_path / "a").symlink_to(tmp_path / "z")
        with pytest.warns(CooptWarning, match=r"'a' and 'z' in .* are one folder \(a link\), so its images have both"):
            assert load_dataset(tmp_path, test_fraction=0).train.counts == {"a": 2, "z": 2}

    def test_what_is_left_out_is_said(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 2, "b": 2, "empty": 0})
        save_picture(tmp_path / "loose.png")
        with pytest.warns(CooptWarning) as caught:
            load_dataset(tmp_path)
        messages = " ".join(str(warning.message) for warning in caught)
        assert "of no class: 1 image (" in messages
        assert "('loose.png'). Move images into the folder of their class" in messages
        assert "without images are left out: 'empty'" in messages

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"is empty \(or holds hidden files only\)\. Expected one sub-folder per class"
        ):
            load_dataset(tmp_path)

    def test_images_but_no_classes(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "1.png")
        with pytest.raises(DataError, match=r"has 1 image \('1\.png'\) but no sub-folder with images"):
            load_dataset(tmp_path)

    def test_classes_but_no_images(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 0, "b": 0})
        with pytest.raises(DataError, match=r"has 2 sub-folders \('a', 'b'\) and no images"):
            load_dataset(tmp_path)

    def test_a_single_class(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 3})
        with pytest.raises(DataError, match=r"has only one class: 'a'\. Expected at least two"):
            load_dataset(tmp_path)

    def test_one_folder_too_many(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"unpacked/cat": 2, "unpacked/dog": 2})
        with pytest.raises(DataError, match=r"sub-folders are 'cat', 'dog': did you mean '.*unpacked'\?"):
            load_dataset(tmp_path)

    def test_a_class_with_one_image_is_kept_for_training(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 5, "b": 1})
        with pytest.warns(CooptWarning, match=r"Classes with a single image: 'b'\. It is kept for training"):
            dataset = load_dataset(tmp_path)
        assert dataset.train.counts == {"a": 4, "b": 1}

    def test_only_classes_with_one_image(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 1, "b": 1})
        with pytest.warns(CooptWarning, match=r"Classes with a single image: '.*', '.*'"):
            dataset = load_dataset(tmp_path)
        assert dataset.test is None
        assert not dataset.held_out_made
        assert "No image could be held out" in dataset.notes[0]

    def test_unknown_classes_in_the_test_part(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "train", {"a": 1, "b": 1})
        make_folder(tmp_path / "test", {"a": 1, "B": 1})
        with pytest.raises(DataError, match=r"test part has 1 classes that the train part does not have: 'B'\."):
            load_dataset(tmp_path)

    def test_evaluation_needs_no_training_part(self, tmp_path: Path) -> None:
        make_folder(tmp_path / "test", {"a": 2})
        with pytest.raises(DataError, match=r"has no training images"):
            load_dataset(tmp_path)
        dataset = load_dataset(tmp_path, require_train=False)
        assert dataset.class_names == ("a",)
        assert dataset.test is not None
        assert (len(dataset.train), len(dataset.test)) == (0, 2)

    def test_odd_folder_names(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"cafe\u0301": 2, "猫 (cat)": 2})
        assert load_dataset(tmp_path).class_names == ("café", "猫 (cat)")
        bad = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9"))
        try:
            bad.mkdir()
        except OSError:
            pytest.skip("this file system takes UTF-8 names only")
        save_picture(bad / "1.png", 1)
        dataset = load_dataset(tmp_path, test_fraction=0)
        assert r"caf\xe9" in dataset.class_names
        assert len(dataset.hash) == 64


def _flat(dataset: ImageDataset) -> tuple[tuple[Path, ...], tuple[str, ...]]:
    assert dataset.test is not None
    return dataset.train.paths + dataset.test.paths, dataset.train.labels + dataset.test.labels


class TestLoading:
    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "data.abc").write_bytes(b"hello")
        with pytest.raises(
            DataError, match=r"data\.abc' is not a folder or a CSV\. Expected a folder with one sub-folder"
        ):
            load_dataset(tmp_path / "data.abc")
        with pytest.raises(
            DataError, match=r"gone' does not exist\. Expected a folder .* a CSV file .* or bundled:NAME"
        ):
            load_dataset(str(tmp_path / "gone"))

    @pytest.mark.parametrize(
        ("name", "data", "message"),
        [
            ("unpacked", b"PK\x03\x04", r"is a ZIP archive .*\. Give an archive of images the ending \.zip\."),
            ("photos.tar.gz", b"", r"is an archive: unpack it"),
            ("labels.xlsx", b"PK", r"is a spreadsheet: save it as CSV"),
            ("train.parquet", b"PAR1", r"is a table of records: save its images as files"),
            ("metadata.jsonl", b"{}", r"is JSON: convert it to a CSV"),
            ("labels.txt", b"", r"is a text file: make it a CSV"),
            ("image.jpg", b"", r"is a single file: give the folder above its class folder"),
            ("unknown", b"7z\xbc\xaf\x27\x1c", r"is a 7-Zip archive\. Unpack it"),
        ],
    )
    def test_other_files_are_named_as_what_they_are(self, tmp_path: Path, name: str, data: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(data)
        with pytest.raises(DataError, match=message + r".*Expected a folder with one sub-folder"):
            load_dataset(tmp_path / name)

    def test_a_misspelt_name_is_answered_with_near_ones(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        (tmp_path / "objekts").mkdir()
        (tmp_path / "labels.csv").touch()
        for typed, message in (
            ("objets", r"'objets' does not exist\. Did you mean bundled:objects or the folder 'objekts'\? Expected"),
            ("objects", r"Did you mean bundled:objects or"),
            ("label.csv", r"Did you mean the file 'labels\.csv'\?"),
            (str(tmp_path / "Objekt"), r"Did you mean the folder '.*/objekts'\?"),
            ("caltec101", r"Did you mean caltech101\?"),
            ("xyzzy", r"'xyzzy' does not exist\. Expected"),
        ):
            with pytest.raises(DataError, match=message):
                load_dataset(typed)

    def test_what_is_for_another_kind_of_data_set(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 1, "b": 1})
        (tmp_path / "x.csv").write_text("path,label\na/000.png,a\n")
        for path, wrong in (
            (tmp_path, {"label_column": "x"}),
            (tmp_path / "x.csv", {"class_from": "top"}),
            ("bundled:food", {"path_column": "x"}),
        ):
            with pytest.raises(
                ParameterError, match=rf"'{next(iter(wrong))}' parameter .* is for (a CSV|a folder), not"
            ):
                load_dataset(path, **wrong)
        with pytest.raises(ParameterError, match=r"must be 'top', 'parent' or 'path'\. Got 'up'"):
            _check_parameters(0.2, "fail", "up")

    def test_a_bundled_data_set_takes_names_too(self) -> None:
        names = [f"name {i}" for i in range(14)]  # in the data set's own order
        assert load_dataset("bundled:animals", class_names=names).class_names == tuple(names)

    def test_parameters_are_checked(self, tmp_path: Path) -> None:
        with pytest.raises(
            ParameterError, match=r"'test_fraction' parameter of load_dataset must be >= 0 and < 1\. Got 1"
        ):
            load_dataset(tmp_path, test_fraction=1)
        with pytest.raises(ParameterError, match=r"'on_bad_image' .* must be 'fail' or 'skip'"):
            _check_parameters(0.2, "ignore")

    def test_the_hash_says_which_images_and_not_where(self, tmp_path: Path) -> None:
        first = load_dataset(make_folder(tmp_path / "here", {"a": 4, "b": 4}))
        shutil.move(tmp_path / "here", tmp_path / "there")
        assert load_dataset(tmp_path / "there").hash == first.hash
        assert load_dataset(tmp_path / "there", seed=2).hash != first.hash
        assert replace(first, class_names=("a", "c")).hash != first.hash


def _made(counts: list[int], order: int = 0) -> ImageDataset:
    items = [(Path(f"/root/{c}/{i}.png"), f"c{c}") for c, count in enumerate(counts) for i in range(count)]
    random.Random(order).shuffle(items)
    train = Split(tuple(path for path, _ in items), tuple(label for _, label in items))
    return ImageDataset("made", Path("/root"), tuple(sorted(set(train.labels))), train)


@given(st.lists(st.integers(2, 30), min_size=2, max_size=6), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_properties_of_a_held_out_part(counts: list[int], fraction: float, seed: int) -> None:
    dataset = _made(counts)
    held = hold_out(dataset, fraction, seed)
    assert held.test is not None
    assert held.held_out_made
    assert not set(held.train.paths) & set(held.test.paths)
    assert set(held.train.paths) | set(held.test.paths) == set(dataset.train.paths)
    for label, count in dataset.train.counts.items():
        assert held.train.counts[label] >= 1
        assert abs(held.test.counts[label] - fraction * count) <= 1 or held.test.counts[label] in (1, count - 1)

    shuffled = hold_out(_made(counts, order=1), fraction, seed)
    assert shuffled.test is not None
    assert set(shuffled.test.paths) == set(held.test.paths)


def test_another_seed_holds_out_other_images() -> None:
    parts = [hold_out(_made([30, 30]), 0.5, seed).test for seed in range(3)]
    assert len({frozenset(part.paths) for part in parts if part is not None}) == 3
