"""What only the text transformation does."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy, normalize

import coopt
from coopt.backbones import Backbone
from coopt.methods.text_transformation import TextTransformation
from coopt.prompts.templates import template_features
from tests.methods.conftest import NAMES, ONE_STEP


def test_it_begins_at_zero_shot(backbone: Backbone, features: Any, labels: Any) -> None:
    model = TextTransformation(backbone, recipe={"epochs": 1, "warmup_lr": 0.0}).fit(features, labels)
    assert torch.equal(model.learned_["matrix"], torch.eye(48))
    theirs = coopt.ZeroShot(backbone).fit(features, labels)
    assert np.allclose(model.logits(features), theirs.logits(features), atol=1e-4)


def test_one_step_is_the_gradient_of_the_formula(backbone: Backbone, features: Any, labels: Any) -> None:
    text = template_features(backbone, sorted(NAMES), ["a photo of a {}."])
    images = normalize(torch.from_numpy(features), dim=-1)
    targets = torch.tensor([sorted(NAMES).index(label) for label in labels])
    matrix = torch.eye(48, requires_grad=True)
    cross_entropy(100 * images @ normalize(text @ matrix, dim=-1).T, targets).backward()
    assert matrix.grad is not None and matrix.grad.abs().max() > 0.1

    model = TextTransformation(backbone, recipe=ONE_STEP).fit(features, labels)
    moved = torch.eye(48) - 0.1 * matrix.grad
    assert torch.allclose(model.learned_["matrix"], moved, atol=1e-5)
    expected = 100 * images @ normalize(text @ moved, dim=-1).T
    assert np.allclose(model.logits(features), expected.numpy(), atol=1e-3)


def test_new_classes_for_an_old_layer(backbone: Backbone, features: Any, labels: Any) -> None:
    model = TextTransformation(backbone).fit(features, labels)
    other = model.with_classes(["violin", "cat"])
    cat = model.class_names_.index("cat")
    assert np.allclose(other.logits(features)[:, 1], model.logits(features)[:, cat], atol=1e-4)
    assert model.class_names_ == tuple(sorted(NAMES))
