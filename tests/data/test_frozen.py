"""The bundled data sets are those that were settled before the bundled model was trained."""

from __future__ import annotations

import hashlib
import json
from importlib import resources
from pathlib import Path

from coopt.data.bundled import bundled_datasets

FROZEN = json.loads((Path(__file__).parents[2] / "tools" / "bundled" / "results" / "frozen.json").read_text())
BUNDLED = Path(str(resources.files("coopt") / "bundled"))


def hash_of(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(BUNDLED / "data")).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


def test_pictures_classes_and_prompts_are_as_frozen() -> None:
    found = {one.name: hash_of(sorted(one.folder.rglob("*.png"))) for one in bundled_datasets()}
    found["datasets.json"] = hash_of([BUNDLED / "data" / "datasets.json"])
    whole = hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()
    assert {"all": whole} | found == FROZEN


def test_enough_data_sets_images_and_styles_in_little_space() -> None:
    datasets = bundled_datasets()
    assert len(datasets) >= 11
    for one in datasets:
        dataset = one.load()
        assert min(dataset.train.counts.values()) >= 16 and len({one.style, *one.shifted}) >= 3
    assert sum(file.stat().st_size for file in BUNDLED.rglob("*") if file.is_file()) <= 30_000_000
