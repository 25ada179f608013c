"""Losses over groups, chunk by chunk, against the same loss in one piece."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coopt.backbones import Backbone
from coopt.text.encode import KEPT_PLANS, TextEncoder
from coopt.text.grouped import sum_over_groups
from coopt.text.layout import context_prompts
from tests.text.test_fast import NAMES, context_for, relative


@pytest.mark.parametrize("at_once", [1, 2, 5, 7])
def test_value_and_gradient_are_those_of_one_piece(backbone: Backbone, at_once: int) -> None:
    encode = TextEncoder(backbone, context_prompts(backbone, NAMES, 3))
    weight = torch.randn(5, len(NAMES), backbone.embed_dim, generator=torch.Generator().manual_seed(5))
    held: list[int] = []

    def loss_of(contexts: Tensor, where: slice) -> Tensor:
        held.append(len(contexts))
        return (encode(contexts) * weight[where]).sum() ** 2 / 100

    def whole(contexts: Tensor) -> Tensor:
        parts = [encode(contexts[i : i + at_once]) * weight[i : i + at_once] for i in range(0, 5, at_once)]
        return torch.stack([part.sum() ** 2 / 100 for part in parts]).sum()

    ours, theirs = (context_for(backbone, 5, 3).requires_grad_() for _ in range(2))
    total = sum_over_groups(loss_of, 2 * ours, at_once)
    (total / 7).backward()
    expected = whole(2 * theirs)
    (expected / 7).backward()
    assert torch.allclose(total, expected, rtol=1e-5)
    assert ours.grad is not None and theirs.grad is not None and relative(ours.grad, theirs.grad) < 1e-5
    assert max(held) == min(at_once, 5) and sum(held) == 5


def test_as_many_groups_as_the_memory_holds(backbone: Backbone) -> None:
    prompts = context_prompts(backbone, NAMES, 3)
    whole = TextEncoder(backbone, prompts)
    one = whole.estimate().total
    for memory, expected in ((whole.least_memory, 1), (one, 1), (3 * one, 3), (4 * one - 1, 3)):
        encode = TextEncoder(backbone, prompts, memory=memory)
        assert encode.groups_at_once == expected
        assert encode.estimate(expected).total <= memory
        assert memory < one or encode.estimate(expected).chunks == 1
    assert TextEncoder(backbone, prompts, path="reference").groups_at_once == 1


def test_plans_of_two_sizes_are_kept(backbone: Backbone) -> None:
    """Chunks of one size and a last one of another, again and again."""
    encode = TextEncoder(backbone, context_prompts(backbone, NAMES, 3))
    kept = encode._chunks_for
    four, one = kept(4), kept(1)
    assert kept(4) is four and kept(1) is one and kept(4) is four
    kept(2)
    assert kept(4) is four and len(encode._chunks) == KEPT_PLANS
