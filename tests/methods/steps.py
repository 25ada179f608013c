"""Steps of methods that pass images through a changed tower: in parts as at once, and in no more memory than was promised."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from coopt import Runtime
from coopt.backbones import Backbone
from coopt.methods.learned import LearnedMethod
from coopt.text.memory import ALLOCATOR
from tests.text.live import LiveBytes


def check_parts(
    whole: LearnedMethod, parts: LearnedMethod, pixels: Tensor, targets: list[int], fewer_than: int, atol: float = 1e-6
) -> None:
    """What is learned with less memory is what was learned with enough.

    Args:
        whole: fitted.
        parts: the same method with less memory.
        pixels: of the images that `whole` learned from.
        targets: their classes.
        fewer_than: images that may pass together.
        atol: of the learned numbers.
    """
    shared = parts._shared({name: one.requires_grad_() for name, one in parts.initial().items()}, len(pixels))
    assert shared.images is not None and shared.images.together < fewer_than
    parts.fit(pixels, targets)
    assert parts.losses_ == pytest.approx(whole.losses_, rel=1e-6)
    for name, one in whole.learned_.items():
        torch.testing.assert_close(parts.learned_[name], one, rtol=1e-5, atol=atol)


def check_estimate(whole: LearnedMethod, backbone: Backbone, names: list[str], share: float) -> None:
    """The tensors of a step never take more than was estimated, and at least half of it, with enough memory and with less.

    Args:
        whole: a method with batches of 16 that knows its classes.
        backbone: its frozen model.
        names: of three classes.
        share: of the memory that a step needs, which is given the second time.
    """
    pixels, targets = torch.randn(16, 3, 32, 32), torch.arange(16) % 3
    needed = whole.step_bytes(backbone, names)
    for memory in ("auto", int(needed * share)):
        model = whole.set_params(runtime=Runtime(cache=False, memory=memory))
        model.check_parameters()
        promised = model.step_bytes(backbone, names)
        with LiveBytes(backbone) as live:
            learned = {name: one.requires_grad_() for name, one in model.initial().items()}
            model._objective(learned).loss_of(pixels, targets).backward()
        assert 0.5 * promised < ALLOCATOR * live.peak <= promised <= (needed if memory == "auto" else memory)
