"""What only LP++ does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy

import coopt
from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.methods.lp_plus_plus import LPPlusPlus
from tests.methods.conftest import NAMES
from tests.methods.test_gda import SORTED, numbers, text_of, unit

UNEVEN = [0, 1, 2, 3, 4, 5, 8, 12, 16, 20]


def by_hand(
    x: np.ndarray, y: np.ndarray, text: np.ndarray, first: float, steps: int, momentum: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """w + alpha t, b and alpha after so many steps, with autograd's gradients of the loss in float64."""
    n, n_classes = len(x), len(text)
    counts = np.bincount(y, minlength=n_classes)
    start = [x[y == c].mean(axis=0) * n / (counts > 0).sum() if counts[c] else 0 * x[0] for c in range(n_classes)]
    images, texts, targets = torch.from_numpy(x), torch.from_numpy(text), torch.from_numpy(y)
    w = torch.tensor(np.array(start), requires_grad=True)
    b = torch.zeros(n_classes, dtype=torch.float64, requires_grad=True)
    alpha = torch.full((n_classes,), first, dtype=torch.float64, requires_grad=True)
    along = [torch.zeros_like(w), torch.zeros_like(b)]
    of_w = 4 * n / np.linalg.svd(x, compute_uv=False)[0] ** 2
    of_alpha = n / (4 * max(sum((row @ t) ** 2 for row in x) for t in text))

    def gradients(*leaves: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores = images @ (w + alpha[:, None] * texts).T + b
        return torch.autograd.grad(cross_entropy(scores, targets), leaves)

    for step in range(1, steps + 1):
        for i, (leaf, slope) in enumerate(zip((w, b), gradients(w, b), strict=True)):
            along[i] = momentum * along[i] + slope
            leaf.data -= of_w * along[i]
        if step % 10 == 0:
            alpha.data -= of_alpha * gradients(alpha)[0]
    return (w + alpha[:, None] * texts).detach().numpy(), b.detach().numpy(), alpha.detach().numpy()


@pytest.mark.parametrize("rows", [range(24), UNEVEN, range(4)])
@pytest.mark.parametrize(("start", "momentum"), [("zero-shot", 0.0), ("paper", 0.9)])
def test_steps_are_those_of_the_paper(
    rows: Any, start: Any, momentum: float, backbone: Backbone, features: Any, labels: Any
) -> None:
    rows = list(rows)
    x, y, text = unit(features[rows]), numbers(labels[rows]), text_of(backbone)
    first = 250 * np.mean([x[i] @ text[c] for i, c in enumerate(y)]) if start == "paper" else backbone.logit_scale
    weight, bias, alpha = by_hand(x, y, text, first, 23, momentum)
    model = LPPlusPlus(backbone, steps=23, start=start, momentum=momentum).fit(features[rows], labels[rows])
    assert np.allclose(model.weight_.numpy(), weight, atol=2e-3, rtol=1e-4)
    assert np.allclose(model.bias_.numpy(), bias, atol=2e-3) and np.allclose(model.alpha_.numpy(), alpha, atol=2e-3)
    assert np.allclose(model.logits(features), unit(features) @ weight.T + bias, atol=5e-3)
    assert len(model.losses_) == 23


def test_without_a_step_text_and_mean_features_are_added(backbone: Backbone, features: Any, labels: Any) -> None:
    model = LPPlusPlus(backbone, steps=0).fit(features[UNEVEN], labels[UNEVEN])
    x, y = unit(features[UNEVEN]), numbers(labels[UNEVEN])
    means = np.array([x[y == c].mean(axis=0) for c in range(4)])
    expected = unit(features) @ (100 * text_of(backbone) + 10 / 4 * means).T
    assert np.allclose(model.logits(features), expected, atol=1e-3) and model.losses_ == []


def test_the_loss_falls_at_every_step(backbone: Backbone, features: Any, labels: Any) -> None:
    noisy = features + 1.5 * np.random.default_rng(3).normal(size=features.shape).astype(np.float32)
    model = LPPlusPlus(backbone, steps=60).fit(noisy, labels)
    assert model.losses_ == sorted(model.losses_, reverse=True) and model.losses_[-1] < 0.5 * model.losses_[0]


def test_a_class_without_an_image_and_the_order_of_images(backbone: Backbone, features: Any, labels: Any) -> None:
    names = [*SORTED, "violin"]
    model = LPPlusPlus(backbone, class_names=names, steps=20).fit(features, labels)
    x, y = unit(features), numbers(labels)
    weight, bias, _ = by_hand(x, y, text_of(backbone, names), backbone.logit_scale, 20, 0.0)
    assert np.allclose(model.logits(features), x @ weight.T + bias, atol=5e-3)
    order = np.random.default_rng(0).permutation(24)
    again = LPPlusPlus(backbone, class_names=names, steps=20).fit(features[order], labels[order])
    assert np.allclose(again.logits(features), model.logits(features), atol=5e-3)


def test_one_image_of_one_class(backbone: Backbone, features: Any, labels: Any) -> None:
    model = LPPlusPlus(backbone, class_names=NAMES).fit(features[:1], labels[:1])
    assert model.predict(features[:1]) == labels[:1]


def test_it_takes_no_new_classes(backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match="A fitted LPPlusPlus belongs to its classes"):
        LPPlusPlus(backbone).fit(features, labels).with_classes(["cat", "dog"])


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"steps": -1}, "The 'steps' parameter of LPPlusPlus must be an int >= 0. Got -1 instead."),
        ({"momentum": 1.0}, "must be a number >= 0 and < 1. Got 1.0"),
        ({"start": "here"}, "must be 'zero-shot' or 'paper'. Got 'here'"),
    ],
)
def test_wrong_parameters(parameters: dict, message: str, backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match=message):
        coopt.LPPlusPlus(backbone, **parameters).fit(features, labels)
