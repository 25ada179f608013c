"""The mean over epochs, against the formula."""

from __future__ import annotations

import math

import pytest
import torch

from coopt.training.average import EpochAverage
from coopt.training.recipe import Recipe


@pytest.mark.parametrize(("mean", "std", "epochs"), [(15.0, 1.0, 20), (15.0, 1.0, 3), (1.0, 0.01, 6), (2.5, 40.0, 4)])
def test_epochs_weigh_as_a_normal_distribution_says(mean: float, std: float, epochs: int) -> None:
    generator = torch.Generator().manual_seed(1)
    ends = [torch.randn(3, generator=generator) for _ in range(epochs)]
    average = EpochAverage(Recipe(average_mean=mean, average_std=std))
    for epoch, end in enumerate(ends, 1):
        average.add(epoch, {"x": end})
    heights = torch.tensor([-((e - mean) ** 2) / (2 * std**2) for e in range(1, epochs + 1)], dtype=torch.float64)
    expected = (heights.softmax(dim=0)[:, None] * torch.stack(ends).double()).sum(dim=0)
    found = {"x": torch.zeros(3)}
    average.put_into(found)
    torch.testing.assert_close(found["x"].double(), expected, rtol=1e-5, atol=1e-6)


def test_without_a_mean_the_last_epoch_counts() -> None:
    average, found = EpochAverage(Recipe()), {"x": torch.ones(2)}
    average.add(1, {"x": torch.zeros(2)})
    average.put_into(found)
    assert found["x"].tolist() == [1, 1] and average.captured() == {}


def test_it_goes_on_from_a_checkpoint() -> None:
    recipe = Recipe(average_mean=2.0)
    whole, first, second = (EpochAverage(recipe) for _ in range(3))
    ends = [{"x": torch.tensor([math.sin(e)])} for e in range(4)]
    for epoch, end in enumerate(ends, 1):
        whole.add(epoch, end)
    for epoch in (1, 2):
        first.add(epoch, ends[epoch - 1])
    second.take({**first.captured(), "x": torch.zeros(1), "x/exp_avg": torch.zeros(1)}, ends[0])
    for epoch in (3, 4):
        second.add(epoch, ends[epoch - 1])
    assert torch.equal(second.captured()["/average/x"], whole.captured()["/average/x"])
