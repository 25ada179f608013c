"""What only 2SFS does, against steps computed slowly by hand."""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

import coopt
from coopt import TwoStage
from coopt.backbones import Backbone, load_backbone
from coopt.errors import UnsupportedBackboneError
from coopt.runtime import Runtime
from coopt.text.layout import template_prompts
from tests.methods.conftest import ONE_STEP
from tests.methods.slow import slope, slow_images, slow_text, small_vit
from tests.methods.steps import check_estimate, check_parts

NAMES = ["cat", "forest road", "red sports car"]
UNEVEN = [0, 0, 0, 0, 0, 1, 1, 1, 2]
STEP = {**ONE_STEP, "warmup_lr": 0.01, "momentum": 0.0, "batch_size": 9, "views": 1, "balance": 0.0}
TEMPLATE = "an image of a {}."


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return small_vit()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def begun(backbone: Backbone, recipe: Any = STEP, first_stage: float = 0.6, **runtime: Any) -> TwoStage:
    machine = Runtime(cache=False, **runtime)
    model = TwoStage(
        backbone, class_names=NAMES, runtime=machine, recipe=recipe, template=TEMPLATE, first_stage=first_stage
    )
    model.check_parameters()
    model._set_classes(backbone, NAMES, named=True)
    return model


def exchanged(backbone: Backbone, learned: dict[str, Tensor], dtype: torch.dtype = torch.float32) -> Any:
    """A copy of the model whose layer norms are what is learned, differentiable in it."""
    model: Any = copy.deepcopy(backbone.model).to(dtype)
    for name, one in learned.items():
        if name != "classifier":
            parent, _, leaf = name.partition(":")[2].rpartition(".")
            module = model.get_submodule(parent)
            del module._parameters[leaf]
            setattr(module, leaf, one)
    return SimpleNamespace(model=model, logit_scale=backbone.logit_scale)


def slow_features(backbone: Any, pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised features of the classes and of the images."""
    words = slow_text(backbone, template_prompts(small_vit(), NAMES, TEMPLATE))
    return normalize(words, dim=-1), normalize(slow_images(backbone, pixels), dim=-1)


def slow_loss(backbone: Backbone, learned: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """The first stage's."""
    text, images = slow_features(exchanged(backbone, learned, pixels.dtype), pixels)
    return cross_entropy(backbone.logit_scale * images @ text.T, torch.tensor(UNEVEN))


@pytest.mark.parametrize("path", ["fast", "reference"])
def test_one_step_of_the_first_stage_is_the_gradient_of_the_formula(vit: Backbone, pixels: Tensor, path: str) -> None:
    model = begun(vit, text_path=path)
    learned = {name: one.clone().requires_grad_() for name, one in model.initial().items()}
    assert len(learned) == 2 * (2 * 3 + 1) + 2 * (2 * 4 + 2) + 1
    loss = slow_loss(vit, learned, pixels)
    loss.backward()
    model.fit(pixels, UNEVEN)
    assert model.losses_ == pytest.approx([loss.item()], rel=1e-4) and set(model.learned_) == set(learned)
    assert not model.learned_["classifier"].any()
    for name, one in learned.items():
        if name != "classifier":
            assert one.grad is not None and one.grad.abs().max() > 1e-3
            torch.testing.assert_close(model.learned_[name], (one - 0.01 * one.grad).detach(), rtol=2e-3, atol=2e-5)


def test_the_gradient_is_that_of_finite_differences(vit: Backbone, pixels: Tensor) -> None:
    model = begun(vit)
    start = {name: one.clone().requires_grad_() for name, one in model.initial().items()}
    model._objective(start).loss_of(pixels, torch.tensor(UNEVEN)).backward()
    generator = torch.Generator().manual_seed(3)
    way = {name: torch.randn(one.shape, generator=generator) for name, one in start.items()}
    for tower in ("text", "image"):
        there = {name: one if name.startswith(tower) else 0 * one for name, one in way.items()}
        found = sum(float((one * start[name].grad).sum()) for name, one in there.items() if name != "classifier")  # type: ignore[operator]
        expected = slope(lambda learned: slow_loss(vit, learned, pixels.double()), start, there)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3) and abs(found) > 0.01


