"""The bundled data sets: listed, complete, in a stable order, and errors that help."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

from coopt.data import bundled
from coopt.data.archives import open_archive
from coopt.data.bundled import bundled_datasets, find_bundled, hard_datasets, load_bundled
from coopt.errors import DataError
from tools.bundled.archive import write_archive


def _files(parts: tuple[str, ...], classes: tuple[str, ...], count: int) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for part in parts:
        for name in classes:
            for i in range(count):
                data = BytesIO()
                Image.new("RGB", (4, 4), (i, 0, 0)).save(data, "PNG")
                files[f"{part}/{name}/{i:02d}.png"] = data.getvalue()
    return files


@pytest.fixture
def own(tmp_path: Path) -> Path:
    described = {
        "name": "walls",
        "description": "colour of the wall",
        "classes": ["red", "light blue"],
        "prompt": "a {} wall.",
        "source_style": "ink",
        "shifted": ["test-chalk"],
    }
    (tmp_path / "datasets.json").write_text(json.dumps([described]))
    files = _files(("train", "val", "test", "test-chalk"), ("red", "light blue"), 2)
    write_archive(tmp_path / "walls.zip", files)
    return tmp_path


def test_reads_what_is_described(own: Path) -> None:
    (walls,) = bundled._read(own)
    assert (walls.name, walls.class_names, walls.template) == ("walls", ("red", "light blue"), "a {} wall.")
    assert (walls.style, walls.shifted) == ("ink", ("chalk",))
    dataset = walls.load()
    assert dataset.class_names == ("red", "light blue")  # as described, not sorted
    assert dataset.train.labels == ("red", "red", "light blue", "light blue")
    assert [path.name for path in dataset.train.paths] == ["00.png", "01.png"] * 2
    assert dataset.test is not None and dataset.test.paths[0] == own / "walls.zip" / "test" / "red" / "00.png"


def test_other_style_changes_the_test_part_only(own: Path) -> None:
    (walls,) = bundled._read(own)
    source, shifted = walls.load(), walls.load("chalk")
    assert shifted.name == "walls (chalk)"
    assert (shifted.train, shifted.val) == (source.train, source.val)
    assert shifted.test is not None and shifted.test.paths[0].parts[-3] == "test-chalk"
    assert walls.load("ink") == source
    with pytest.raises(DataError, match="no test part in the style 'oil', only in 'ink', 'chalk'"):
        walls.load("oil")


def test_damaged_installation_is_said(own: Path, tmp_path: Path) -> None:
    (walls,) = bundled._read(own)
    whole = (own / "walls.zip").read_bytes()
    write_archive(own / "walls.zip", _files(("train", "test"), ("red", "light blue"), 2))
    with pytest.raises(
        DataError, match=r"'walls' is not complete: .*walls\.zip.val.red does not exist\. Reinstall coopt"
    ):
        walls.load()
    (own / "walls.zip").write_bytes(whole[:-100])
    with pytest.raises(DataError, match=r"'walls' is damaged: .*walls\.zip' is no ZIP archive.* Reinstall coopt"):
        walls.load()
    (own / "walls.zip").unlink()
    with pytest.raises(DataError, match=r"'walls' is not complete: .*walls\.zip.train.red does not exist"):
        walls.load()
    with pytest.raises(DataError, match="missing from this installation"):
        bundled._read(tmp_path / "nowhere")


def test_unknown_name_names_its_neighbours() -> None:
    with pytest.raises(DataError, match=r"no bundled data set 'background'\. Did you mean 'backgrounds'"):
        load_bundled("background")
    with pytest.raises(DataError, match=r"There are: .*animals"):
        find_bundled("bundled:zzz")


@pytest.mark.parametrize("described", [*bundled_datasets(), find_bundled("mixed")], ids=lambda one: one.name)
def test_every_bundled_data_set_is_whole(described: bundled.BundledDataset) -> None:
    assert described.template.count("{}") == 1
    assert len(set(described.class_names)) == len(described.class_names) >= 2
    for dataset in (described.load(), *(described.load(style) for style in described.shifted)):
        assert dataset.val is not None and dataset.test is not None
        for part, least in ((dataset.train, 16), (dataset.val, 4), (dataset.test, 4)):
            counts = Counter(part.labels)
            assert set(counts) == set(described.class_names)
            assert min(counts.values()) >= least
        paths = [*dataset.train.paths, *dataset.val.paths, *dataset.test.paths]
        assert len(set(paths)) == len(paths)


def test_name_with_prefix_is_the_same_data_set() -> None:
    name = bundled_datasets()[0].name
    assert find_bundled(f"bundled:{name}") is find_bundled(name)
    assert load_bundled(name).hash == load_bundled(f"bundled:{name}").hash


def test_hard_problems_are_known_by_name_and_not_among_the_others() -> None:
    assert [one.name for one in hard_datasets()] == ["mixed", "fleet"]
    assert all(one.hard for one in hard_datasets())
    assert not {"mixed", "fleet"} & {one.name for one in bundled_datasets()}
    assert not any(one.hard for one in bundled_datasets()) and len(bundled_datasets()) == 19
    assert find_bundled("bundled:mixed") is hard_datasets()[0]
    with pytest.raises(DataError, match="Did you mean 'mixed'"):
        find_bundled("mixe")


def test_mixed_merges_the_images_of_all_others_by_the_names_of_their_classes() -> None:
    mixed, others = load_bundled("mixed"), [one.load() for one in bundled_datasets()]
    assert mixed.class_names == tuple(dict.fromkeys(name for one in others for name in one.class_names))
    for part in ("train", "val", "test"):
        pairs = [
            pair for one in others for pair in zip(getattr(one, part).paths, getattr(one, part).labels, strict=True)
        ]
        found = getattr(mixed, part)
        assert sorted(zip(found.paths, found.labels, strict=True)) == sorted(pairs)
        assert list(found.labels) == sorted(found.labels, key=mixed.class_names.index)
    assert mixed.train.counts["red"] == 48  # of backgrounds, frames and paint


def test_shifted_styles_of_mixed_are_those_of_the_others() -> None:
    described = find_bundled("mixed")
    for style in described.shifted:
        test = described.load(style).test
        assert test is not None and len(test) == sum(len(one.load(style).test or ()) for one in bundled_datasets())


def test_no_picture_of_the_bundled_data_is_there_twice() -> None:
    """So merged labels never contradict each other on one picture, and no test picture is learned from."""
    hashes = [
        hashlib.sha256(archive.read(name)).digest()
        for one in (*bundled_datasets(), find_bundled("fleet"))
        for archive in [open_archive(one.archive)]
        for name in archive.files
    ]
    assert len(set(hashes)) == len(hashes)
