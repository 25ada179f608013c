from __future__ import annotations

import os
import random
import shutil
from dataclasses import replace
from pathlib import Path

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
        assert "4 images of the val part serve as held-out images" in dataset.notes[0]

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

    def test_images_in_the_depth_belong_to_the_class(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 2, "b/2020/may": 1, "b/2021": 1})
        assert load_dataset(tmp_path, test_fraction=0).train.labels == ("a", "a", "b", "b")

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
        assert load_dataset(tmp_path, test_fraction=0).train.counts == {"a": 2, "z": 2}

    def test_what_is_left_out_is_said(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 2, "b": 2, "empty": 0})
        save_picture(tmp_path / "loose.png")
        with pytest.warns(CooptWarning) as caught:
            load_dataset(tmp_path)
        messages = " ".join(str(warning.message) for warning in caught)
        assert "1 images lie directly in" in messages
        assert "'loose.png'. They are left out; move them into the folder of their class" in messages
        assert "without images are left out: 'empty'" in messages

    def test_an_empty_folder(self, tmp_path: Path) -> None:
        with pytest.raises(
            DataError, match=r"is empty \(or holds hidden files only\)\. Expected one sub-folder per class"
        ):
            load_dataset(tmp_path)

    def test_images_but_no_classes(self, tmp_path: Path) -> None:
        save_picture(tmp_path / "1.png")
        with pytest.raises(DataError, match=r"has 1 images \('1\.png'\) but no sub-folder with images"):
            load_dataset(tmp_path)

    def test_classes_but_no_images(self, tmp_path: Path) -> None:
        make_folder(tmp_path, {"a": 0, "b": 0})
        with pytest.raises(DataError, match=r"has 2 sub-folders \('a', 'b'\), all without images"):
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
        (tmp_path / "data.txt").touch()
        with pytest.raises(
            DataError, match=r"data\.txt' is not a folder or a CSV\. Expected a folder with one sub-folder"
        ):
            load_dataset(tmp_path / "data.txt")
        with pytest.raises(
            DataError, match=r"gone' does not exist\. Expected a folder .* a CSV file .* or bundled:NAME"
        ):
            load_dataset(str(tmp_path / "gone"))

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
