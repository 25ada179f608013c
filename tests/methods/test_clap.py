"""What only CLAP does, and SS-Text."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

import coopt
from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.methods.clap import CLAP, ss_text
from tests.methods.conftest import NAMES, ONE_STEP
from tests.methods.test_gda import SORTED, numbers, text_of, unit

UNEVEN = [0, 1, 2, 3, 4, 5, 8, 12, 16, 20]
SCALE = 100.0


def softmax(scores: np.ndarray) -> np.ndarray:
    shifted = np.exp(scores - scores.max(axis=1, keepdims=True))
    return shifted / shifted.sum(axis=1, keepdims=True)


def objective(w: np.ndarray, x: np.ndarray, y: np.ndarray, text: np.ndarray, penalty: float) -> float:
    """Cross-entropy of the scaled cosines, and the mean over the classes of lambda_c |w_c - t_c|^2."""
    right = softmax(SCALE * x @ text.T)[np.arange(len(y)), y]
    trust = [right[y == c].mean() if (y == c).any() else 1.0 for c in range(len(text))]
    loss = -np.mean(np.log(softmax(SCALE * x @ unit(w).T)[np.arange(len(y)), y]))
    return float(loss + penalty * np.mean([t * np.sum((a - b) ** 2) for t, a, b in zip(trust, w, text, strict=True)]))


def slopes(w: np.ndarray, *given: Any) -> np.ndarray:
    """Of the objective, by finite differences along every number."""
    found = np.zeros_like(w)
    for i in np.ndindex(w.shape):
        step = np.zeros_like(w)
        step[i] = 1e-5
        found[i] = (objective(w + step, *given) - objective(w - step, *given)) / 2e-5
    return found


def near_their_text(backbone: Backbone, labels: Any) -> np.ndarray:
    """Features that zero-shot takes for the right class more or less surely."""
    noise = np.random.default_rng(2).normal(size=(len(labels), backbone.embed_dim))
    return (text_of(backbone)[numbers(labels)] + 0.4 * noise).astype(np.float32)


@pytest.mark.parametrize("names", [SORTED, [*SORTED, "violin"]])
def test_two_steps_follow_the_gradient_of_the_objective(names: list[str], backbone: Backbone, labels: Any) -> None:
    features = near_their_text(backbone, labels)
    x, y, text = unit(features[UNEVEN]), numbers(labels[UNEVEN]), text_of(backbone, names)
    given = (x, y, text, 3.0)
    first = text - 0.1 * slopes(text, *given)  # at the text features there is no penalty yet
    second = first - 0.1 * slopes(first, *given)
    without = first - 0.1 * slopes(first, x, y, text, 0.0)
    recipe = {**ONE_STEP, "epochs": 2, "lr": 0.1, "momentum": 0.0}
    model = CLAP(backbone, class_names=names, penalty=3.0, recipe=recipe).fit(features[UNEVEN], labels[UNEVEN])
    assert np.allclose(model.learned_["weight"].numpy(), second, atol=1e-4) and np.abs(second - without).max() > 5e-3
    assert model.losses_ == pytest.approx([objective(text, *given), objective(first, *given)], rel=1e-3)
    assert np.allclose(model.logits(features), SCALE * unit(features) @ unit(second).T, atol=0.02)


def test_the_penalty_holds_classes_at_their_text(backbone: Backbone, labels: Any) -> None:
    features = near_their_text(backbone, labels)

    def away(penalty: float) -> float:
        model = CLAP(backbone, penalty=penalty, recipe={"epochs": 100, "lr": 0.01}).fit(features, labels)
        return float((model.learned_["weight"] - model.template_features_).norm())

    assert 0 < away(30.0) < 0.5 * away(0.0)


@pytest.mark.parametrize("names", [SORTED, [*SORTED, "violin"]])
def test_the_closed_form_minimises_its_objective(
    names: list[str], backbone: Backbone, features: Any, labels: Any, tmp_path: Path
) -> None:
    """The linear part of the cross-entropy and half the penalty, minimised by steps from zero."""
    x, y, text = unit(features[UNEVEN]), numbers(labels[UNEVEN]), text_of(backbone, names)
    counts = [max(int((y == c).sum()), 1) for c in range(len(names))]

    def surrogate(flat: np.ndarray) -> float:
        w = flat.reshape(text.shape)
        linear = -SCALE / len(y) * sum(row @ w[c] for row, c in zip(x, y, strict=True))
        return float(linear + sum(max(1 / n, 1e-3) / 2 * d @ d for n, d in zip(counts, w - text, strict=True)))

    found = minimize(surrogate, np.zeros(text.size), method="L-BFGS-B", options={"maxfun": 10**6, "ftol": 1e-14})
    weight = found.x.reshape(text.shape)
    model = CLAP(backbone, class_names=names, closed_form=True).fit(features[UNEVEN], labels[UNEVEN])
    assert np.allclose(model.learned_["weight"].numpy(), weight, atol=2e-3 * np.abs(weight).max())
    assert np.allclose(model.logits(features), SCALE * unit(features) @ unit(weight).T, atol=0.3)
    assert (model.losses_, model.stopped_, model.full_title) == ([], "computed at once", "SS-Text")
    assert (coopt.load(model.save(tmp_path), backbone).logits(features) == model.logits(features)).all()


def test_the_ridge_of_many_images_ends_at_a_thousandth() -> None:
    x = torch.nn.functional.normalize(torch.randn(2003, 5, generator=torch.Generator().manual_seed(0)).double(), dim=1)
    targets = torch.tensor([0] * 2000 + [1] * 3)
    _, ridge = ss_text(x, targets, x[:3], SCALE)
    assert ridge.tolist() == [1e-3, pytest.approx(1 / 3), 1.0]


def test_the_closed_form_takes_all_views(backbone: Backbone, pictures: Any) -> None:
    paths, labels = pictures
    plain = CLAP(backbone, closed_form=True).fit(paths, labels).learned_["weight"]
    mixed = CLAP(backbone, closed_form=True, recipe={"views": 3})
    assert not torch.allclose(mixed.fit(paths, labels).learned_["weight"], plain, atol=1e-3)
    views = mixed._features(paths, ("test", 1, 2)).features
    x = torch.nn.functional.normalize(views.double(), dim=-1).mean(dim=0)
    y = torch.tensor([sorted(set(labels)).index(label) for label in labels])
    expected, _ = ss_text(x, y, mixed.template_features_.double(), backbone.logit_scale)
    assert torch.allclose(mixed.learned_["weight"], expected.float(), atol=1e-4)
    assert CLAP(backbone).full_title == "CLAP"


def test_the_order_of_images_does_not_matter(backbone: Backbone, features: Any, labels: Any) -> None:
    order = np.random.default_rng(0).permutation(24)
    for parameters in ({"recipe": {"epochs": 10}}, {"closed_form": True}):
        a = CLAP(backbone, **parameters).fit(features, labels).logits(features)
        assert np.allclose(
            CLAP(backbone, **parameters).fit(features[order], labels[order]).logits(features), a, atol=0.02
        )


def test_it_takes_no_new_classes(backbone: Backbone, features: Any, labels: Any) -> None:
    model = CLAP(backbone, closed_form=True, class_names=NAMES).fit(features[:1], labels[:1])
    with pytest.raises(ParameterError, match="A fitted CLAP belongs to its classes"):
        model.with_classes(["cat", "dog"])
