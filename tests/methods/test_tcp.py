"""What only TCP does, and DeKg, which it may be."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from coopt.backbones import Backbone
from coopt.errors import ParameterError, UnsupportedBackboneError
from coopt.methods.tcp import TCP, dependence
from coopt.prompts.templates import template_features
from coopt.runtime import Runtime
from coopt.testing import small_backbone
from coopt.text.fast import Learned
from coopt.text.layout import context_prompts
from coopt.text.reference import encode_reference
from tests.backbones.small_models import scramble
from tests.methods.conftest import NAMES, ONE_STEP

TEMPLATES = ["a {}, drawn.", "the {}."]
STEP = {**ONE_STEP, "batch_size": 64}
NETWORK = ("linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias")


def objective(
    model: TCP, learned: dict[str, torch.Tensor], images: torch.Tensor, targets: np.ndarray
) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss and the text features, one class after the other, each through the tower's own forward."""
    backbone, names = model.backbone_, model.class_names_
    context = learned["context"]
    known = template_features(backbone, names, TEMPLATES)
    w1, b1, w2, b2 = (learned[f"network.{name}"] for name in NETWORK)
    prompts = context_prompts(backbone, names, len(context))
    rows = []
    for c in range(len(names)):
        hidden = w1 @ known[c] + b1
        tokens = (w2 @ (hidden / (1 + (-1.702 * hidden).exp())) + b2).reshape(len(context), -1)
        one = prompts[torch.tensor([c])]
        inputs = {0: Learned(context, False), model._block: Learned(tokens[None], True)}
        rows.append(encode_reference(backbone.text, one, inputs, {})[0])
    text = normalize(torch.stack(rows).reshape(len(names), -1), dim=-1)
    log_shares = (backbone.logit_scale * images @ text.T).log_softmax(dim=1)
    weights = np.bincount(targets, minlength=4)[targets] ** -0.5
    weights = torch.from_numpy(weights / weights.mean()).float()
    loss = -(weights * log_shares[torch.arange(len(targets)), torch.from_numpy(targets)]).mean()
    cosines = [(text[c] @ known[c]) / (text[c].norm() * known[c].norm()) for c in range(len(names))]
    loss = loss + model.guide_weight * (1 - sum(cosines) / len(names))
    if model.divergence:
        w, v = text / text.square().sum().sqrt(), known / known.square().sum().sqrt()
        centring = torch.eye(len(names)) - torch.ones(len(names), len(names)) / len(names)
        loss = loss + model.divergence * torch.trace(centring @ w @ w.T @ centring @ v @ v.T)
    return loss, text


@pytest.mark.parametrize("divergence", [0.0, 50.0])
def test_one_step_is_the_gradient_of_the_formula(divergence: float, backbone: Backbone, uneven: Any) -> None:
    features, labels = uneven
    parameters = dict(n_ctx=3, guide_weight=3.0, divergence=divergence, templates=TEMPLATES, class_names=sorted(NAMES))
    model = TCP(backbone, recipe=STEP, **parameters).fit(features, labels)
    targets = np.array([sorted(NAMES).index(label) for label in labels])
    start = {name: tensor.requires_grad_() for name, tensor in model.initial().items()}
    loss, _ = objective(model, start, normalize(torch.from_numpy(features), dim=-1), targets)
    loss.backward()
    assert model.losses_[0] == pytest.approx(loss.item(), rel=1e-5)
    for name, tensor in start.items():
        assert tensor.grad is not None and tensor.grad.abs().max() > 1e-5
        step = (tensor.detach() - model.learned_[name]) / 0.1
        atol = 1e-3 * float(tensor.grad.abs().max())
        torch.testing.assert_close(step, tensor.grad, rtol=1e-3, atol=atol + 1e-6)
    learned = {name: tensor.detach() for name, tensor in model.learned_.items()}
    _, text = objective(model, learned, normalize(torch.from_numpy(features), dim=-1), targets)
    torch.testing.assert_close(model.text_features_, text, rtol=1e-4, atol=1e-5)


