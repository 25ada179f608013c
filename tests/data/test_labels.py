from __future__ import annotations

import numpy as np
import pytest
import torch

from coopt.data import encode_labels
from coopt.errors import DataError


def test_names_are_sorted() -> None:
    encoded, names = encode_labels(["dog", "cat", "dog", "ant"])
    assert names == ("ant", "cat", "dog")
    assert encoded.tolist() == [2, 1, 2, 0]
    assert encoded.dtype == np.int64


def test_given_names_keep_their_order_and_may_be_unused() -> None:
    encoded, names = encode_labels(np.array(["dog", "cat"]), ["dog", "cat", "ant"])
    assert names == ("dog", "cat", "ant")
    assert encoded.tolist() == [0, 1]


@pytest.mark.parametrize("labels", [[1, 0, 1], np.array([1, 0, 1], dtype=np.int32), torch.tensor([1, 0, 1])])
def test_integers(labels: object) -> None:
    encoded, names = encode_labels(labels, ["cat", "dog"], n_images=3)
    assert encoded.tolist() == [1, 0, 1]
    assert names == ("cat", "dog")


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1], None, r"Labels are integers \(first: 0\), but a prompt needs class names\. Give class_names="),
        ([0, 2], ["a", "b"], r"Label 1 is 2\. Expected integers from 0 to 1, for 2 class names"),
        ([0, -1], ["a", "b"], r"Label 1 is -1"),
        (["cat", "dgo"], ["cat", "dog"], r"The label 'dgo' is not among the 2 class names.*Did you mean 'dog'\?"),
        (["cat", "xyz"], ["cat", "dog"], r"The classes are 'cat', 'dog'\."),
        (["cat", "cat"], None, r"Expected at least two classes\. Got 1: \['cat'\]"),
        (["a"], ["a"], r"Expected at least two classes"),
        (["a", "b"], ["a", "b", "a"], r"Class names must differ\. Got 'a' more than once"),
        (["a", "b"], "ab", r"class_names must be a list of names\. Got the single string 'ab'"),
        (["a", " "], None, r"Label 1 is blank \(1 in all\)"),
        (["a", "b"], ["a", " "], r"Class names must be text that is not blank\. Got ' '"),
        (
            ["a", 1],
            None,
            r"Label 1 is 1 \(int\)\. Expected all labels to be class names \(str\), or all to be integers",
        ),
        ([0.5, 1.0], ["a", "b"], r"Label 0 is 0\.5 \(float\)"),
        ([True, False], ["a", "b"], r"Label 0 is True \(bool\)"),
        (["a", None], None, r"Label 1 is None \(NoneType\)"),
        ([], None, r"Got no labels"),
        ("cat", None, r"Got the single string 'cat'"),
        (np.zeros((2, 3), dtype=int), ["a", "b"], r"Labels must be one-dimensional\. Got an array of shape \(2, 3\)"),
    ],
)
def test_bad_labels_are_explained(labels: object, names: object, message: str) -> None:
    with pytest.raises(DataError, match=message):
        encode_labels(labels, names)  # type: ignore[arg-type]


def test_one_label_per_image() -> None:
    with pytest.raises(DataError, match=r"Got 2 labels for 3 images\. Expected one label per image"):
        encode_labels(["a", "b"], n_images=3)
