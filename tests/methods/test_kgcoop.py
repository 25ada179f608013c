"""What KgCoOp adds to CoOp."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.methods.coop import CoOp
from coopt.methods.kgcoop import KgCoOp
from coopt.prompts.context import random_context
from coopt.prompts.templates import template_features
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts
from tests.methods.conftest import NAMES, ONE_STEP

FEW = {"lr": 0.02, "epochs": 20}


def test_one_step_is_the_gradient_of_the_formula(backbone: Backbone, features: Any, labels: Any) -> None:
    names = sorted(NAMES)
    context = random_context(backbone, 2, None, seed=1).requires_grad_()
    encode = TextEncoder(backbone, context_prompts(backbone, names, 2), path="reference")
    guide = template_features(backbone, names, ["a {}, drawn.", "the {}."])
    text = normalize(encode(context), dim=-1)
    images = normalize(torch.from_numpy(features), dim=-1)
    targets = torch.tensor([names.index(label) for label in labels])
    distance = sum((text[i] - guide[i]).norm() ** 2 for i in range(4)) / 4
    loss = cross_entropy(100 * images @ text.T, targets) + 3.0 * distance
    loss.backward()
    assert context.grad is not None

    model = KgCoOp(
        backbone, guide_weight=3.0, templates=["a {}, drawn.", "the {}."], n_ctx=2, init=None, recipe=ONE_STEP
    ).fit(features, labels)
    assert model.losses_[0] == pytest.approx(loss.item(), rel=1e-5)
    assert torch.allclose(model.context_, (context - 0.1 * context.grad).detach(), rtol=1e-4, atol=1e-4)


def test_without_the_guide_it_is_coop(backbone: Backbone, features: Any, labels: Any) -> None:
    ours = KgCoOp(backbone, guide_weight=0.0, recipe=FEW).fit(features, labels)
    theirs = CoOp(backbone, init="a photo of a", recipe=FEW).fit(features, labels)
    assert ours.context_.shape == (4, backbone.text.width)
    assert torch.allclose(ours.context_, theirs.context_, atol=1e-5)


def test_the_guide_holds_prompts_near_and_for_new_classes_too(backbone: Backbone, features: Any, labels: Any) -> None:
    guide = template_features(backbone, ["violin", "cat"], ["a photo of a {}."])
    distances = []
    for weight in (0.0, 8.0, 1000.0):
        model = KgCoOp(backbone, guide_weight=weight, recipe=FEW).fit(features, labels).with_classes(["violin", "cat"])
        distances.append(float((model.text_features_ - guide).norm()))
        assert np.isfinite(model.logits(features)).all() and isinstance(model, KgCoOp)
    assert distances[0] > distances[1] > distances[2]


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf"), "8", True])
def test_wrong_weights_are_refused(value: Any, backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match="The 'guide_weight' parameter of KgCoOp must be a number >= 0. Got "):
        KgCoOp(backbone, guide_weight=value).fit(features, labels)
