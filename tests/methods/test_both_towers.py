"""What the methods that change both towers share: a killed run goes on, images of every kind, uneven classes, new classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import coopt
from coopt.backbones import Backbone
from coopt.errors import DataError
from coopt.methods.learned import LearnedMethod
from coopt.methods.registry import METHODS
from coopt.runtime import Runtime
from tests.methods.conftest import stopped_at_epoch
from tests.methods.slow import small_vit

METHODS_OF_BOTH = ("maple", "clip_lora", "promptsrc", "mmrl", "two_stage")
FEW: dict[str, Any] = {"epochs": 4, "batch_size": 4, "views": 2, "average_mean": 2.5}
NAMES = ["cat", "forest road", "red sports car"]
UNEVEN = [NAMES[i] for i in (0, 0, 0, 0, 0, 0, 1, 1, 2)]


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return small_vit()


@pytest.fixture(scope="module")
def images() -> Tensor:
    return torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(7))


@pytest.fixture(params=METHODS_OF_BOTH)
def method(request: pytest.FixtureRequest, vit: Backbone) -> LearnedMethod:
    return METHODS.get(request.param)(vit, recipe=FEW, runtime=Runtime(cache=False))


def same(one: LearnedMethod, other: LearnedMethod) -> bool:
    return one.losses_ == other.losses_ and all(torch.equal(x, other.learned_[n]) for n, x in one.learned_.items())


def test_a_killed_run_goes_on_with_the_same_bits(
    method: LearnedMethod, pictures: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths, labels = pictures
    whole = method.fit(paths, labels)
    kept = Runtime(cache=False, checkpoint=tmp_path / "c.safetensors")
    stopped = type(method)(**{**method.get_params(deep=False), "runtime": kept})
    stopped_at_epoch(2, lambda: stopped.fit(paths, labels), monkeypatch)
    again = type(method)(**{**method.get_params(deep=False), "runtime": kept}).fit(paths, labels)
    assert same(again, whole) and len(whole.losses_) == 4  # type: ignore[arg-type]
    assert (again.logits(paths) == whole.logits(paths)).all()


def test_uneven_classes_and_one_with_a_single_image(method: LearnedMethod, images: Tensor, tmp_path: Path) -> None:
    method.fit(images, UNEVEN)
    assert all(np.isfinite(method.losses_)) and method.losses_[-1] < method.losses_[0]
    loaded = coopt.load(method.save(tmp_path / "learned"), method.backbone_)
    assert (loaded.logits(images) == method.logits(images)).all()


def test_new_classes(method: LearnedMethod, images: Tensor) -> None:
    method.fit(images, UNEVEN)
    others = method.with_classes([NAMES[2], NAMES[0]])
    np.testing.assert_allclose(others.logits(images), method.logits(images)[:, [2, 0]], atol=2e-3)
    new = method.with_classes(["violin", "cat"])
    assert np.isfinite(new.logits(images)).all() and set(new.predict(images)) <= {"violin", "cat"}


def test_features_are_refused(method: LearnedMethod, vit: Backbone) -> None:
    with pytest.raises(DataError, match="changes the image encoder.*Give images"):
        method.fit(torch.randn(9, vit.embed_dim), UNEVEN)


def test_the_backbone_stays_as_it_is(method: LearnedMethod, vit: Backbone, images: Tensor) -> None:
    before = {name: one.clone() for name, one in vit.model.state_dict().items()}
    frozen = vit.encode_image(images)
    method.fit(images, UNEVEN)
    assert all(torch.equal(one, vit.model.state_dict()[name]) for name, one in before.items())
    assert torch.equal(vit.encode_image(images), frozen)
    assert (method.image_features(images).features[0, :, : vit.embed_dim] - frozen).abs().max() > 1e-4
