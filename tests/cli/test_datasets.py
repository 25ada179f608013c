"""`coopt datasets`, and the commands that take the name of a data set."""

from __future__ import annotations

import warnings
from pathlib import Path

import pytest

from coopt.data import DATASET_TEMPLATES, few_shot, load_dataset
from coopt.data.benchmarks import registry
from tests.data.benchmarks.layouts import LAYOUTS, load

from .conftest import SHORT, run, run_json


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pets, ImageNet and ImageNet-A; not to be changed."""
    folder = tmp_path_factory.mktemp("root")
    for name in ("oxford_pets", "imagenet", "imagenet_a"):
        LAYOUTS[name](folder)
    return folder


@pytest.fixture(scope="module")
def prompt(root: Path, clip: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Learned on ImageNet."""
    folder = tmp_path_factory.mktemp("prompt")
    (folder / "short.yaml").write_text(SHORT)
    out = folder / "prompt"
    arguments = ("--backbone", clip, "--config", folder / "short.yaml", "--shots", 2, "--out", out, "--no-cache")
    result = run("fit", "imagenet", "--root", root, *arguments)
    assert result.exit_code == 0, result.stderr
    assert f"coopt eval {out} imagenet --root {root}" in result.stdout
    return out


class TestList:
    def test_all_kinds(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(registry, "_registered", {"mine": registry.RegisteredDataset("mine", print, "a {}.")})  # type: ignore[arg-type]
        document = run_json("datasets")
        found = {one["name"]: one for one in document["datasets"]}
        assert set(LAYOUTS) | {"bundled:animals", "mine"} <= set(found)
        pets = found["oxford_pets"]
        assert (pets["classes"], pets["images"], pets["template"]) == (37, 7349, DATASET_TEMPLATES["oxford_pets"])
        assert (pets["folder"], pets["split_file"]) == ("oxford_pets", "split_zhou_OxfordPets.json")
        assert "state" not in pets and document["root"] is None
        animals = found["bundled:animals"]
        assert animals["kind"] == "bundled" and animals["classes"] == 14 and animals["images"] > 100
        assert (found["bundled:mixed"]["classes"], found["bundled:fleet"]["classes"]) == (121, 96)
        bundled = [one["images"] for name, one in found.items() if name.startswith("bundled:")]
        assert found["bundled:mixed"]["images"] == sum(bundled[:-2])
        text = run("datasets").stdout
        for name in found:
            assert name in text

    def test_what_a_root_has(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        found = {one["name"]: one for one in run_json("datasets", "--root", root)["datasets"]}
        assert found["dtd"]["state"] == "absent" and found["dtd"]["missing"] == ["the folder dtd/"]
        pets = found["oxford_pets"]
        assert pets["state"] == "incomplete"
        assert pets["found"] == {"classes": 3, "images": 45, "split": "made"}
        assert pets["missing"] == ["34 of 37 classes", "7304 of 7349 images"]
        assert found["imagenet"]["found"]["split"] == "official"
        text = run("datasets", "--root", root).stdout
        assert "0 of 15 data sets are complete" in text and "split_zhou_OxfordPets.json" in text
        monkeypatch.setenv("COOPT_DATA_ROOT", str(root))
        assert run("datasets").stdout == text

    def test_a_complete_one(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        from dataclasses import replace

        from coopt.data.benchmarks import definitions

        pets = next(one for one in definitions.BENCHMARKS if one.name == "oxford_pets")
        monkeypatch.setattr(definitions, "BENCHMARKS", (replace(pets, classes=3, size=45),))
        (found, *_) = run_json("datasets", "--root", root)["datasets"]
        assert found["state"] == "complete" and found["missing"] == []
        assert "1 of 1 data sets are complete" in run("datasets", "--root", root).stdout

    def test_missing_images_and_broken_splits(self, tmp_path: Path) -> None:
        LAYOUTS["fgvc_aircraft"](tmp_path)
        LAYOUTS["dtd"](tmp_path)
        (tmp_path / "fgvc_aircraft/images/0034311.jpg").unlink()
        (tmp_path / "dtd/split_zhou_DescribableTextures.json").write_text('{"train": [')
        found = {one["name"]: one for one in run_json("datasets", "--root", tmp_path)["datasets"]}
        assert "1 image of the split, the first: 0034311.jpg" in found["fgvc_aircraft"]["missing"]
        (message,) = found["dtd"]["missing"]
        assert found["dtd"]["state"] == "incomplete" and "is cut short or not JSON" in message

    def test_no_root_there(self, tmp_path: Path) -> None:
        result = run("datasets", "--root", tmp_path / "gone")
        assert result.exit_code == 1
        assert result.stderr.startswith(f"Error: The root '{tmp_path}/gone' is not a folder.")


class TestNamesAsData:
    def test_fit(self, root: Path, clip: str, short: Path, tmp_path: Path) -> None:
        out = tmp_path / "prompt"
        arguments = ("--backbone", clip, "--config", short, "--out", out)
        document = run_json("fit", "pets", "--root", root, "--shots", 1, "--seed", 2, *arguments)
        expected = load("pets", root)
        assert document["dataset"]["name"] == "oxford_pets" and document["dataset"]["path"] == "pets"
        assert document["dataset"]["hash"] == expected.hash
        assert document["dataset"]["sample_hash"] == few_shot(expected, 1, 2).hash
        assert document["class_names"] == list(expected.class_names)
        again = run_json("fit", "--config", out / "config.yaml", "--out", tmp_path / "again")
        assert again["dataset"] == document["dataset"]

    def test_zero_shot_with_the_data_sets_own_prompt(self, root: Path, clip: str) -> None:
        def used(*arguments: object) -> list[str]:
            return run_json("zero-shot", "oxford_pets", "--root", root, "--backbone", clip, *arguments)["used"]

        assert used() == ["a photo of a {}."]
        assert used("--template", "dataset") == ["a photo of a {}, a type of pet."]
        assert len(used("--template", "dataset", "--ensemble")) == 8
        assert len(used("--template", "ensemble-80")) == 80

    def test_bundled_data_sets_have_a_prompt_too(self) -> None:
        assert load_dataset("bundled:food").template == "a photo of {}, a type of food."

    def test_data_without_a_prompt_of_its_own(self, photos: Path, clip: str) -> None:
        result = run("zero-shot", photos, "--backbone", clip, "--template", "dataset")
        assert result.exit_code == 1
        assert "Error: photos has no hand-made prompt of its own. Write one, such as --template" in result.stderr

    def test_imagenets_prompt_on_a_variant_with_fewer_classes(self, root: Path, prompt: Path) -> None:
        document = run_json("eval", prompt, "imagenet_a", "--root", root)
        assert document["n"] == 4 and document["classes_of"] == "data"
        result = run("eval", prompt, "imagenet_a", "--root", root)
        assert "applied to the 2 classes of imagenet_a alone" in result.stdout
        assert run_json("eval", prompt, "imagenet", "--root", root)["classes_of"] == "prompt"

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("oxfrod_pets", "There is no data set 'oxfrod_pets'. Did you mean 'oxford_pets'"),
            ("food101", "Expected Food101's images in '"),
            ("imagenet_a", "imagenet_a has a test part only"),
        ],
    )
    def test_what_cannot_be_learned_from(self, root: Path, name: str, expected: str) -> None:
        result = run("fit", name, "--root", root)
        assert result.exit_code == 1
        assert f"Error: {expected}" in result.stderr


class TestExtract:
    def test_folders_are_the_data_set(self, tmp_path: Path) -> None:
        out = tmp_path / "new" / "sizes"
        result = run("datasets", "extract", "bundled:sizes", out)
        assert (result.exit_code, result.stdout) == (0, f"312 files written to '{out}'.\n")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its other styles are no parts of a folder
            folders, packed = load_dataset(out), load_dataset("bundled:sizes")
        assert sorted(folders.class_names) == sorted(packed.class_names)
        assert sorted(folders.train.labels) == sorted(packed.train.labels) and len(folders.test) == len(packed.test)  # type: ignore[arg-type]
        document = run_json("datasets", "extract", "sizes", tmp_path / "again")
        assert document == {"name": "sizes", "out": str(tmp_path / "again"), "files": 312, "warnings": []}

    @pytest.mark.parametrize(
        ("arguments", "code", "message"),
        [
            (("bundled:size", "out"), 1, "There is no bundled data set 'size'. Did you mean 'sizes'"),
            (("photos.zip", "out"), 1, "'photos.zip' does not exist. Expected a ZIP archive"),
            (("bundled:sizes",), 2, "Missing argument 'DIR'"),
        ],
    )
    def test_errors(
        self, arguments: tuple[str, ...], code: int, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        result = run("datasets", "extract", *arguments)
        assert result.exit_code == code and message in result.stderr
        assert not list(tmp_path.iterdir())

    def test_unknown_command(self) -> None:
        result = run("datasets", "extrakt", "a", "b")
        assert result.exit_code == 2 and "Did you mean extract?" in result.stderr
