"""Which images are held out, for methods that choose numbers on them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import coopt
from coopt.backbones import Backbone
from coopt.errors import DataError
from coopt.methods.feature_adapter import FOLDS, held_out
from tests.methods.conftest import NAMES


def problem(*counts: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Random features of so many images of each class, in random order."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    targets = targets[torch.randperm(len(targets), generator=generator)]
    return torch.randn(len(targets), 7, generator=generator, dtype=torch.float64), targets


@pytest.mark.parametrize("counts", [(4, 4, 4), (1, 2, 3, 5, 16, 23), (2, 2), (0, 1, 9), (40, 1)])
def test_every_image_but_single_ones_is_held_out_once_and_every_class_stays(counts: tuple[int, ...]) -> None:
    x, targets = problem(*counts)
    parts = held_out(x, targets, seed=1)
    assert len(parts) == min(FOLDS, max(counts))
    out = torch.stack(parts).sum(dim=0)
    assert out.tolist() == [int(counts[target] > 1) for target in targets.tolist()]
    for part in parts:
        assert set(targets[~part].tolist()) == {i for i, n in enumerate(counts) if n > 0}
    each = torch.stack([torch.bincount(targets[part], minlength=len(counts)) for part in parts])
    assert int((each.amax(dim=0) - each.amin(dim=0)).max()) <= 1  # as even as can be


def test_nothing_is_held_out_of_single_images() -> None:
    assert held_out(*problem(1, 1, 0, 1), seed=1) == []


def test_the_order_of_images_and_classes_does_not_matter_and_the_seed_does() -> None:
    x, targets = problem(6, 5, 9, 1)
    parts = torch.stack(held_out(x, targets, seed=1))
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(3))
    renamed = torch.tensor([2, 3, 0, 1])[targets]
    assert torch.equal(torch.stack(held_out(x[order], renamed[order], seed=1)), parts[:, order])
    assert torch.equal(torch.stack(held_out(x, targets, seed=1)), parts)
    assert not torch.equal(torch.stack(held_out(x, targets, seed=2)), parts)


@pytest.mark.parametrize("cls", [coopt.GDA, coopt.ProKeR])
def test_validation_images_come_before_training_images(
    cls: Any, backbone: Backbone, features: Any, labels: Any
) -> None:
    train, val = slice(0, 12), slice(12, 24)
    model = cls(backbone).fit(features[train], labels[train], features[val], labels[val])
    assert model.chosen_ == "by accuracy on 12 validation images"
    by_number = cls(backbone, class_names=sorted(NAMES)).fit(
        features[train],
        np.array([sorted(NAMES).index(label) for label in labels[train]]),
        features[val],
        np.array([sorted(NAMES).index(label) for label in labels[val]]),
    )
    assert np.allclose(by_number.logits(features), model.logits(features), atol=1e-4)
    with pytest.raises(DataError, match="Got 3 labels for 12 images"):
        model.fit(features[train], labels[train], features[val], labels[:3])
    model.fit(features[train], labels[train])
    assert model.chosen_ == "by accuracy on training images held out, in 3 parts"


@pytest.mark.parametrize("cls", [coopt.GDA, coopt.ProKeR, coopt.LPPlusPlus])
def test_scores_have_no_sigmoid(cls: Any, backbone: Backbone, features: Any, labels: Any) -> None:
    assert cls(backbone).fit(features, labels).links == ("softmax",)
