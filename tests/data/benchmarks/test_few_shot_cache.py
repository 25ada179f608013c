"""The papers' samples: the same images from the same seed, and the reference's own caches where people have them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coopt import safe_pickle
from coopt.data import ImageDataset, base_to_new, few_shot
from coopt.errors import CooptWarning

from ..conftest import GOLDEN
from .layouts import load, picture, write_split

FEW_SHOT = json.loads((GOLDEN / "fewshot_sampling.json").read_text())


@pytest.fixture(scope="module")
def golden(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden items as Stanford Cars, whose paths are counted from its folder; not to be changed."""
    root = tmp_path_factory.mktemp("golden")
    items = {part: [(path, label, f"class {label:02}") for path, label in FEW_SHOT[part]] for part in ("train", "val")}
    for path in {path for part in items.values() for path, _, _ in part}:
        picture(root / "stanford_cars" / path)
    write_split(root / "stanford_cars/split_zhou_StanfordCars.json", items)
    return root


def images_of(dataset: ImageDataset, part: str) -> list[str]:
    split = getattr(dataset, part)
    return [path.relative_to(dataset.root).as_posix() for path in split.paths]


@pytest.mark.filterwarnings("ignore::coopt.errors.FewShotsWarning")
@pytest.mark.parametrize("case", FEW_SHOT["expected"])
def test_a_published_split_gives_the_papers_images(case: str, golden: Path) -> None:
    seed, shots = (int("".join(filter(str.isdigit, part))) for part in case.split("_"))
    sample = few_shot(load("stanford_cars", golden), shots, seed)
    expected = FEW_SHOT["expected"][case]
    assert images_of(sample, "train") == expected["train"]
    assert images_of(sample, "val") == expected["val"]
    base, new = base_to_new(sample)
    assert [path for path, _ in expected["base_train"]] == images_of(base, "train")
    assert [path for path, _ in expected["new_train"]] == images_of(new, "train")


@pytest.fixture
def cached(golden: Path, tmp_path: Path) -> Path:
    """The golden data set with the reference's own cache of 2 shots, seed 1."""
    folder = tmp_path / "stanford_cars"
    (folder / "split_fewshot").mkdir(parents=True)
    for images in (golden / "stanford_cars").iterdir():
        if images.is_dir():
            (folder / images.name).symlink_to(images)
    split = "split_zhou_StanfordCars.json"
    (folder / split).write_bytes((golden / "stanford_cars" / split).read_bytes())
    (folder / "split_fewshot/shot_2-seed_1.pkl").write_bytes((GOLDEN / "shot_2-seed_1.pkl").read_bytes())
    return tmp_path


@pytest.mark.filterwarnings("ignore::coopt.errors.FewShotsWarning")
def test_the_references_cache_is_the_sample_of_its_seed(cached: Path, golden: Path) -> None:
    sample, drawn = few_shot(load("cars", cached), 2, 1), few_shot(load("cars", golden), 2, 1)
    assert [images_of(sample, part) for part in ("train", "val")] == [images_of(drawn, p) for p in ("train", "val")]
    assert sample.notes == (
        f"The few-shot sample is that of '{cached}/stanford_cars/split_fewshot/shot_2-seed_1.pkl'.",
    )
    assert drawn.notes == () and few_shot(load("cars", cached), 2, 2).notes == ()


def datums_of(dataset: ImageDataset, old_root: str) -> dict[str, list[safe_pickle.Datum]]:
    """The last image of each class of each part, as a cache of another machine names them."""
    found: dict[str, list[safe_pickle.Datum]] = {}
    for part in ("train", "val"):
        split = getattr(dataset, part)
        last = dict(zip(split.labels, split.paths, strict=True))
        found[part] = [
            safe_pickle.Datum(f"{old_root}/{path.relative_to(dataset.root).as_posix()}", i, 0, name)
            for i, name in enumerate(dataset.class_names)
            if (path := last.get(name)) is not None
        ]
    return found


def use(monkeypatch: pytest.MonkeyPatch, root: Path, datums: Any) -> None:
    (root / "stanford_cars/split_fewshot/shot_1-seed_1.pkl").touch()
    monkeypatch.setattr(safe_pickle, "load_datums", lambda path: datums)


@pytest.mark.parametrize("old_root", ["/gone/data/stanford_cars", "C:\\data\\stanford_cars", "data"])
def test_another_sample_of_the_same_data_is_honoured(
    cached: Path, monkeypatch: pytest.MonkeyPatch, old_root: str
) -> None:
    dataset = load("cars", cached)
    datums = datums_of(dataset, old_root)
    use(monkeypatch, cached, datums)
    sample = few_shot(dataset, 1, 1)
    assert sample.train.labels == dataset.class_names
    assert [path.name for path in sample.train.paths] == [Path(one.impath).name for one in datums["train"]]


def test_a_cache_of_other_data_is_not_used(cached: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = load("cars", cached)
    drawn = few_shot(dataset, 1, 1)
    good = datums_of(dataset, "/gone")
    first, *rest = good["train"]
    for train, why in (
        ([first._replace(impath="/gone/other.jpg"), *rest], "'/gone/other.jpg' is not in that part"),
        ([first._replace(label=1), *rest], "has label 1 there, another one here"),
        ([first._replace(label=10**6), *rest], "has label 1000000 there"),
        (rest, f"it has {len(rest)} images where {len(rest) + 1} are drawn"),
        ([first, *good["train"]], "it names an image twice"),
        ([], "it has 0 images where"),
    ):
        use(monkeypatch, cached, {**good, "train": train})
        with pytest.warns(CooptWarning, match=f"shot_1-seed_1.pkl' is not used: .*{why}.*The sample is drawn"):
            assert few_shot(dataset, 1, 1) == drawn


def test_a_damaged_or_hostile_cache_is_not_used(cached: Path) -> None:
    dataset = load("cars", cached)
    drawn = few_shot(dataset, 1, 1)
    file = cached / "stanford_cars/split_fewshot/shot_1-seed_1.pkl"
    for content, why in (
        (b"junk", "damaged or cut short"),
        (b"cposix\nsystem\n(S'true'\ntR.", "asks for posix.system"),
    ):
        file.write_bytes(content)
        with pytest.warns(CooptWarning, match=why):
            assert few_shot(dataset, 1, 1) == drawn


def test_imagenets_cache_with_names_that_come_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    dataset = replace(load("imagenet", root), few_shot_caches=tmp_path)
    (tmp_path / "shot_1-seed_1.pkl").touch()
    wnids = sorted(path.name for path in (root / "imagenet/images/train").iterdir())
    datums = {
        part: [
            safe_pickle.Datum(f"/old/imagenet/images/{folder}/{wnid}/ILSVRC2012_00000003.JPEG", i, 0, name.rstrip("_"))
            for i, (wnid, name) in enumerate(zip(wnids, dataset.class_names, strict=True))
        ]
        for part, folder in (("train", "train"), ("val", "val"))
    }
    drawn = few_shot(replace(dataset, few_shot_caches=None), 1, 1)
    for cached in (datums, {"train": datums["train"]}):
        monkeypatch.setattr(safe_pickle, "load_datums", lambda path, cached=cached: cached)
        sample = few_shot(dataset, 1, 1)
        assert {path.name for path in sample.train.paths} == {"ILSVRC2012_00000003.JPEG"}
        if "val" not in cached:
            assert sample.val == drawn.val
