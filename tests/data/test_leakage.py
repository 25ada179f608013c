from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import pytest

from coopt.data import ImageDataset, Split, find_leakage
from coopt.data.leakage import groups_that_show_the_same
from coopt.errors import LeakageWarning

from .conftest import picture, save_picture


def _dataset(tmp_path: Path, n: int = 6) -> ImageDataset:
    train = tuple(save_picture(tmp_path / "train" / f"{i}.png", i) for i in range(n))
    test = tuple(save_picture(tmp_path / "test" / f"{i}.png", 100 + i) for i in range(n))
    return ImageDataset("leaky", tmp_path, ("a",), Split(train, ("a",) * n), None, Split(test, ("a",) * n))


def test_different_images_are_no_leak(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert find_leakage(_dataset(tmp_path)) == []


def test_equal_files_and_equal_pictures_are_found(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path)
    assert dataset.test is not None
    shutil.copy(dataset.train.paths[0], dataset.test.paths[3])
    picture(1, size=(240, 200)).save(tmp_path / "large.png")  # one picture at two sizes, in two formats
    picture(1, size=(120, 100)).save(tmp_path / "small.jpg", quality=70)
    shutil.move(tmp_path / "large.png", dataset.train.paths[1])
    shutil.move(tmp_path / "small.jpg", dataset.test.paths[4])
    dataset.test.paths[5].write_bytes(b"")  # cannot be read: named where images are read
    expected = [(dataset.train.paths[0], dataset.test.paths[3]), (dataset.train.paths[1], dataset.test.paths[4])]
    with pytest.warns(LeakageWarning, match=r"2 of 6 held-out images show the same .*0\.png' and '.*3\.png'; .*Remove"):
        assert find_leakage(dataset) == expected
    with pytest.warns(LeakageWarning, match=r"1 of 6"):
        assert find_leakage(dataset, near_limit=11) == expected[:1]


def test_validation_images_count_as_seen(tmp_path: Path) -> None:
    dataset = _dataset(tmp_path, 2)
    assert dataset.test is not None
    leaky = ImageDataset("leaky", tmp_path, ("a",), dataset.train, dataset.test, dataset.test)
    with pytest.warns(LeakageWarning, match=r"2 of 2"):
        assert len(find_leakage(leaky)) == 2


def test_without_a_test_part_nothing_leaks(tmp_path: Path) -> None:
    train = Split((save_picture(tmp_path / "1.png"),), ("a",))
    assert find_leakage(ImageDataset("small", tmp_path, ("a",), train)) == []


def test_images_that_show_the_same_are_grouped(tmp_path: Path) -> None:
    paths = [save_picture(tmp_path / f"{i}.png", i) for i in range(5)]
    shutil.copy(paths[0], paths[3])
    picture(1, size=(240, 200)).save(paths[1])  # one picture at two sizes
    picture(1, size=(120, 100)).save(paths[4])
    assert groups_that_show_the_same(paths) == [0, 1, 2, 0, 1]
    assert groups_that_show_the_same(paths, near_limit=4) == [0, 1, 2, 0, 4]  # equal files alone
    assert groups_that_show_the_same([paths[2], paths[2], paths[0]]) == [0, 0, 2]  # named twice
    paths[2].write_bytes(b"")
    (tmp_path / "empty.png").write_bytes(b"")
    assert groups_that_show_the_same([paths[2], tmp_path / "empty.png"]) == [0, 1]  # nothing is known of them
