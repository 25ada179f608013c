"""The bundled data sets are those that were settled before the bundled model was trained."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile

from coopt.data.bundled import bundled_datasets, find_bundled, hard_datasets
from coopt.evaluation.packed import read_packed
from tools.bundled import hard
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
    assert {"all": whole} | found == {name: one for name, one in FROZEN.items() if name != "hard"}


def test_hard_problems_are_as_frozen() -> None:
    """They were settled before any recipe was chosen on them; `mixed` is a list of pictures that are frozen above."""
    mixed, fleet = hard_datasets()
    parts = [("train", (loaded := mixed.load()).train), ("val", loaded.val), ("test", loaded.test)]
    parts += [(f"test-{style}", mixed.load(style).test) for style in mixed.shifted]
    rows = [
        f"{part}\t{path.relative_to(mixed.archive).as_posix()}\t{label}\n"
        for part, split in parts
        if split is not None
        for path, label in zip(split.paths, split.labels, strict=True)
    ]
    described = {"hard.json": (BUNDLED / "data" / "hard.json").read_bytes()}
    found = {"mixed": hashlib.sha256("".join(rows).encode()).hexdigest()}
    found |= {"fleet": hash_of(pictures(fleet.archive)), "hard.json": hash_of(described)}
    assert found == FROZEN["hard"]
    assert rows == ["\t".join(row) + "\n" for row in hard.mixed_list(BUNDLED / "data")]


def test_fleet_is_uneven_and_a_tenth_of_its_training_labels_is_wrong() -> None:
    """As the tool draws them; which labels are wrong can be had from it, and not from the data set."""
    dataset = find_bundled("fleet").load()
    counts = [dataset.train.counts[name] for name in dataset.class_names]
    assert counts == hard.training_counts() and (min(counts), max(counts)) == (1, 60)
    given, shown = hard.training_labels()
    assert [dataset.class_names[label] for label in given] == list(dataset.train.labels)
    wrong = given != shown
    assert int(wrong.sum()) == round(0.1 * len(given))
    assert set(given[~wrong].tolist()) == set(range(96))  # of every class there is a right one
    alike = (given // 12 == shown // 12) ^ (given % 12 == shown % 12)
    assert 0.7 < float(alike[wrong].float().mean()) < 0.95
    assert dataset.val is not None and set(dataset.val.counts.values()) == {8}
    assert dataset.test is not None and set(dataset.test.counts.values()) == {10}


def test_archives_are_what_the_tool_writes(tmp_path: Path) -> None:
    """Stored as they are, without dates, in the order in which they are read: made again, no byte changes."""
    for one in (*bundled_datasets(), find_bundled("fleet")):
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
    assert find_bundled("fleet").archive.stat().st_size <= 3_200_000
    assert sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()) <= 34_000_000
