from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

from coopt import safe_pickle
from coopt.data import load_dataset, read_reference_cache
from coopt.errors import DataError, SavedFileError, UnsafePickleError

from .conftest import GOLDEN, save_picture

CACHE = GOLDEN / "shot_2-seed_1.pkl"


def test_the_golden_cache_holds_the_golden_sample() -> None:
    dataset = read_reference_cache(CACHE, must_exist=False)
    golden = json.loads((GOLDEN / "fewshot_sampling.json").read_text())
    expected = golden["expected"]["seed1_shots2"]
    assert [path.relative_to(dataset.root).as_posix() for path in dataset.train.paths] == expected["train"]
    assert dataset.val is not None
    assert [path.relative_to(dataset.root).as_posix() for path in dataset.val.paths] == expected["val"]
    labels = dict(golden["train"])
    indices = [dataset.class_names.index(label) for label in dataset.train.labels]
    assert indices == [labels[path] for path in expected["train"]]


def test_missing_images_are_named() -> None:
    with pytest.raises(
        DataError, match=r"25 of 25 images .* are not there, the first: 'class_01.*give that folder as root"
    ):
        read_reference_cache(CACHE, root="/nowhere")


@pytest.mark.parametrize("old_root", ["/gone/data/pets", "C:\\gone\\pets", "../pets"])
def test_old_paths_are_found_below_the_new_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old_root: str) -> None:
    separator = "\\" if "\\" in old_root else "/"
    datums = []
    for i, name in enumerate(["cat", "dog"]):
        save_picture(tmp_path / "images" / name / f"{i}.png", i)
        impath = separator.join([old_root, "images", name, f"{i}.png"])
        datums.append(safe_pickle.Datum(impath, i, 0, name))
    parts: dict[str, Any] = {"train": datums, "val": datums[:1]}
    monkeypatch.setattr(safe_pickle, "load_datums", lambda path: parts)
    dataset = read_reference_cache(tmp_path / "split_fewshot" / "shot_1-seed_1.pkl")
    assert dataset.train.paths == (tmp_path / "images/cat/0.png", tmp_path / "images/dog/1.png")
    assert dataset.class_names == ("cat", "dog")
    assert dataset.name == tmp_path.name


def test_paths_that_are_still_right_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image = save_picture(tmp_path / "elsewhere" / "0.png")
    datum = safe_pickle.Datum(str(image), 0, 0, "cat")
    monkeypatch.setattr(safe_pickle, "load_datums", lambda path: {"train": [datum]})
    assert read_reference_cache(tmp_path / "a" / "b" / "c.pkl").train.paths == (image,)


def test_a_cache_is_a_data_set_as_it_is(tmp_path: Path) -> None:
    for split in (expected := read_reference_cache(CACHE, root=tmp_path, must_exist=False)).train, expected.val:
        for path in split.paths if split else ():
            save_picture(path)
    cache = tmp_path / "split_fewshot" / CACHE.name
    cache.parent.mkdir()
    cache.write_bytes(CACHE.read_bytes())
    assert load_dataset(cache) == expected


def test_contradicting_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datums = [safe_pickle.Datum("a", 0, 0, "cat"), safe_pickle.Datum("b", 0, 0, "dog")]
    monkeypatch.setattr(safe_pickle, "load_datums", lambda path: {"train": datums})
    with pytest.raises(SavedFileError, match=r"gives label 0 two class names: 'cat' and 'dog'"):
        read_reference_cache(tmp_path / "x.pkl")


def test_a_hostile_pickle_is_refused(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (tmp_path / "was_run",))

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"train": [Hostile()]}))
    with pytest.raises(UnsafePickleError):
        read_reference_cache(tmp_path / "evil.pkl")
    assert not (tmp_path / "was_run").exists()