def test_the_second_stage_learns_a_classifier_on_what_the_first_left(
    vit: Backbone, pixels: Tensor, tmp_path: Path
) -> None:
    both = {**STEP, "warmup_lr": None, "lr": 0.01, "epochs": 5}
    model = begun(vit, both)  # three epochs, and two
    model.fit(pixels, UNEVEN)
    text, images = slow_features(exchanged(vit, model.learned_), pixels)
    rates, targets = model.recipe_.learning_rates(5), torch.tensor(UNEVEN)
    rows, losses = text.clone(), []
    for rate in rates[3:]:
        scores = vit.logit_scale * images @ rows.T
        losses.append(cross_entropy(scores, targets).item())
        wrong = scores.softmax(dim=1) - torch.eye(3)[targets]
        rows = rows - rate * vit.logit_scale * wrong.T @ images / 9
    assert model.losses_[3:] == pytest.approx(losses, rel=1e-3)
    torch.testing.assert_close(model.learned_["classifier"], rows - text, rtol=2e-3, atol=1e-5)
    expected = (vit.logit_scale * images @ rows.T).numpy()
    np.testing.assert_allclose(model.logits(pixels), expected, rtol=1e-3, atol=3e-3)
    # New classes: text features under the layer norms, beside rows of the classifier.
    new = model.with_classes(["forest road", "violin"])
    np.testing.assert_allclose(new.logits(pixels)[:, 0], expected[:, 1], rtol=1e-3, atol=3e-3)
    violin = slow_text(exchanged(vit, model.learned_), template_prompts(vit, ["violin"], TEMPLATE))
    ours = (vit.logit_scale * images @ normalize(violin, dim=-1).T)[:, 0]
    np.testing.assert_allclose(new.logits(pixels)[:, 1], ours.numpy(), rtol=1e-3, atol=3e-3)
    loaded = coopt.load(new.save(tmp_path / "new"), vit)
    assert (loaded.logits(pixels) == new.logits(pixels)).all()
    np.testing.assert_allclose(loaded.with_classes(NAMES).logits(pixels), model.logits(pixels), rtol=1e-4, atol=1e-3)
    with torch.no_grad():
        exported = torch.export.export(model.classifier(), (pixels,)).module()(pixels)
    np.testing.assert_allclose(exported.numpy(), model.logits(pixels), rtol=1e-4, atol=1e-3)


def test_what_each_stage_leaves_alone(vit: Backbone, pixels: Tensor) -> None:
    several = {**STEP, "optimizer": "adam", "lr": 0.01, "warmup_lr": None, "epochs": 4, "weight_decay": 0.1}
    start = begun(vit).initial()
    first, second, none = (begun(vit, several, share) for share in (1.0, 0.5, 0.0))
    for model in (first, second, none):
        model.fit(pixels, UNEVEN)
    assert not first.learned_["classifier"].any() and second.learned_["classifier"].any()
    norms = [name for name in start if name != "classifier"]
    assert all(torch.equal(none.learned_[name], start[name]) for name in norms)
    assert all(not torch.equal(second.learned_[name], start[name]) for name in norms)
    plain = coopt.ZeroShot(vit, templates=TEMPLATE).fit_classes(NAMES)
    np.testing.assert_allclose(none.with_classes(["violin", "oboe"]).logits(pixels), plain.with_classes(["violin", "oboe"]).logits(pixels), rtol=1e-4, atol=1e-3)  # fmt: skip


def test_where_time_is_short_the_second_stage_begins_by_the_clock(vit: Backbone, pixels: Tensor) -> None:
    model = begun(vit, {**STEP, "warmup_lr": None, "lr": 0.01, "epochs": 100_000, "seconds": 1.0}, 0.1)
    model.fit(pixels, UNEVEN)
    assert len(model.losses_) < 10_000 and model.learned_["classifier"].any()


def test_towers_without_layer_norms_are_refused() -> None:
    bundled = load_backbone("bundled")
    with pytest.raises(UnsupportedBackboneError, match="in the image tower of bundled there are none"):
        TwoStage(bundled).fit(torch.randn(4, 3, 64, 64), ["a", "b"] * 2)


def test_images_in_parts_give_the_same(vit: Backbone, pixels: Tensor) -> None:
    whole = begun(vit)
    whole.fit(pixels, UNEVEN)
    check_parts(whole, begun(vit, memory=int(whole.step_bytes(vit, NAMES) * 0.6)), pixels, UNEVEN, fewer_than=9)


def test_a_step_holds_what_was_estimated(vit: Backbone) -> None:
    check_estimate(begun(vit, {**STEP, "batch_size": 16}), vit, NAMES, share=0.6)


def test_the_fast_path_takes_norms(vit: Backbone) -> None:
    encode = begun(vit)._shared({}, 0).encode
    assert encode is not None and encode.path == "fast" and len(encode.weights) == 14
