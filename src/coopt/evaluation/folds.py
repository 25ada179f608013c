"""Cross-validation of few images: which are predicted from which others.

Photographs of one person are rarely independent: the same cup from two sides, the same dog in two rooms. Where one is learned from
and the other predicted, remembering looks like recognising. So the images of a class are first gathered into groups that look
alike, as the backbone sees them, and groups go to the folds whole (in geography: "spatial blocks", Roberts et al., Ecography
2017). Every image is predicted once, by what was learned from the images of the other folds. An image whose class would be left
without any is always learned from, and never predicted.

Notation: n images, D dimension of their features, K folds.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from coopt.errors import ParameterError

ALWAYS_LEARNED = -1
"""In the place of a fold: the image is in none."""

MOST_GATHERED = 1000
"""Images of a class that are gathered into groups; of more, each is a group of its own."""


def check_folds(n_folds: Any) -> None:
    """Refuses what is no number of folds.

    Raises:
        ParameterError: it is no int, or less than 2.
    """
    if isinstance(n_folds, bool) or not isinstance(n_folds, int) or n_folds < 2:
        raise ParameterError(f"The 'folds' parameter must be an int >= 2. Got {n_folds!r} instead.")


def folds_of(
    labels: Sequence[Hashable], n_folds: int, seed: int, groups: Sequence[int] | None = None
) -> Int[np.ndarray, " n"]:
    """The fold of each image, from 0, or `ALWAYS_LEARNED`.

    The groups of a class are shuffled and dealt to the folds, each to the one with the fewest images of this class, and of such
    to the one with the fewest of all.

    Args:
        labels: the class of each image.
        n_folds: K, at least 2.
        seed: of the shuffling.
        groups: images of the same group have the same number; None: each is a group of its own.

    Raises:
        ParameterError: fewer than two folds.
    """
    check_folds(n_folds)
    numbers = list(range(len(labels))) if groups is None else list(groups)
    by_class: dict[Hashable, list[int]] = {}
    for group, label in zip(numbers, labels, strict=True):
        by_class.setdefault(label, []).append(group)
    rng, fold_of = random.Random(seed), dict.fromkeys(numbers, ALWAYS_LEARNED)
    sizes, images_of = [0] * n_folds, Counter(numbers)
    for members in by_class.values():
        of_class = Counter(members)
        there: Counter[int] = Counter()
        for group, n in of_class.items():
            there[fold_of[group]] += n
        new = [group for group in of_class if fold_of[group] == ALWAYS_LEARNED]
        rng.shuffle(new)
        for group in new if len(of_class) > 1 else ():
            fold = min(range(n_folds), key=lambda one: (there[one], sizes[one], one))
            fold_of[group] = fold
            there[fold] += of_class[group]
            sizes[fold] += images_of[group]
    _keep_every_class(by_class, fold_of)
    return np.array([fold_of[group] for group in numbers], dtype=np.int64)


def _keep_every_class(by_class: dict[Hashable, list[int]], fold_of: dict[int, int]) -> None:
    """Takes groups out of the folds until no class has all of its images in one. A group with images of two classes takes the
    other class along, so this is done until nothing changes."""
    changed = True
    while changed:
        changed = False
        for members in by_class.values():
            there = {fold_of[group] for group in members}
            if len(there) == 1 and there != {ALWAYS_LEARNED}:
                fold_of.update(dict.fromkeys(members, ALWAYS_LEARNED))
                changed = True


def groups_that_look_alike(
    features: Float[np.ndarray, "n dim"], labels: Sequence[Hashable], n_groups: int, same: Sequence[int]
) -> list[int]:
    """A group for each image: those of a class are gathered into so many, by average linkage of their cosines.

    Args:
        features: as the image tower gives them.
        labels: the class of each image.
        n_groups: in a class; one with fewer different images has as many groups as these.
        same: a number for each image; those with the same one show the same, and are in one group even where their classes
            differ.
    """
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    rows: dict[Hashable, list[int]] = {}
    for i, label in enumerate(labels):
        rows.setdefault(label, []).append(i)
    group = list(range(len(labels)))  # by its first image

    def root(i: int) -> int:
        while group[i] != i:
            i = group[i]
        return i

    def join(members: Sequence[int]) -> None:
        first = min(root(i) for i in members)
        for i in members:
            group[root(i)] = first

    for members in rows.values():
        different = {same[i]: i for i in reversed(members)}  # one image of each number
        for cluster in _clusters(unit, sorted(different.values()), n_groups):
            join(cluster)
    of_number: dict[int, list[int]] = {}
    for i, number in enumerate(same):
        of_number.setdefault(number, []).append(i)
    for members in of_number.values():
        join(members)
    return [root(i) for i in range(len(group))]


def _clusters(unit: Float[np.ndarray, "n dim"], members: Sequence[int], n_clusters: int) -> list[list[int]]:
    if len(members) <= n_clusters or len(members) > MOST_GATHERED:
        return [[i] for i in members]
    from sklearn.cluster import AgglomerativeClustering

    clusters = AgglomerativeClustering(n_clusters, metric="cosine", linkage="average").fit_predict(unit[list(members)])
    return [
        [i for i, one in zip(members, clusters.tolist(), strict=True) if one == cluster]
        for cluster in range(n_clusters)
    ]


def share_of_one_thing(features: Float[np.ndarray, "n dim"], labels: Sequence[Hashable]) -> float:
    """The share of images whose classes look like pictures of one and the same thing: even the image of its class that is least like
    it is more like it than any image of another class.

    Where this is most of them, every way to hold images out is about that one thing, and says nothing of others of its kind.

    Args:
        features: as the image tower gives them; of images that show different things.
        labels: the class of each image; those of a class with a single image do not count.
    """
    unit = features / np.linalg.norm(features, axis=1, keepdims=True)
    _, numbers, counts = np.unique(np.array([str(label) for label in labels]), return_inverse=True, return_counts=True)
    alike = total = 0
    for start in range(0, len(unit), MOST_GATHERED):
        part = slice(start, start + MOST_GATHERED)
        cosines = unit[part] @ unit.T
        own = numbers[part, None] == numbers[None, :]
        least_own = np.where(own, cosines, np.inf).min(axis=1)
        most_other = np.where(own, -np.inf, cosines).max(axis=1)
        counted = counts[numbers[part]] > 1
        alike += int((counted & (least_own > most_other)).sum())
        total += int(counted.sum())
    return alike / total if total else 0.0
