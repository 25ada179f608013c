from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path

import pytest

import coopt
from coopt.data import ImageDataset, Split, load_dataset
from coopt.data.benchmarks import registry
from coopt.data.benchmarks.definitions import BENCHMARKS, find_benchmark
from coopt.errors import DataError, ParameterError

from ..conftest import make_folder


@pytest.fixture(autouse=True)
def nothing_registered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "_registered", {})


def birds(root: Path | None) -> ImageDataset:
    split = Split((Path("a.jpg"), Path("b.jpg")), ("crow", "wren"))
    return ImageDataset("birds", root or Path(), ("crow", "wren"), split, test=split, template="a {} in a tree.")


@pytest.mark.parametrize(
    ("typed", "name"),
    [
        *((one.name, one.name) for one in BENCHMARKS),
        *((one.title, one.name) for one in BENCHMARKS),
        *((alias, one.name) for one in BENCHMARKS for alias in one.aliases),
        ("caltech-101", "caltech101"),
        ("Oxford Pets", "oxford_pets"),
        ("flowers-102", "oxford_flowers"),
        ("describable_textures", "dtd"),
        ("imagenet-A", "imagenet_a"),
        ("imagenet_v2", "imagenetv2"),
    ],
)
def test_names_as_people_type_them(typed: str, name: str) -> None:
    found = find_benchmark(typed)
    assert found is not None and found.name == name


def test_no_alias_has_two_meanings() -> None:
    for one in BENCHMARKS:
        assert {find_benchmark(key) for key in (one.name, one.title, one.folder, *one.aliases)} == {one}


@pytest.mark.parametrize("name", ["photos/dtd", "./dtd", "dtd/", "dtd.csv", ""])
def test_paths_are_no_names(name: str) -> None:
    assert find_benchmark(name) is None


def test_a_function_gets_the_root(tmp_path: Path) -> None:
    coopt.register_dataset("birds", birds)
    assert load_dataset("birds").root == Path()
    dataset = load_dataset("birds", root=tmp_path)
    assert dataset.root == tmp_path and dataset.template == "a {} in a tree."
    coopt.register_dataset("birds", birds, prompt="a photo of a {}, a type of bird.")
    assert load_dataset("birds").template == "a photo of a {}, a type of bird."


def test_a_folder(tmp_path: Path) -> None:
    make_folder(tmp_path / "photos", {"a": 2, "b": 2})
    coopt.register_dataset("mine", tmp_path / "photos", prompt="a {}.")
    dataset = load_dataset("mine")
    assert dataset.class_names == ("a", "b") and dataset.template == "a {}."


def test_other_packages_offer_data_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("birds", f"{__name__}:birds", "coopt.datasets")
    monkeypatch.setattr(registry, "entry_points", lambda group: [point] if group == "coopt.datasets" else [])
    assert load_dataset("birds").class_names == ("crow", "wren")


def test_a_loader_that_makes_something_else() -> None:
    coopt.register_dataset("odd", lambda root: [])  # type: ignore[arg-type, return-value]
    with pytest.raises(
        DataError, match=r"The loader of the data set 'odd' made a list\. Expected a coopt.ImageDataset"
    ):
        load_dataset("odd")


@pytest.mark.parametrize(
    ("name", "prompt", "expected"),
    [
        ("my/birds", None, "must be letters, digits"),
        ("", None, "must be letters, digits"),
        ("pets", None, "The name 'pets' belongs to OxfordPets. Choose another one"),
        ("birds", "a bird", "must hold '{}' exactly once"),
    ],
)
def test_what_cannot_be_registered(name: str, prompt: str | None, expected: str) -> None:
    with pytest.raises(ParameterError, match=expected):
        coopt.register_dataset(name, birds, prompt=prompt)
