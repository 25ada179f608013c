"""What only GDA does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import coopt
from coopt.backbones import Backbone
from coopt.errors import ParameterError, SavedFileError
from coopt.methods.feature_adapter import held_out
from coopt.methods.gda import GDA, WEIGHTS
from coopt.prompts.templates import template_features
from tests.methods.conftest import NAMES

SORTED = sorted(NAMES)


def unit(x: Any) -> np.ndarray:
    x = np.asarray(x, np.float64)
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def text_of(backbone: Backbone, names: Any = SORTED) -> np.ndarray:
    return unit(template_features(backbone, list(names), ["a photo of a {}."]).numpy())


def numbers(labels: Any) -> np.ndarray:
    return np.array([SORTED.index(label) for label in labels])


def means_by_hand(x: np.ndarray, y: np.ndarray, text: np.ndarray) -> np.ndarray:
    """Of classes with images their mean; of others what the paper takes."""
    rows = []
    for c, t in enumerate(text):
        mine = [row for row, label in zip(x, y, strict=True) if label == c]
        if not mine:
            nearest = sorted(x, key=lambda row: -float(row @ t))[:64]
            mine = [*nearest, *[t] * 16]
        rows.append(np.mean(mine, axis=0))
    return np.array(rows)


def gaussian_by_hand(
    x: np.ndarray, deviations: np.ndarray, means: np.ndarray, others: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Scores f W + b of other features, as the paper's equations say: a pseudo-inverse, and W and b of it."""
    n, dim = x.shape
    sigma = deviations.T @ deviations / (n - 1)
    precision = dim * np.linalg.pinv((n - 1) * sigma + np.trace(sigma) * np.eye(dim), hermitian=True)
    bias = np.array([-0.5 * mean @ precision @ mean for mean in means])
    return others @ precision @ means.T + bias, precision


@pytest.mark.parametrize("keep", ["all", "uneven", "one class alone has two"])
def test_logits_are_those_of_the_formula(keep: str, backbone: Backbone, features: Any, labels: Any) -> None:
    few = {"all": range(24), "uneven": [0, 1, 2, 3, 4, 5, 8, 12, 16, 20], "one class alone has two": [0, 1, 2, 3, 4]}
    rows = list(few[keep])
    x, y, text = unit(features[rows]), numbers(labels[rows]), text_of(backbone)
    means = means_by_hand(x, y, text)
    added, _ = gaussian_by_hand(x, x - means[y], means, unit(features))
    expected = backbone.logit_scale * unit(features) @ text.T + 0.3 * added
    model = GDA(backbone, alpha=0.3).fit(features[rows], labels[rows])
    assert np.allclose(model.logits(features), expected, atol=2e-4, rtol=1e-5)
    assert (model.alpha_, model.chosen_) == (0.3, "given")


def test_it_is_linear_discriminant_analysis_with_this_much_shrinkage(
    backbone: Backbone, features: Any, labels: Any
) -> None:
    x, (n, dim) = unit(features), features.shape
    shrinkage = dim / (n - 1 + dim)  # (1 - s) S + s tr(S) / D I is then a multiple of (N-1) Sigma + tr(Sigma) I
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage, priors=np.full(4, 1 / 4))
    theirs.fit(x, numbers(labels))
    scale = dim * (1 - shrinkage) / n
    model = GDA(backbone, alpha=0.3).fit(features, labels)
    assert np.allclose(model.weight_.numpy(), scale * theirs.coef_, rtol=1e-4, atol=1e-4)
    without_priors = scale * (theirs.intercept_ - np.log(1 / 4))
    assert np.allclose(model.bias_.numpy(), without_priors, rtol=1e-4, atol=1e-4)
    alone = x @ model.weight_.numpy().T + model.bias_.numpy()
    assert (alone.argmax(axis=1) == theirs.predict(x)).all()


def test_alpha_zero_is_zero_shot(backbone: Backbone, features: Any, labels: Any) -> None:
    zero_shot = coopt.ZeroShot(backbone, class_names=SORTED).fit(features, labels)
    assert np.allclose(GDA(backbone, alpha=0).fit(features, labels).logits(features), zero_shot.logits(features))


