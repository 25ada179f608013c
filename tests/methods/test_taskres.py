"""What only TaskRes does."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

import coopt
from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.methods.taskres import TaskRes
from tests.methods.conftest import ONE_STEP
from tests.methods.test_gda import numbers, text_of, unit


def test_a_step_is_the_gradient_of_the_formula(backbone: Backbone, features: Any, labels: Any) -> None:
    x, y, text = (torch.from_numpy(one) for one in (unit(features), numbers(labels), text_of(backbone)))
    residual = torch.zeros_like(text, requires_grad=True)
    loss = cross_entropy(backbone.logit_scale * x @ normalize(text + 0.7 * residual, dim=1).T, y)
    loss.backward()
    assert residual.grad is not None and residual.grad.abs().max() > 1e-2
    model = TaskRes(backbone, alpha=0.7, recipe=ONE_STEP).fit(features, labels)
    assert model.losses_[0] == pytest.approx(loss.item(), rel=1e-5)
    learned = -0.1 * residual.grad
    assert torch.allclose(model.learned_["residual"].double(), learned, atol=1e-5)
    expected = backbone.logit_scale * x @ normalize(text + 0.7 * learned, dim=1).T
    assert np.allclose(model.logits(features), expected.numpy(), atol=1e-3)


def test_with_alpha_1_it_is_a_bias_of_each_class(backbone: Backbone, features: Any, labels: Any) -> None:
    recipe = {"lr": 0.01, "epochs": 5, "views": 1}
    ours = TaskRes(backbone, alpha=1.0, recipe=recipe).fit(features, labels)
    theirs = coopt.TextBias(backbone, csc=True, recipe={**recipe, "warmup_lr": None}).fit(features, labels)
    assert torch.allclose(ours.learned_["residual"], theirs.learned_["bias"], atol=1e-6)


def test_alpha_zero_is_zero_shot(backbone: Backbone, features: Any, labels: Any) -> None:
    ours = TaskRes(backbone, alpha=0.0, recipe={"epochs": 2}).fit(features, labels)
    zero_shot = coopt.ZeroShot(backbone).fit(features, labels)
    assert np.allclose(ours.logits(features), zero_shot.logits(features), atol=1e-4)


def test_it_takes_no_new_classes(backbone: Backbone, features: Any, labels: Any) -> None:
    model = TaskRes(backbone, recipe={"epochs": 1}).fit(features, labels)
    with pytest.raises(ParameterError, match="A fitted TaskRes belongs to its classes"):
        model.with_classes(["cat", "dog"])
