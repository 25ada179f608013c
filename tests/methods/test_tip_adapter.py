"""What only Tip-Adapter does."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch.nn.functional import cross_entropy, normalize, one_hot

import coopt
from coopt.backbones import Backbone
from coopt.errors import DataError, ParameterError, SavedFileError
from coopt.methods.tip_adapter import ALPHAS, BETAS, TipAdapter
from coopt.prompts.templates import template_features
from tests.methods.conftest import NAMES, ONE_STEP


def by_hand(
    backbone: Any, x: Any, keys: Any, y: Any, alpha: float, beta: float, template: str = "a photo of a {}."
) -> Any:
    """Logits as the paper's equations say; `keys` normalised."""
    text = template_features(backbone, sorted(NAMES), [template])
    f = normalize(torch.as_tensor(x), dim=-1)
    votes = torch.exp(-beta * (1 - f @ keys.T)) @ one_hot(y, 4).float()
    return backbone.logit_scale * f @ text.T + alpha * votes


def indices(labels: Any) -> torch.Tensor:
    return torch.tensor([sorted(NAMES).index(label) for label in labels])


def test_logits_are_those_of_the_formula(backbone: Any, features: Any, labels: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("coopt.inference.heads.ROWS_TOGETHER", 7)
    model = TipAdapter(backbone, alpha=3.0, beta=2.0, templates="the {}.").fit(features[:10], labels[:10])
    keys = normalize(torch.from_numpy(features[:10]), dim=-1)
    expected = by_hand(backbone, features, keys, indices(labels[:10]), 3.0, 2.0, "the {}.")
    assert np.allclose(model.logits(features), expected.numpy(), atol=1e-3)


def test_without_fine_tuning_nothing_is_learned_by_steps(backbone: Backbone, features: Any, labels: Any) -> None:
    model = TipAdapter(backbone, finetune=True, recipe=ONE_STEP).fit(features, labels)
    assert len(model.losses_) == 1 and model.stopped_ == "all epochs of the recipe were done"
    model.set_params(finetune=False).fit(features, labels)
    assert (model.losses_, model.text_passes_, model.agreements_) == ([], 0, [])
    assert model.stopped_ == "keys are kept, not learned"


def test_without_votes_it_is_zero_shot(backbone: Backbone, features: Any, labels: Any) -> None:
    ours = TipAdapter(backbone, alpha=0.0).fit(features, labels).logits(features)
    assert np.allclose(ours, coopt.ZeroShot(backbone).fit(features, labels).logits(features), atol=1e-4)


def test_the_order_of_images_does_not_matter(backbone: Backbone, features: Any, labels: Any) -> None:
    order = np.random.default_rng(0).permutation(24)
    a = TipAdapter(backbone).fit(features, labels).logits(features)
    assert np.allclose(TipAdapter(backbone).fit(features[order], labels[order]).logits(features), a, atol=1e-4)


def test_fine_tuning_is_the_gradient_of_the_formula(backbone: Backbone, features: Any, labels: Any) -> None:
    keys = normalize(torch.from_numpy(features), dim=-1).requires_grad_()
    loss = cross_entropy(by_hand(backbone, features, keys, indices(labels), 2.0, 5.5), indices(labels))
    loss.backward()
    assert keys.grad is not None and keys.grad.abs().max() > 1e-3
    model = TipAdapter(backbone, alpha=2.0, finetune=True, recipe=ONE_STEP).fit(features, labels)
    assert model.losses_[0] == pytest.approx(loss.item(), rel=1e-5)
    assert torch.allclose(model.keys_, (keys - 0.1 * keys.grad).detach(), atol=1e-5)


def test_validation_chooses_alpha_and_beta(backbone: Backbone, features: Any, labels: Any) -> None:
    noisy = features + np.random.default_rng(5).normal(size=features.shape).astype(np.float32)
    train, val = slice(0, 12), slice(12, 24)
    model = TipAdapter(backbone).fit(noisy[train], labels[train], noisy[val], labels[val])
    keys, y = normalize(torch.from_numpy(noisy[train]), dim=-1), indices(labels[train])
    zero_shot = by_hand(backbone, noisy[val], keys, y, 0.0, 1.0)
    f = normalize(torch.from_numpy(noisy[val]), dim=-1)

    def hits(alpha: float, beta: float) -> int:
        logits = zero_shot + alpha * torch.exp(-beta * (1 - f @ keys.T)) @ one_hot(y, 4).float()
        return int((logits.argmax(dim=1) == indices(labels[val])).sum())

    best = max(hits(alpha, beta) for alpha in (1.0, *ALPHAS) for beta in (5.5, *BETAS))
    assert hits(model.alpha_, model.beta_) == best > hits(1.0, 5.5)
    assert (model.alpha, model.beta) == (1.0, 5.5)
    by_number = TipAdapter(backbone, class_names=sorted(NAMES)).fit(
        noisy[train], indices(labels[train]), noisy[val], indices(labels[val])
    )
    assert (by_number.alpha_, by_number.beta_) == (model.alpha_, model.beta_)
    with pytest.raises(DataError, match="Got 3 labels for 12 images"):
        model.fit(noisy[train], labels[train], noisy[val], labels[:3])


def test_of_equals_the_given_values_stay(backbone: Backbone, features: Any, labels: Any) -> None:
    easy = TipAdapter(backbone, alpha=40.0, beta=1.3).fit(features, labels, features, labels)
    assert easy.score(features, labels) == 1 and (easy.alpha_, easy.beta_) == (40.0, 1.3)
    alone = TipAdapter(backbone).fit(features, labels)
    assert (alone.alpha_, alone.beta_) == (1.0, 5.5)


def test_paper_keys_are_means_of_augmented_views(backbone: Backbone, pictures: Any) -> None:
    paths, labels = pictures
    plain = TipAdapter(backbone).fit(paths, labels)
    mixed = TipAdapter(backbone, recipe="paper").fit(paths, labels)
    assert torch.allclose(mixed.keys_.norm(dim=1), torch.ones(12), atol=1e-5)
    assert not torch.allclose(mixed.keys_, plain.keys_, atol=1e-3)
    assert torch.equal(TipAdapter(backbone, recipe="paper").fit(paths, labels).keys_, mixed.keys_)


def test_a_class_without_an_image_is_allowed(backbone: Backbone, features: Any, labels: Any) -> None:
    model = TipAdapter(backbone, class_names=[*NAMES, "violin"]).fit(features, labels)
    zero_shot = coopt.ZeroShot(backbone, class_names=[*NAMES, "violin"]).fit(features, labels)
    assert np.allclose(model.logits(features)[:, 4], zero_shot.logits(features)[:, 4], atol=1e-4)


def test_it_takes_no_new_classes(backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match="A fitted TipAdapter belongs to its classes"):
        TipAdapter(backbone).fit(features, labels).with_classes(["cat", "dog"])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"keys": torch.zeros(24, 47)}, r"'keys' has shape \(24, 47\); expected \(any, 48\)"),
        ({"labels": torch.full((24,), 4)}, "class indices below 4"),
        ({"labels": torch.zeros(24)}, "torch.float32"),
        ({"beta": torch.zeros(2)}, r"'beta' has shape \(2,\); expected \(\)"),
    ],
)
def test_state_that_does_not_fit_is_refused(
    change: dict, message: str, backbone: Backbone, features: Any, labels: Any, tmp_path: Path
) -> None:
    model = TipAdapter(backbone).fit(features, labels)
    state = load_file(model.save(tmp_path) / "prompt.safetensors")
    model._check_state(state)
    with pytest.raises(SavedFileError, match=message):
        model._check_state({**state, **change})


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"alpha": -1}, "The 'alpha' parameter of TipAdapter must be a number >= 0. Got -1 instead."),
        ({"beta": None}, "The 'beta' parameter of TipAdapter must be a number >= 0. Got None"),
        ({"finetune": "yes"}, "must be True or False. Got 'yes'"),
    ],
)
def test_wrong_parameters(parameters: dict, message: str, backbone: Backbone, features: Any, labels: Any) -> None:
    with pytest.raises(ParameterError, match=message):
        TipAdapter(backbone, **parameters).fit(features, labels)
