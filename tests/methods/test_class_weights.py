"""What images of uneven classes count."""

from __future__ import annotations

import math

import pytest
import torch

import coopt
from coopt.backbones import Backbone
from coopt.methods.forward import Batch, Forward
from coopt.methods.learning import class_weights
from coopt.runtime import Runtime
from tests.methods.conftest import NAMES

SEEDS = range(5)


def uneven(seed: int, classes: int = 6) -> torch.Tensor:
    """Between no and eleven images of each class, and of one surely some."""
    generator = torch.Generator().manual_seed(seed)
    counts = torch.randint(0, 12, (classes,), generator=generator)
    counts[0], counts[1] = 3, 9
    targets = torch.arange(classes).repeat_interleave(counts)
    return targets[torch.randperm(len(targets), generator=generator)]


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_even_classes_have_none(balance: float) -> None:
    assert class_weights(torch.arange(12) % 4, 4, balance) is None


@pytest.mark.parametrize("seed", SEEDS)
def test_images_count_1_on_the_mean(seed: int) -> None:
    targets = uneven(seed)
    assert class_weights(targets, 6, 0.0) is None
    for balance in (0.25, 0.5, 1.0):
        weights = class_weights(targets, 6, balance)
        assert weights is not None and float(weights[targets].mean()) == pytest.approx(1, rel=1e-6)
        counts = torch.bincount(targets, minlength=6)
        assert float(weights[1] / weights[0]) == pytest.approx((9 / 3) ** -balance, rel=1e-6)
        if balance == 1:
            sums = torch.zeros(6).index_add(0, targets, weights[targets])[counts > 0]
            torch.testing.assert_close(sums, sums[:1].expand_as(sums))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_batch_is_a_plain_mean_of_weighed_images_and_parts_add_up(seed: int) -> None:
    targets = uneven(seed)
    scores = 5 * torch.randn(len(targets), 6, generator=torch.Generator().manual_seed(seed))
    weights = class_weights(targets, 6, 0.5)
    assert weights is not None
    total = 0.0
    for row, target in zip(scores.tolist(), targets.tolist(), strict=True):
        largest = max(row)
        log_sum = largest + math.log(sum(math.exp(score - largest) for score in row))
        total += float(weights[target]) * (log_sum - row[target])
    images = torch.zeros(len(targets), 1)
    for given, expected in (
        (weights, total / len(targets)),
        (None, float(torch.nn.functional.cross_entropy(scores, targets))),
    ):
        batch = Batch(images, targets, given)
        assert float(batch.cross_entropy(scores)) == pytest.approx(expected, rel=1e-5)
        cuts = [slice(0, 2), slice(2, 3), slice(3, len(targets))]
        parts = sum(float(batch.cross_entropy(scores[where], where)) for where in cuts)
        assert parts == pytest.approx(expected, rel=1e-5)


def test_cocoop_weighs_images_one_by_one(backbone: Backbone, features, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many images go through the text tower together."""
    model = coopt.CoCoOp(backbone, n_ctx=2, runtime=Runtime(cache=False))
    model.check_parameters()
    model._set_classes(backbone, NAMES, named=True)
    model._class_weights = torch.tensor([0.5, 2.0, 1.0, 0.9])
    learned = {name: one.requires_grad_() for name, one in model.initial().items()}
    images, targets = torch.from_numpy(features[:7]), torch.tensor([0, 0, 1, 2, 0, 1, 3])
    shared = model._shared(learned, 7)
    one_by_one = 0.0
    for i in range(7):
        batch = Batch(images[i : i + 1], targets[i : i + 1], None)
        one = float(model.loss(Forward(shared, learned, batch), batch).detach())
        one_by_one += float(model._class_weights[targets[i]]) * one / 7
    for together in (1, 3, 7):
        monkeypatch.setattr(Forward, "groups_at_once", property(lambda self, together=together: together))
        loss = model._objective(learned).loss_of(images, targets)
        assert float(loss.detach()) == pytest.approx(one_by_one, rel=1e-5)


def test_fitting_weighs_what_the_recipe_says_and_no_later_fit_is_weighed(backbone: Backbone, features, labels) -> None:
    few = [i for i, label in enumerate(labels) if label != "cat" or i < 8]
    recipe = {"optimizer": "sgd", "lr": 1.0, "weight_decay": 0.0, "epochs": 1, "batch_size": 64, "momentum": 0.0}

    def fitted(balance: float, which) -> coopt.CoOp:
        model = coopt.CoOp(backbone, recipe={**recipe, "balance": balance}, runtime=Runtime(cache=False))
        return model.fit(features[which], labels[which])

    assert (fitted(0.0, few).context_ - fitted(0.5, few).context_).abs().max() > 1e-6
    everyone = list(range(24))
    assert torch.equal(fitted(0.0, everyone).context_, fitted(0.5, everyone).context_)
    again = fitted(0.5, few).fit(features, labels)
    assert torch.equal(again.context_, fitted(0.5, everyone).context_) and again._class_weights is None
