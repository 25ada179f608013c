"""The bundled data sets are those that were settled before the bundled model was trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from coopt.data.bundled import bundled_datasets
from coopt.evaluation.packed import read_packed
from tools.bundled.archive import write_archive

FROZEN = json.loads((Path(__file__).parents[2] / "tools" / "bundled" / "results" / "frozen.json").read_text())
RESULTS = Path(__file__).parents[2] / "results"
BUNDLED = Path(str(resources.files("coopt") / "bundled"))


def hash_of(files: Mapping[str, bytes]) -> str:
    """Of files by their paths, in the order of folders and names."""
    digest = hashlib.sha256()
    for name in sorted(files, key=lambda name: name.split("/")):
        digest.update(name.encode() + b"\0" + files[name])
    return digest.hexdigest()


def pictures(archive: Path) -> dict[str, bytes]:
    """The files of a data set under the paths that they had when they were frozen, as folders."""
    with ZipFile(archive) as file:
        return {f"{archive.stem}/{name}": file.read(name) for name in file.namelist()}


def test_pictures_classes_and_prompts_are_as_frozen() -> None:
    found = {one.name: hash_of(pictures(one.archive)) for one in bundled_datasets()}
    found["datasets.json"] = hash_of({"datasets.json": (BUNDLED / "data" / "datasets.json").read_bytes()})
    whole = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    assert {"all": whole} | found == FROZEN


def test_archives_are_what_the_tool_writes(tmp_path: Path) -> None:
    """Stored as they are, without dates, in the order in which they are read: made again, no byte changes."""
    for one in bundled_datasets():
        with ZipFile(one.archive) as file:
            assert all(info.compress_type == ZIP_STORED for info in file.infolist())
            write_archive(tmp_path / one.archive.name, {name: file.read(name) for name in file.namelist()})
        assert (tmp_path / one.archive.name).read_bytes() == one.archive.read_bytes()


def test_hashes_of_splits_are_those_of_the_committed_results() -> None:
    """Packed or as folders, a data set is the same: runs that were done on folders stay complete."""
    committed = {
        document["dataset"]: document["dataset_hash"]
        for document in read_packed(RESULTS / "mini-few-shot").documents.values()
    }
    found = {one.name: one.load().hash for one in bundled_datasets()}
    assert committed == found


def test_enough_data_sets_images_and_styles_in_little_space() -> None:
    datasets = bundled_datasets()
    assert len(datasets) >= 11
    for one in datasets:
        dataset = one.load()
        assert min(dataset.train.counts.values()) >= 16 and len({one.style, *one.shifted}) >= 3
    assert sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()) <= 31_000_000