def test_what_is_held_out_chooses_alpha(backbone: Backbone, features: Any, labels: Any) -> None:
    noisy = features + 0.8 * np.random.default_rng(3).normal(size=features.shape).astype(np.float32)
    x, y, text = unit(noisy), numbers(labels), text_of(backbone)
    x = unit(x.astype(np.float32))
    hits = dict.fromkeys(WEIGHTS, 0)

    def unit_of(x: np.ndarray, y: np.ndarray, added: np.ndarray) -> float:
        spreads = []
        for scores in (backbone.logit_scale * x @ text.T, added):
            rest = [np.std([s for c, s in enumerate(row) if c != own]) for row, own in zip(scores, y, strict=True)]
            spreads.append(np.mean(rest))
        return spreads[0] / spreads[1]

    parts = [part.numpy() for part in held_out(torch.from_numpy(x), torch.from_numpy(y), seed=5)]
    for out in parts:
        mine, of_mine = x[~out], y[~out]
        means = means_by_hand(mine, of_mine, text)
        here, there = (gaussian_by_hand(mine, mine - means[of_mine], means, rows)[0] for rows in (mine, x[out]))
        for weight in WEIGHTS:
            scores = backbone.logit_scale * x[out] @ text.T + weight * unit_of(mine, of_mine, here) * there
            hits[weight] += int((scores.argmax(axis=1) == y[out]).sum())
    best = min(weight for weight in WEIGHTS if hits[weight] == max(hits.values()))
    assert len(parts) == 4 and len(set(hits.values())) > 1
    means = means_by_hand(x, y, text)
    added, _ = gaussian_by_hand(x, x - means[y], means, x)
    model = GDA(backbone, seed=5).fit(noisy, labels)
    assert model.alpha_ == pytest.approx(best * unit_of(x, y, added), rel=1e-4)
    assert model.chosen_ == "by accuracy on training images held out, in 4 parts"


def test_one_image_of_each_class(backbone: Backbone, features: Any, labels: Any) -> None:
    x, y, text = unit(features[:4]), numbers(labels[:4]), text_of(backbone)
    model = GDA(backbone).fit(features[:4], labels[:4])
    means = means_by_hand(x, y, text)
    added, _ = gaussian_by_hand(x, x - x.mean(axis=0), means, unit(features))
    expected = backbone.logit_scale * unit(features) @ text.T + model.alpha_ * added
    assert np.allclose(model.logits(features), expected, atol=1e-3, rtol=1e-4)
    assert model.chosen_ == "the smallest weight: no class has two images" and model.alpha_ > 0
    everything = GDA(backbone, alpha=16 * model.alpha_).fit(features[:4], labels[:4])
    assert everything.score(features, labels) > 0.9


@pytest.mark.parametrize("rows", [[0], [0, 0, 0], [0, 0, 0, 1, 1, 1]])
def test_images_without_any_spread(rows: list[int], backbone: Backbone, features: Any, labels: Any) -> None:
    model = GDA(backbone, class_names=NAMES).fit(features[rows], labels[rows])
    assert np.isfinite(model.logits(features)).all()
    assert model.score(features[[0]], labels[[0]]) in (0, 1)
    assert (
        GDA(backbone, class_names=NAMES, alpha=100)
        .fit(features[rows], labels[rows])
        .score(features[rows], labels[rows])
        == 1
    )


def test_two_classes(backbone: Backbone, features: Any, labels: Any) -> None:
    rows = [i for i, label in enumerate(labels) if label in ("cat", "o'clock")]
    model = GDA(backbone).fit(features[rows], labels[rows])
    assert model.alpha_ > 0 and model.score(features[rows], labels[rows]) == 1


def test_the_order_of_images_does_not_matter(backbone: Backbone, features: Any, labels: Any) -> None:
    order = np.random.default_rng(0).permutation(24)
    a = GDA(backbone).fit(features, labels)
    b = GDA(backbone).fit(features[order], labels[order])
    assert b.alpha_ == pytest.approx(a.alpha_, rel=1e-9) and np.allclose(
        b.logits(features), a.logits(features), atol=1e-4
    )


