from __future__ import annotations

import json
from collections import Counter
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt.data import (
    ImageDataset,
    Split,
    base_and_new,
    base_to_new,
    encode_labels,
    few_shot,
    few_shot_indices,
    linear_probe_indices,
)
from coopt.data.bundled import load_bundled
from coopt.errors import DataError, FewShotsWarning, ParameterError

from .conftest import GOLDEN

FEW_SHOT = json.loads((GOLDEN / "fewshot_sampling.json").read_text())
LINEAR_PROBE = json.loads((GOLDEN / "linear_probe.json").read_text())


def _case(name: str) -> tuple[int, int]:
    numbers = {part.rstrip("0123456789"): int(part.lstrip("sedhot")) for part in name.split("_")}
    return numbers["shots"], numbers["seed"]


@pytest.mark.parametrize("case", FEW_SHOT["expected"])
def test_the_few_shot_sample_is_the_papers(case: str) -> None:
    shots, seed = _case(case)
    expected = FEW_SHOT["expected"][case]
    train, val = FEW_SHOT["train"], FEW_SHOT["val"]
    train_indices, val_indices = few_shot_indices([y for _, y in train], [y for _, y in val], shots, seed)
    assert [train[i][0] for i in train_indices] == expected["train"]
    assert [val[i][0] for i in val_indices] == expected["val"]

    halves = base_and_new([train[i][1] for i in train_indices])
    for classes, part in ((halves.base, "base_train"), (halves.new, "new_train")):
        chosen = [[train[i][0], classes.index(train[i][1])] for i in train_indices if train[i][1] in classes]
        assert chosen == expected[part]


@pytest.mark.parametrize("case", FEW_SHOT["expected"])
def test_a_data_set_is_sampled_and_halved_the_same_way(case: str) -> None:
    shots, seed = _case(case)
    expected = FEW_SHOT["expected"][case]
    dataset = _dataset(FEW_SHOT["train"], FEW_SHOT["val"])
    if shots > 1:
        with pytest.warns(FewShotsWarning, match=rf"Fewer than {shots} training images in .*: all they have are used"):
            sample = few_shot(dataset, shots, seed)
    else:
        sample = few_shot(dataset, shots, seed)
    assert [path.as_posix() for path in sample.train.paths] == expected["train"]
    for half, part in zip(base_to_new(sample), ("base_train", "new_train"), strict=True):
        labels = [half.class_names.index(label) for label in half.train.labels]
        paths = [path.as_posix() for path in half.train.paths]
        assert [list(pair) for pair in zip(paths, labels, strict=True)] == expected[part]
        assert half.val is not None
        assert set(half.val.labels) <= set(half.class_names)


def _dataset(train: list, val: list) -> ImageDataset:
    def split(items: list) -> Split:
        return Split(tuple(Path(path) for path, _ in items), tuple(f"class {label:02}" for _, label in items))

    names = sorted({f"class {label:02}" for _, label in train})
    return ImageDataset("golden", Path(), tuple(names), split(train), split(val))


@pytest.mark.parametrize("case", LINEAR_PROBE)
def test_the_linear_probe_sample_is_the_papers(case: str) -> None:
    shots, seed = _case(case)
    data = np.load(GOLDEN / "linear_probe.npz")
    train, val = linear_probe_indices(data["train_y"], data["val_y"], shots, seed)
    assert train == LINEAR_PROBE[case]["train_idx"]
    assert val == LINEAR_PROBE[case]["val_idx"]


def test_linear_probe_takes_all_of_a_small_class() -> None:
    train, val = linear_probe_indices([0, 1, 1, 1], [1], shots=2, seed=1)
    assert 0 in train
    assert len(train) == 3
    assert val == [0]


labels_of = st.lists(st.integers(0, 6), max_size=60)


@given(labels_of, labels_of, st.integers(1, 20), st.integers(0, 2**32))
def test_properties_of_a_sample(train: list[int], val: list[int], shots: int, seed: int) -> None:
    chosen = few_shot_indices(train, val, shots, seed)
    assert chosen == few_shot_indices(train, val, shots, seed)
    for labels, indices, most in ((train, chosen[0], shots), (val, chosen[1], min(shots, 4))):
        assert len(set(indices)) == len(indices)
        counts = Counter(labels)
        assert Counter(labels[i] for i in indices) == {label: min(most, n) for label, n in counts.items()}


@given(st.lists(st.integers(0, 9), min_size=2).filter(lambda labels: len(set(labels)) > 1))
def test_base_and_new_share_no_class_and_lose_none(labels: list[int]) -> None:
    halves = base_and_new(labels)
    assert (*halves.base, *halves.new) == tuple(sorted(set(labels)))
    assert len(halves.base) - len(halves.new) in (0, 1)


def test_few_shots_name_the_classes() -> None:
    dataset = _dataset([["a", 0], ["b", 0], ["c", 1]], [])
    with pytest.warns(FewShotsWarning, match=r"Fewer than 2 training images in class 01 \(1\): all"):
        assert len(few_shot(dataset, 2, 1).train) == 3


@pytest.mark.parametrize("shots", [1, 4, 16, 60])
def test_uneven_counts_give_as_many_as_there_are(shots: int) -> None:
    """From 1 to 60 images per class: both draws take all of a class that has fewer than asked for."""
    dataset = load_bundled("fleet")
    counts = dataset.train.counts
    with pytest.warns(FewShotsWarning) if shots > 1 else nullcontext():
        sample = few_shot(dataset, shots, seed=2)
    expected = {name: min(shots, count) for name, count in counts.items()}
    assert sample.train.counts == expected
    assert len(set(sample.train.paths)) == len(sample.train) and set(sample.train.paths) <= set(dataset.train.paths)
    probe, _ = linear_probe_indices(*(encode_labels(part.labels)[0] for part in (dataset.train, dataset.val)), shots, 2)  # type: ignore[union-attr]
    assert dataset.train.take(probe).counts == expected
    if shots == 60:
        assert sorted(probe) == list(range(len(dataset.train))) and len(sample.train) == len(dataset.train)


@pytest.mark.parametrize("shots", [0, -1, True])
def test_shots_are_at_least_one(shots: int) -> None:
    with pytest.raises(ParameterError, match=r"The 'shots' parameter must be an int >= 1\. Got (0|-1|True) instead"):
        few_shot_indices([0, 1], [], shots, 1)
    with pytest.raises(ParameterError, match=r"The 'shots' parameter must be an int >= 1"):
        linear_probe_indices([0, 1], [], shots, 1)


def test_base_to_new_needs_two_classes() -> None:
    with pytest.raises(DataError, match=r"Base-to-new needs at least two classes\. Got 1"):
        base_and_new([3, 3])
