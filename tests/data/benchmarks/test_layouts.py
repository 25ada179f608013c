"""Every data set of the papers, from its folder as people have it."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from coopt.data import DATASET_TEMPLATES, Split, default_cache_folder, few_shot, find_leakage, load_dataset
from coopt.data.benchmarks.definitions import BENCHMARKS, find_benchmark
from coopt.errors import CacheWarning, CooptWarning

from .layouts import LAYOUTS, load, write_split

# name: class names in the order of their labels, and how many images train, val and test have
EXPECTED = {
    "imagenet": (("tench", "chow chow", "missile", "missile_"), (24, 12, 12)),
    "caltech101": (("face", "leopard", "motorbike", "accordion", "airplane", "car_side"), (30, 12, 18)),
    "oxford_pets": (("abyssinian", "american_bulldog", "bengal"), (24, 6, 15)),
    "stanford_cars": (
        ("2000 AM General Hummer SUV", "2012 Acura RL Sedan", "2012 Ram C/V Cargo Van Minivan"),
        (24, 6, 12),
    ),
    "oxford_flowers": (("pink primrose", "hard-leaved pocket orchid", "canterbury bells"), (15, 6, 9)),
    "food101": (("apple_pie", "hot_and_sour_soup", "waffles"), (15, 6, 9)),
    "fgvc_aircraft": (("F/A-18", "707-320", "Cessna 172"), (15, 12, 9)),
    "sun397": (("abbey", "indoor apse", "ball_pit", "ski_slope"), (32, 8, 16)),
    "dtd": (("banded", "polka-dotted", "zigzagged"), (15, 6, 9)),
    "eurosat": (("Annual Crop Land", "Forest", "Highway or Road", "Sea or Lake"), (20, 8, 12)),
    "ucf101": (("Apply_Eye_Makeup", "Handstand_Pushups", "Yo_Yo"), (24, 6, 12)),
    "imagenetv2": (("tench", "chow chow", "missile", "missile_"), (0, 0, 8)),
    "imagenet_sketch": (("tench", "chow chow", "missile", "missile_"), (0, 0, 8)),
    "imagenet_a": (("chow chow", "missile_"), (0, 0, 4)),
    "imagenet_r": (("tench", "missile_"), (0, 0, 6)),
}
MADE = [one.name for one in BENCHMARKS if one.drawn]
# an image, and the class that it shows
SHOWN = {
    "imagenet": ("images/val/n04008634/ILSVRC2012_00000002.JPEG", "missile_"),
    "caltech101": ("101_ObjectCategories/airplanes/image_0003.jpg", "airplane"),
    "oxford_pets": ("images/american_bulldog_103.jpg", "american_bulldog"),
    "stanford_cars": ("cars_test/00001.jpg", "2012 Acura RL Sedan"),
    "oxford_flowers": ("jpg/image_00001.jpg", "canterbury bells"),
    "food101": ("images/waffles/100007.jpg", "waffles"),
    "fgvc_aircraft": ("images/0034311.jpg", "F/A-18"),
    "sun397": ("SUN397/a/apse/indoor/sun_0012abc.jpg", "indoor apse"),
    "dtd": ("images/polka-dotted/polka-dotted_0010.jpg", "polka-dotted"),
    "eurosat": ("2750/SeaLake/SeaLake_1.jpg", "Sea or Lake"),
    "ucf101": ("UCF-101-midframes/Handstand_Pushups/v_HandStandPushups_g03_c01.jpg", "Handstand_Pushups"),
    "imagenetv2": ("imagenetv2-matched-frequency-format-val/1/002.jpeg", "chow chow"),
    "imagenet_sketch": ("images/n03773504/sketch_2.JPEG", "missile"),
    "imagenet_a": ("imagenet-a/n04008634/0.001_dog _ cat_0.9.jpg", "missile_"),
    "imagenet_r": ("imagenet-r/n01440764/art_3.jpg", "tench"),
}


def labelled(*splits: Split | None) -> list[tuple[Path, str]]:
    return [pair for one in splits if one is not None for pair in zip(one.paths, one.labels, strict=True)]


def test_every_data_set_has_a_miniature() -> None:
    assert {one.name for one in BENCHMARKS} == set(LAYOUTS) == set(EXPECTED) == set(SHOWN)


@pytest.mark.parametrize("name", EXPECTED)
def test_class_names_parts_and_images(name: str, root: Path) -> None:
    class_names, sizes = EXPECTED[name]
    dataset = load(name, root)
    assert dataset.name == name
    assert dataset.class_names == class_names
    assert tuple(0 if one is None else len(one) for one in (dataset.train, dataset.val, dataset.test)) == sizes
    assert dataset.template == DATASET_TEMPLATES[name]
    assert dataset.fixed_classes == (name in ("imagenet_a", "imagenet_r"))
    image, shows = SHOWN[name]
    everything = labelled(dataset.train, dataset.val, dataset.test)
    assert (dataset.root / image, shows) in everything
    assert all(path.is_file() for path, _ in everything)
    # parts share no image, but for ImageNet's, whose val and test are one
    parts = [set(one.paths) for one in (dataset.train, dataset.val, dataset.test) if one is not None]
    assert len(set().union(*parts)) == sum(sizes) - (sizes[1] if name == "imagenet" else 0)


@pytest.mark.parametrize("name", MADE)
def test_a_split_that_is_made_is_kept_and_can_be_put_into_the_folder(name: str, root: Path, tmp_path: Path) -> None:
    benchmark = find_benchmark(name)
    assert benchmark is not None
    with pytest.warns(CooptWarning) as caught:
        made = load_dataset(name, root=root)
    text = next(str(one.message) for one in caught if "a split was made" in str(one.message))
    assert f"has no split_zhou_{benchmark.title}.json" in text and "not the papers' split" in text
    kept = next((default_cache_folder() / "splits").rglob("*.json"))
    assert str(kept) in text and kept.name == benchmark.published_split
    assert not list(root.rglob("split_zhou*"))
    before = kept.stat().st_mtime_ns
    assert load(name, root) == made
    assert kept.stat().st_mtime_ns == before  # nothing to write

    (tmp_path / benchmark.folder).mkdir()
    if benchmark.images:
        (tmp_path / benchmark.folder / benchmark.images).symlink_to(root / benchmark.folder / benchmark.images)
    else:
        for part in ("cars_train", "cars_test"):
            (tmp_path / benchmark.folder / part).symlink_to(root / benchmark.folder / part)
    (tmp_path / benchmark.folder / kept.name).write_bytes(kept.read_bytes())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*a split was made.*")
        warnings.filterwarnings("ignore", message=".*not comparable.*")
        published = load_dataset(name, root=tmp_path)
    assert published.class_names == made.class_names
    assert published.hash == made.hash  # the very same images, labels and order


def test_a_split_file_decides_parts_names_and_order(root: Path, tmp_path: Path) -> None:
    LAYOUTS["dtd"](tmp_path)
    items = [("zigzagged/zigzagged_0002.jpg", 1, "zig zag"), ("banded/banded_0001.jpg", 0, "bands")]
    test = [("banded/banded_0003.jpg", 0, "bands")]
    write_split(tmp_path / "dtd/split_zhou_DescribableTextures.json", {"train": items, "test": test})
    dataset = load("DescribableTextures", tmp_path)
    assert dataset.class_names == ("bands", "zig zag")
    images = tmp_path / "dtd/images"
    assert dataset.train == Split(tuple(images / path for path, _, _ in items), ("zig zag", "bands"))
    assert dataset.val is None
    assert dataset.test == Split((images / "banded/banded_0003.jpg",), ("bands",))


def test_paths_of_cars_are_counted_from_the_root_of_that_data_set(tmp_path: Path) -> None:
    LAYOUTS["stanford_cars"](tmp_path)
    items = [("cars_train/00001.jpg", 0, "2000 AM General"), ("cars_test/00001.jpg", 1, "2012 Acura")]
    write_split(tmp_path / "stanford_cars/split_zhou_StanfordCars.json", {"train": items})
    assert load("stanford_cars", tmp_path).train.paths[0] == tmp_path / "stanford_cars/cars_train/00001.jpg"


@pytest.mark.parametrize("name", MADE)
def test_every_class_is_divided_alike_and_always_the_same(name: str, root: Path) -> None:
    dataset = load(name, root)
    assert dataset.val is not None and dataset.test is not None
    for split in (dataset.train, dataset.val, dataset.test):
        assert len(set(split.counts.values())) == 1
        assert set(split.labels) == set(dataset.class_names)


def test_the_split_of_a_class_depends_on_names_alone(tmp_path: Path) -> None:
    """Frozen: another version of coopt must not change the split of the same files."""
    LAYOUTS["eurosat"](tmp_path)
    dataset = load("eurosat", tmp_path)
    train = [path.stem for path in dataset.train.paths if path.parent.name == "Forest"]
    names = sorted(f"Forest_{i}" for i in range(1, 11))
    drawn = sorted(names, key=lambda name: hashlib.sha256(f"Forest/{name}.jpg".encode()).hexdigest())
    assert train == [name for name in names if name in drawn[:5]]
    for other in ("SeaLake", "Highway"):
        for file in (tmp_path / "eurosat/2750" / other).iterdir():
            file.unlink()
        (tmp_path / "eurosat/2750" / other).rmdir()
    again = load("eurosat", tmp_path)
    assert [path.stem for path in again.train.paths if path.parent.name == "Forest"] == train


@pytest.fixture
def locked(tmp_path: Path) -> Iterator[Path]:
    """A root that cannot be written."""
    LAYOUTS["dtd"](tmp_path)
    folders = [tmp_path, *(path for path in tmp_path.rglob("*") if path.is_dir())]
    for folder in folders:
        folder.chmod(stat.S_IRUSR | stat.S_IXUSR)
    yield tmp_path
    for folder in folders:
        folder.chmod(stat.S_IRWXU)


def test_a_root_that_cannot_be_written(locked: Path) -> None:
    before = sorted(locked.rglob("*"))
    assert len(load("dtd", locked).train) == 15
    assert sorted(locked.rglob("*")) == before


def test_a_cache_that_cannot_be_written(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "file"))
    with pytest.warns(CooptWarning) as caught:
        assert len(load_dataset("dtd", root=root).train) == 15
    said = {str(one.message): one.category for one in caught}
    assert any("could not be kept: Cannot write" in one and said[one] is CacheWarning for one in said)
    assert any("it is made anew each time" in one for one in said)


def test_imagenet_is_sampled_from_its_sorted_list(root: Path) -> None:
    dataset = load("imagenet", root)
    assert list(dataset.train.paths) == sorted(dataset.train.paths)
    assert dataset.val == dataset.test
    assert find_leakage(dataset, near_limit=0) == []  # they are one part by design
    sample = few_shot(dataset, 2, 1)
    assert sample.train.counts == dict.fromkeys(dataset.class_names, 2)


@pytest.mark.parametrize("order", [1, -1])
def test_the_order_in_which_the_system_lists_files_does_not_matter(
    order: int, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = load("imagenet", root)
    scandir = os.scandir

    class Listed(list):  # type: ignore[type-arg]
        def __enter__(self) -> Listed:
            return self

        def __exit__(self, *_: object) -> None:
            pass

    def shuffled(path: Path) -> Listed:
        with scandir(path) as entries:
            return Listed(sorted(entries, key=lambda entry: entry.name)[::order])

    monkeypatch.setattr("coopt.data.benchmarks.class_folders.os.scandir", shuffled)
    assert load("imagenet", root) == expected


def test_split_files_are_written_in_the_published_form(root: Path) -> None:
    load("caltech101", root)
    kept = next((default_cache_folder() / "splits").rglob("*.json"))
    content = json.loads(kept.read_text())
    assert list(content) == ["train", "val", "test"]
    assert ["Faces/", 0, "face"] in [[path[:6], label, name] for path, label, name in content["train"]]
