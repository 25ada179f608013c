"""Folds: every class keeps images to learn from, what looks alike stays together, and all else is even."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from coopt.errors import ParameterError
from coopt.evaluation.folds import ALWAYS_LEARNED, folds_of, groups_that_look_alike, share_of_one_thing


@given(
    data=st.lists(st.tuples(st.integers(0, 4), st.integers(0, 12)), min_size=1, max_size=40),
    n_folds=st.integers(2, 5),
    seed=st.integers(0, 3),
)
@settings(max_examples=150, deadline=None)
def test_every_class_keeps_some_and_groups_stay_whole(data: list[tuple[int, int]], n_folds: int, seed: int) -> None:
    """Groups may have images of several classes here."""
    labels, groups = [label for label, _ in data], [group for _, group in data]
    folds = folds_of(labels, n_folds, seed, groups)
    assert folds.tolist() == folds_of(labels, n_folds, seed, groups).tolist()
    assert set(folds.tolist()) <= {ALWAYS_LEARNED, *range(n_folds)}
    for group in set(groups):
        assert len({fold for fold, one in zip(folds.tolist(), groups, strict=True) if one == group}) == 1
    for fold in range(n_folds):
        for label in {one for one, place in zip(labels, folds, strict=True) if place == fold}:
            kept = [place for one, place in zip(labels, folds, strict=True) if one == label and place != fold]
            assert kept, "a class that is predicted is learned from"


@given(counts=st.lists(st.integers(1, 17), min_size=1, max_size=8), n_folds=st.integers(2, 4))
@settings(max_examples=60, deadline=None)
def test_without_groups_folds_are_even_and_single_images_are_learned_from(counts: list[int], n_folds: int) -> None:
    labels = [f"class {i}" for i, count in enumerate(counts) for _ in range(count)]
    folds = folds_of(labels, n_folds, 1)
    for i, count in enumerate(counts):
        places = Counter(fold for fold, label in zip(folds.tolist(), labels, strict=True) if label == f"class {i}")
        if count == 1:
            assert places == {ALWAYS_LEARNED: 1}
        else:
            assert ALWAYS_LEARNED not in places
            sizes = [places[fold] for fold in range(n_folds)]
            assert max(sizes) - min(sizes) <= 1
    whole = Counter(fold for fold in folds.tolist() if fold != ALWAYS_LEARNED)
    sizes = [whole[fold] for fold in range(n_folds)]
    assert max(sizes) - min(sizes) <= 1


def test_seeds_deal_otherwise() -> None:
    labels = ["a"] * 8 + ["b"] * 8
    assert folds_of(labels, 3, 1).tolist() != folds_of(labels, 3, 2).tolist()


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("n", [1, 0, True, "3", 2.0])
def test_how_many_folds(n: Any) -> None:
    with pytest.raises(ParameterError, match="The 'folds' parameter must be an int >= 2"):
        folds_of(["a", "a"], n, 1)


def two_places() -> tuple[np.ndarray, list[str]]:
    """Images of two classes, each in front of two walls: six features, of which those of a class and a wall are nearly equal."""
    rng = np.random.RandomState(0)
    axes = np.eye(6)
    walls = {("cup", 0): axes[0], ("cup", 1): axes[1], ("dog", 0): axes[2], ("dog", 1): axes[3]}
    features, labels = [], []
    for (label, _), centre in walls.items():
        for _ in range(3):
            features.append(3 * centre + 0.05 * rng.randn(6))
            labels.append(label)
    return np.array(features), labels


def test_images_that_look_alike_are_one_group() -> None:
    features, labels = two_places()
    groups = groups_that_look_alike(features, labels, 2, range(12))
    assert groups == [0, 0, 0, 3, 3, 3, 6, 6, 6, 9, 9, 9]
    folds = folds_of(labels, 2, 1, groups)
    assert all(len(set(folds[i : i + 3])) == 1 for i in range(0, 12, 3))
    assert folds[0] != folds[3] and folds[6] != folds[9]


def test_the_same_picture_under_two_names_joins_their_groups() -> None:
    features, labels = two_places()
    same = list(range(12))
    same[6] = 0  # the first dog is the first cup
    groups = groups_that_look_alike(features, labels, 2, same)
    assert groups == [0, 0, 0, 3, 3, 3, 0, 0, 0, 9, 9, 9]


def test_copies_of_a_picture_count_once() -> None:
    """Three copies of one picture and two others: three groups, with the copies in one."""
    features = np.eye(5)[[0, 0, 0, 1, 2]]
    assert groups_that_look_alike(features, ["a"] * 5, 3, [0, 0, 0, 3, 4]) == [0, 0, 0, 3, 4]
    assert groups_that_look_alike(features, ["a"] * 5, 9, [0, 0, 0, 3, 4]) == [0, 0, 0, 3, 4]


def share_by_hand(features: np.ndarray, labels: list[str]) -> float:
    """Image by image, pair by pair."""
    unit = [x / np.linalg.norm(x) for x in features]
    alike = [
        min(x @ y for y, other in zip(unit, labels, strict=True) if other == label)
        > max(x @ y for y, other in zip(unit, labels, strict=True) if other != label)
        for x, label in zip(unit, labels, strict=True)
    ]
    return float(np.mean(alike))


def test_pictures_of_one_thing_are_told_from_pictures_of_many() -> None:
    features, labels = two_places()
    things = [f"{label} {i // 3}" for i, label in enumerate(labels)]
    some = ["left", "left", "left", *labels[3:]]
    shares = [share_of_one_thing(features, names) for names in (labels, things, some)]
    assert shares == [share_by_hand(features, names) for names in (labels, things, some)]
    assert shares[0] < 0.1 and shares[1] == 1.0 and 0.4 < shares[2] < 0.6
    assert share_of_one_thing(features[:2], ["a", "b"]) == 0.0  # one image each: nothing to see