def test_divergence_is_the_trace_of_the_paper() -> None:
    generator = torch.Generator().manual_seed(3)
    w, t = (torch.randn(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    w, t = w.requires_grad_(), t.requires_grad_()
    assert torch.autograd.gradcheck(lambda a: dependence(a, t.detach()), (w,))
    kernels = [(one / torch.linalg.matrix_norm(one)) for one in (w, t)]
    h = torch.eye(5, dtype=torch.float64) - 0.2
    expected = torch.trace(h @ kernels[0] @ kernels[0].T @ h @ kernels[1] @ kernels[1].T)
    torch.testing.assert_close(dependence(w, t), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        dependence(w, torch.ones_like(t)), torch.zeros((), dtype=torch.float64), atol=1e-20, rtol=0
    )


def test_new_classes_get_tokens_of_their_own(backbone: Backbone, features: Any, labels: Any) -> None:
    """What is learned belongs to no class: a class that is known has the same feature among others."""
    recipe = {"lr": 0.02, "epochs": 5}
    model = TCP(backbone, n_ctx=2, recipe=recipe).fit(features, labels)
    other = model.with_classes(["violin", "cat", "axolotl"])
    cat = model.class_names_.index("cat")
    torch.testing.assert_close(other.text_features_[1], model.text_features_[cat], rtol=1e-4, atol=1e-5)
    assert (other.text_features_[0] - other.text_features_[2]).norm() > 1e-2
    assert other.learned_.keys() == {"context", *(f"network.{name}" for name in NETWORK)}
    assert all(torch.equal(tensor, model.learned_[name]) for name, tensor in other.learned_.items())


def test_both_paths_learn_the_same(backbone: Backbone, features: Any, labels: Any) -> None:
    recipe = {"lr": 0.01, "epochs": 5}
    fast, slow = (
        TCP(backbone, divergence=5.0, recipe=recipe, runtime=Runtime(text_path=path)).fit(features, labels)  # type: ignore[arg-type]
        for path in ("fast", "reference")
    )
    np.testing.assert_allclose(fast.losses_, slow.losses_, rtol=1e-4)
    assert fast.losses_[-1] < fast.losses_[0] and fast.context_.shape == (4, backbone.text.width)
    assert fast.network_["linear2.weight"].shape == (4 * backbone.text.width, backbone.embed_dim // 4)


@pytest.mark.parametrize(("depth", "block"), [(12, 8), (3, 2), (2, 1), (24, 16), (6, 4)])
def test_the_tokens_stand_two_thirds_up(depth: int, block: int) -> None:
    model = TCP()
    model.backbone_ = SimpleNamespace(text=SimpleNamespace(depth=depth))  # type: ignore[assignment]
    assert model.sites()[1].block == block


def test_towers_without_such_a_block_are_refused(features: Any, labels: Any) -> None:
    backbone = small_backbone()
    table = features[:, : backbone.embed_dim]
    with pytest.raises(
        ParameterError, match="'block' parameter of TCP must be at most 1 for small:0, .* Got 2 instead"
    ):
        TCP(backbone, block=2, recipe={"epochs": 1}).fit(table, labels)
    shallow = shallow_backbone()
    with pytest.raises(UnsupportedBackboneError, match="a single block, so there is none inside it"):
        TCP(shallow, recipe={"epochs": 1}).fit(table, labels)


def shallow_backbone() -> Backbone:
    import open_clip

    from coopt.backbones import Preprocessing
    from coopt.backbones.clip_model import ClipBackbone
    from coopt.backbones.tokenizers import ClipTokenizer

    vision: Any = {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16}
    text: Any = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    model = open_clip.CLIP(32, vision, text)
    scramble(model)
    return ClipBackbone(model, "shallow", ClipTokenizer(), Preprocessing(size=(32, 32)))


def test_without_either_pull_it_is_cross_entropy_alone(backbone: Backbone, features: Any, labels: Any) -> None:
    guided = TCP(backbone, recipe={"lr": 0.01, "epochs": 20}, guide_weight=100.0).fit(features, labels)
    free = TCP(backbone, recipe={"lr": 0.01, "epochs": 20}, guide_weight=0.0).fit(features, labels)
    near = [(one.text_features_ * one.template_features_).sum(dim=1).mean() for one in (guided, free)]
    assert near[0] > near[1] and free.losses_[-1] < guided.losses_[-1]
    assert TCP(divergence=1.0).full_title == "learned prompt (DeKg)" and TCP().full_title == "learned prompt (TCP)"
