"""Metrics against numbers worked out by hand."""

from __future__ import annotations

import json
import math
import statistics

import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, f1_score

import coopt
from coopt.backbones import Backbone
from coopt.errors import DataError, ParameterError
from coopt.evaluation import ClassAccuracy, Confusion, compare, evaluate, summarize

NAMES = ("ant", "bee", "cow", "dog")


def test_by_hand() -> None:
    found = compare(np.array([0, 0, 0, 1, 1, 2]), np.array([0, 0, 1, 1, 3, 0]), NAMES)
    assert (found.n, found.accuracy) == (6, 50.0)
    # F1: ant 2*2/(3+3), bee 2*1/(2+2), cow 0; dog has no image and does not count.
    assert found.macro_f1 == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    assert found.mean_class_accuracy == pytest.approx(100 * (2 / 3 + 1 / 2 + 0) / 3)
    assert [(one.name, one.n) for one in found.classes] == [("ant", 3), ("bee", 2), ("cow", 1)]
    assert [one.accuracy for one in found.classes] == pytest.approx([200 / 3, 50, 0])
    assert found.confusions == (Confusion("ant", "bee", 1), Confusion("bee", "dog", 1), Confusion("cow", "ant", 1))


def test_worst_classes_of_equals_the_larger_first() -> None:
    found = compare(np.array([0, 1, 1, 2, 3]), np.array([1, 0, 0, 2, 0]), NAMES)
    assert [one.name for one in found.worst_classes()] == ["bee", "ant", "dog", "cow"]
    assert found.worst_classes(1) == (ClassAccuracy("bee", 2, 0.0),)


def test_confusions_the_most_frequent_first() -> None:
    found = compare(np.array([0, 1, 1, 1, 2]), np.array([3, 0, 0, 2, 2]), NAMES)
    assert found.confusions[0] == Confusion("bee", "ant", 2)
    assert len(found.to_dict(confusions=1)["confusions"]) == 1


def test_against_scikit_learn() -> None:
    random = np.random.RandomState(0)
    targets, predicted = random.randint(0, 4, 200), random.randint(0, 4, 200)
    found = compare(targets, predicted, NAMES)
    assert found.accuracy == pytest.approx(100 * (targets == predicted).mean())
    assert found.macro_f1 == pytest.approx(100 * f1_score(targets, predicted, average="macro"))
    assert found.mean_class_accuracy == pytest.approx(100 * balanced_accuracy_score(targets, predicted))
    assert sum(one.count for one in found.confusions) == (targets != predicted).sum()
    json.dumps(found.to_dict())


def test_no_images() -> None:
    with pytest.raises(DataError, match="Got no images to evaluate on"):
        compare(np.array([], dtype=int), np.array([], dtype=int), NAMES)


def test_evaluate_takes_names_and_integers(backbone: Backbone) -> None:
    model = coopt.ZeroShot(backbone).fit_classes(["ant", "bee", "cow"])
    features = np.random.RandomState(0).randn(6, backbone.embed_dim).astype(np.float32)
    names = ["bee", "ant", "bee", "ant", "ant", "bee"]
    found = evaluate(model, features, names)
    assert found.accuracy == pytest.approx(100 * model.score(features, names))
    assert evaluate(model, features, [1, 0, 1, 0, 0, 1]) == found
    with pytest.raises(DataError, match="'elk' is not among"):
        evaluate(model, features, ["elk"] * 6)
    with pytest.raises(DataError, match="Got 2 labels for 6 images"):
        evaluate(model, features, ["ant", "bee"])


def test_summary_is_the_papers() -> None:
    found = summarize([60.0, 62.0, 67.0])
    assert (found.mean, found.n) == (63.0, 3)
    assert found.std == pytest.approx(math.sqrt((9 + 1 + 16) / 3))  # ddof=0
    assert found.interval == pytest.approx(1.96 * found.std / math.sqrt(3))
    assert (summarize([5.0]).std, summarize([5.0]).t_interval) == (0, None)
    with pytest.raises(DataError):
        summarize([])


@pytest.mark.parametrize(("n", "quantile"), [(2, 12.706), (3, 4.303), (5, 2.776), (11, 2.228), (31, 2.042)])
def test_students_interval_is_that_of_printed_tables(n: int, quantile: float) -> None:
    values = np.random.RandomState(n).normal(70, 3, n).tolist()
    found = summarize(values).t_interval
    assert found == pytest.approx(quantile * statistics.stdev(values) / math.sqrt(n), rel=1e-3)


def test_students_interval_covers_what_it_says_and_the_papers_does_not() -> None:
    """At three seeds 1.96 std / sqrt(n), with ddof=0, covers the mean three times out of four."""
    draws = np.random.RandomState(0).normal(0, 1, (6000, 3))
    found = [summarize(row.tolist()) for row in draws]
    papers = np.mean([abs(one.mean) <= one.interval for one in found])
    student = np.mean([abs(one.mean) <= (one.t_interval or 0) for one in found])
    assert papers == pytest.approx(0.75, abs=0.02)
    assert student == pytest.approx(0.95, abs=0.01)


def test_some_of_the_classes(backbone: Backbone) -> None:
    """A method that belongs to its classes can still choose among some of them, in any order; not among others."""
    features = torch.randn(30, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    labels = ["cat", "dog", "fox"] * 10
    probe = coopt.LinearProbe(backbone, C=1.0).fit(features, labels)
    two = [i for i, label in enumerate(labels) if label != "dog"]
    found = evaluate(probe, features[two], [labels[i] for i in two], ["fox", "cat"])
    scores = probe.logits(features[two])[:, [2, 0]]
    right = [("fox", "cat")[k] == labels[i] for k, i in zip(scores.argmax(axis=1), two, strict=True)]
    assert found.accuracy == pytest.approx(100 * sum(right) / len(right))
    with pytest.raises(ParameterError, match="belongs to its classes"):
        evaluate(probe, features, labels, ["cat", "dog", "fox", "owl"])