def test_new_classes_take_near_images_and_their_text(
    backbone: Backbone, features: Any, labels: Any, tmp_path: Path
) -> None:
    model = GDA(backbone, alpha=0.5).fit(features, labels)
    names = ["violin", "cat", "3d printer", "red apple"]
    other = model.with_classes(names)
    x, y, text = unit(features), numbers(labels), text_of(backbone, names)
    of_old = means_by_hand(x, y, text_of(backbone))
    known = [names.index(label) if label in names else -1 for label in labels]
    means = means_by_hand(x, np.array(known), text)
    assert np.allclose(means[1], of_old[SORTED.index("cat")])
    added, _ = gaussian_by_hand(x, x - of_old[y], means, x)
    expected = backbone.logit_scale * x @ text.T + 0.5 * added
    assert np.allclose(other.logits(features), expected, atol=5e-4, rtol=1e-5)
    loaded = coopt.load(other.save(tmp_path / "other"), backbone)
    assert (loaded.logits(features) == other.logits(features)).all()
    again = loaded.with_classes(["cat", "violin"])
    assert np.allclose(again.logits(features), other.logits(features)[:, [1, 0]], atol=1e-4)


def test_of_more_than_64_images_the_nearest_count(backbone: Backbone) -> None:
    random = np.random.default_rng(1)
    x = unit(random.normal(size=(100, backbone.embed_dim))).astype(np.float32)
    y = np.array(["cat", "dog"] * 50)
    model = GDA(backbone, alpha=1.0).fit(x, y)
    text = text_of(backbone, ["cat", "dog", "violin"])
    classes = np.tile([0, 1], 50)
    means = means_by_hand(unit(x), classes, text)
    expected, _ = gaussian_by_hand(unit(x), unit(x) - means[classes], means, unit(x))
    zero_shot = backbone.logit_scale * unit(x) @ text.T
    ours = model.with_classes(["cat", "dog", "violin"]).logits(x)
    assert np.allclose(ours, zero_shot + expected, atol=1e-3, rtol=1e-4)


def test_a_class_without_an_image_is_like_a_new_one(backbone: Backbone, features: Any, labels: Any) -> None:
    names = [*SORTED, "violin"]
    there = GDA(backbone, class_names=names, alpha=0.5).fit(features, labels)
    added = GDA(backbone, alpha=0.5).fit(features, labels).with_classes(names)
    assert np.allclose(there.logits(features), added.logits(features), atol=1e-4)
    assert there.groups_.tolist() == [0, 1, 2, 3, -1]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": torch.zeros(24, 47)}, r"'keys' has shape \(24, 47\); expected \(any, 48\)"),
        ({"labels": torch.zeros(23, dtype=torch.int64)}, "do not fit together"),
        ({"labels": torch.full((24,), -1)}, "do not fit together"),
        ({"labels": torch.zeros(24)}, "do not fit together"),
        ({"groups": torch.tensor([0, 1, 2, 4])}, "for each class one of these labels, or -1"),
        ({"groups": torch.tensor([0, 1, 2])}, r"'groups' has shape \(3,\); expected \(4,\)"),
        ({"alpha": torch.zeros(2)}, r"'alpha' has shape \(2,\); expected \(\)"),
    ],
)
def test_state_that_does_not_fit_is_refused(
    change: dict, message: str, backbone: Backbone, features: Any, labels: Any, tmp_path: Path
) -> None:
    model = GDA(backbone).fit(features, labels)
    state = load_file(model.save(tmp_path) / "prompt.safetensors")
    model._check_state(state)
    with pytest.raises(SavedFileError, match=message):
        model._check_state({**state, **change})


@pytest.mark.usefixtures("unchecked")
def test_wrong_parameters(backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match=r"The 'alpha' parameter of GDA must be .*number >= 0.* Got -1 instead"):
        GDA(backbone, alpha=-1).fit(features, labels)
