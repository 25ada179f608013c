"""The papers' suites on folders laid out like the papers' data sets, with a few images in each."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coopt.backbones import Backbone
from coopt.errors import DataError
from coopt.evaluation.execution import Resources
from coopt.evaluation.executors import SerialExecutor
from coopt.evaluation.outcome import Outcome
from coopt.evaluation.store import Store
from coopt.suites.datasets import datasets_of
from coopt.suites.grid import Grid, grid_of
from coopt.suites.known import find_suite
from coopt.suites.scores import Scores
from coopt.suites.tables import table_of

IDS = {f"n0000000{i}": name for i, name in enumerate(("tench", "goldfish", "crane bird", "kite", "owl"))}


def paint(folder: Path, count: int, seed: int) -> None:
    folder.mkdir(parents=True)
    for i in range(count):
        pixels = np.random.RandomState(100 * seed + i).randint(0, 256, (4, 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((32, 32)).save(folder / f"{seed}-{i}.jpg")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """ImageNet and its variants with five classes; -A and -R have two of them."""
    root = tmp_path_factory.mktemp("data")
    for label, wnid in enumerate(IDS):
        paint(root / "imagenet" / "images" / "train" / wnid, 3, label)
        paint(root / "imagenet" / "images" / "val" / wnid, 2, 10 + label)
        paint(root / "imagenetv2" / "imagenetv2-matched-frequency-format-val" / str(label), 1, 20 + label)
        paint(root / "imagenet-sketch" / "images" / wnid, 1, 30 + label)
        if label in (1, 4):
            paint(root / "imagenet-adversarial" / "imagenet-a" / wnid, 2, 40 + label)
            paint(root / "imagenet-rendition" / "imagenet-r" / wnid, 3, 50 + label)
    (root / "imagenet" / "classnames.txt").write_text("".join(f"{wnid} {name}\n" for wnid, name in IDS.items()))
    return root


def run(grid: Grid, store: Store, backbone: Backbone) -> Outcome:
    return SerialExecutor(Resources(load=lambda name: backbone)).run(grid.jobs(), store)


def test_table_1(root: Path, backbone: Backbone, tmp_path: Path) -> None:
    suite = find_suite("coop-domain")
    only = ["vit_b16", "hand-made prompt", "linear probe"]
    grid, store = grid_of(suite, datasets_of(suite, root), only, [2], [1]), Store(tmp_path, suite.name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # these data sets are not whole
        outcome = run(grid, store, backbone)
    assert (len(outcome.done), outcome.failed) == (2, {})
    records = store.whole()
    for record in records:
        scores = record.result.scores
        assert list(scores) == ["imagenet", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r"]
        assert [score.n for score in scores.values() if score] == [10, 5, 5, 4, 6]
    (section,) = table_of(Scores(grid, records)).sections
    first = section.rows[0].cells
    assert [cell.published for cell in first] == [66.73, 60.83, 46.15, 47.77, 73.96, None]
    assert all(cell.ours is not None for cell in first)


def test_base_to_new_on_imagenet(root: Path) -> None:
    suite = find_suite("cocoop-base-to-new")
    job = grid_of(suite, datasets_of(suite, root), ["imagenet"]).jobs()[0]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        problem = job.problem()
    assert [target.class_names for target in problem.targets] == [("tench", "goldfish", "crane bird"), ("kite", "owl")]
    assert problem.dataset.name == "imagenet"


def test_a_missing_data_set_is_one_failure_for_all_its_runs(root: Path, backbone: Backbone, tmp_path: Path) -> None:
    suite = find_suite("coop-initialisation")
    grid = grid_of(suite, datasets_of(suite, root), ["dtd"])
    outcome = run(grid, Store(tmp_path, suite.name), backbone)
    assert len(outcome.failed) == 6 and len(set(outcome.failed.values())) == 1
    with pytest.raises(DataError):
        grid.jobs()[0].problem()
