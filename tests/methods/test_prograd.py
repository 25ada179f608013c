"""What ProGrad adds to CoOp."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.methods.combined import combined
from coopt.methods.coop import CoOp
from coopt.methods.prograd import ProGrad, aligned
from coopt.prompts.context import word_context
from coopt.prompts.templates import template_features
from coopt.runtime import Runtime
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts
from tests.methods.conftest import NAMES, ONE_STEP

TEMPLATES = ["a {}, drawn.", "the {}."]
WORDS = "the drawn"
STEP = {**ONE_STEP, "batch_size": 64}


def text_of(backbone: Backbone, context: torch.Tensor) -> torch.Tensor:
    prompts = context_prompts(backbone, sorted(NAMES), len(context))
    return normalize(TextEncoder(backbone, prompts, path="reference")(context), dim=-1)


def gradients(
    backbone: Backbone, features: Any, targets: Any, start: torch.Tensor
) -> tuple[float, np.ndarray, np.ndarray]:
    """The cross-entropy and both gradients, by the reference path and sums over images and classes as the paper writes them."""
    names = sorted(NAMES)
    context = start.clone().requires_grad_()
    text = normalize(
        TextEncoder(backbone, context_prompts(backbone, names, len(context)), path="reference")(context), dim=-1
    )
    images = normalize(torch.from_numpy(features), dim=-1)
    known = (backbone.logit_scale * images @ template_features(backbone, names, TEMPLATES).T).softmax(dim=1)
    shares = (backbone.logit_scale * images @ text.T).softmax(dim=1)
    counts = np.bincount(targets, minlength=4)
    weights = counts[targets] ** -0.5
    weights = torch.from_numpy(weights / weights.mean()).float()
    special = sum(-w * shares[i, y].log() for i, (w, y) in enumerate(zip(weights, targets, strict=True))) / len(targets)
    general = -sum((known[i] * (shares[i] / known[i]).log()).sum() for i in range(len(targets))) / len(targets)
    (d,) = torch.autograd.grad(special, context, retain_graph=True)
    (g,) = torch.autograd.grad(general, context)
    return float(special.detach()), d.double().numpy(), g.double().numpy()


@pytest.mark.parametrize("share", [1.0, 0.3])
@pytest.mark.parametrize("contradict", [True, False])
def test_one_step_is_that_of_the_formula(contradict: bool, share: float, backbone: Backbone, uneven: Any) -> None:
    features, labels = uneven
    names = sorted(NAMES)
    numbers = np.array([names.index(label) for label in labels])
    start = word_context(backbone, WORDS)
    # What a prompt says by itself, where that is not what hand-made ones say, contradicts them.
    scores = normalize(torch.from_numpy(features), dim=-1) @ text_of(backbone, start).T
    targets = scores.argmax(dim=1).numpy() if contradict else numbers
    loss, d, g = gradients(backbone, features, targets, start)
    assert ((d * g).sum() < 0) == contradict
    expected = d - share * (d * g).sum() / (g * g).sum() * g if contradict else d
    if contradict and share == 1:
        assert abs((expected * g).sum()) < 1e-9 * (g * g).sum() and abs(expected - d).max() > 1e-3 * abs(d).max()
    model = ProGrad(backbone, alignment=share, templates=TEMPLATES, init=WORDS, recipe=STEP, class_names=names).fit(
        features, np.array(names)[targets]
    )
    assert model.losses_[0] == pytest.approx(loss, rel=1e-5)
    step = (start - model.context_).double().numpy() / 0.1
    np.testing.assert_allclose(step, expected, rtol=1e-3, atol=1e-4 * abs(expected).max())
    assert model.text_passes_ == pytest.approx(5 / 3)


def test_without_alignment_it_is_coop(backbone: Backbone, features: Any, labels: Any) -> None:
    recipe = {"lr": 0.02, "epochs": 20, "lbfgs": None}
    ours = ProGrad(backbone, alignment=0.0, recipe=recipe).fit(features, labels)
    theirs = CoOp(backbone, recipe=recipe).fit(features, labels)
    np.testing.assert_allclose(ours.losses_, theirs.losses_, rtol=1e-5)
    assert torch.allclose(ours.context_, theirs.context_, atol=1e-5)


def test_gradients_that_agree_or_vanish_are_left_alone() -> None:
    d = torch.tensor([1.0, 2.0, -3.0])
    for g in (
        torch.tensor([1.0, 1.0, 1.0]),
        torch.zeros(3),
    ):  # orthogonal, and none: a learned prompt that is the hand-made
        assert torch.equal(aligned(d, g, 1.0), d)
    assert torch.allclose(aligned(d, torch.tensor([0.0, 0.0, 2.0]), 1.0), torch.tensor([1.0, 2.0, 0.0]))
    assert torch.allclose(aligned(d, torch.tensor([0.0, 0.0, 2.0]), 0.5), torch.tensor([1.0, 2.0, -1.5]))


def test_gradients_are_combined_over_all_tensors() -> None:
    a, b = torch.tensor([[1.0, 2.0]], requires_grad=True), torch.tensor(3.0, requires_grad=True)
    losses = [(a * a).sum() + b, (a.sum() * b) ** 2 / 2, 5 * b]  # the last does not depend on a
    value = combined(losses, {"a": a, "b": b}, lambda x, y, z: x + 10 * y + 100 * z)
    (2 * value).backward()
    assert value.item() == 8.0 and a.grad is not None and b.grad is not None
    assert a.grad.tolist() == [[2 * (2 + 10 * 27), 2 * (4 + 10 * 27)]]
    assert b.grad.item() == 2 * (1 + 10 * 27 + 100 * 5)


@pytest.mark.parametrize("csc", [False, True])
def test_in_chunks_the_same_is_learned(csc: bool, backbone: Backbone, features: Any, labels: Any) -> None:
    recipe = {"lr": 0.02, "epochs": 4}
    whole = ProGrad(backbone, csc=csc, recipe=recipe).fit(features, labels)
    encode = whole._encoder(4, whole.recipe_.batch_size)
    memory = encode.least_memory
    assert memory < whole.step_bytes(backbone, whole.class_names_)
    cut = ProGrad(backbone, csc=csc, recipe=recipe, runtime=Runtime(memory=memory)).fit(features, labels)
    np.testing.assert_allclose(cut.losses_, whole.losses_, rtol=1e-5)


def test_l_bfgs_is_refused(backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(
        ParameterError, match=r"must have no 'lbfgs': .* no single loss.* Got 3.0 instead; leave it out"
    ):
        ProGrad(backbone, recipe={"lbfgs": 3.0}).fit(features, labels)
    assert {recipe.lbfgs for recipe in ProGrad.recipes.values()} == {None}
