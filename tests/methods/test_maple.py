"""What only MaPLe does, against a step computed slowly by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from coopt import MaPLe
from coopt.backbones import Backbone, load_backbone
from coopt.errors import ParameterError, UnsupportedBackboneError
from coopt.runtime import Runtime
from coopt.text.layout import context_prompts
from coopt.text.memory import bytes_of
from tests.methods.conftest import ONE_STEP
from tests.methods.slow import doubled, slope, slow_images, slow_text, small_vit
from tests.methods.steps import check_estimate, check_parts

NAMES = ["cat", "forest road", "red sports car"]
STEP = {**ONE_STEP, "warmup_lr": 0.01, "batch_size": 9, "views": 1, "balance": 0.0}
UNEVEN = [0, 0, 0, 0, 0, 1, 1, 1, 2]


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return small_vit()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def slow_logits(backbone: Any, learned: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """MaPLe's formula with every prompt at full length, block by block."""
    text = [learned["context"], *learned["deep"]]
    images = [
        vectors @ weight.T + bias
        for vectors, weight, bias in zip(text, learned["map.weight"], learned["map.bias"], strict=True)
    ]
    words = slow_text(backbone, context_prompts(small_vit(), NAMES, len(text[0])), text)
    seen = slow_images(backbone, pixels, images)
    return backbone.logit_scale * normalize(seen, dim=-1) @ normalize(words, dim=-1).T


def begun(backbone: Backbone, **parameters: Any) -> MaPLe:
    model = MaPLe(backbone, class_names=NAMES, runtime=Runtime(cache=False, **parameters), recipe=STEP)
    model.check_parameters()
    model._set_classes(backbone, NAMES, named=True)
    return model


@pytest.mark.parametrize("path", ["fast", "reference"])
def test_one_step_is_the_gradient_of_the_formula(vit: Backbone, pixels: Tensor, path: str) -> None:
    learned = {name: one.clone().requires_grad_() for name, one in begun(vit).initial().items()}
    loss = cross_entropy(slow_logits(vit, learned, pixels), torch.tensor(UNEVEN))
    loss.backward()
    expected = {name: (one - 0.01 * one.grad).detach() for name, one in learned.items() if one.grad is not None}
    model = begun(vit, text_path=path).fit(pixels, UNEVEN)
    assert model.losses_ == pytest.approx([loss.item()], rel=1e-4) and set(expected) == set(model.learned_)
    for name, one in expected.items():
        assert (one - learned[name]).abs().max() > 1e-4
        torch.testing.assert_close(model.learned_[name], one, rtol=1e-3, atol=1e-5)
    with torch.no_grad():
        torch.testing.assert_close(
            torch.from_numpy(model.logits(pixels)), slow_logits(vit, expected, pixels), rtol=1e-3, atol=2e-3
        )


def test_the_gradient_is_that_of_finite_differences(vit: Backbone, pixels: Tensor) -> None:
    model = begun(vit)
    start = {name: one.requires_grad_() for name, one in model.initial().items()}
    model._objective(start).loss_of(pixels, torch.tensor(UNEVEN)).backward()
    exact = doubled(vit)

    def loss(learned: dict[str, Tensor]) -> Tensor:
        return cross_entropy(slow_logits(exact, learned, pixels.double()), torch.tensor(UNEVEN))

    generator = torch.Generator().manual_seed(3)
    for name in start:
        way = {other: torch.zeros_like(one) for other, one in start.items()}
        way[name] = torch.randn(start[name].shape, generator=generator)
        found = float((way[name] * start[name].grad).sum())  # type: ignore[operator]
        assert found == pytest.approx(slope(loss, start, way), rel=1e-3, abs=1e-4)


def test_where_it_begins(vit: Backbone) -> None:
    start = begun(vit).initial()
    words = vit.text.embed(torch.tensor(vit.tokenizer.encode("a photo")))
    assert torch.equal(start["context"], words) and start["deep"].shape == (2, 2, 64)
    assert start["map.weight"].shape == (3, 96, 64) and start["map.bias"].shape == (3, 96)
    assert start["map.weight"].abs().max() <= 64**-0.5 < 1.02 * start["map.weight"].abs().max()
    assert not torch.equal(start["map.weight"][0], start["map.weight"][1])
    assert begun(vit).set_params(depth=2).blocks == 2 and begun(vit).set_params(depth=1).initial().keys() == {
        "context",
        "map.weight",
        "map.bias",
    }
    more = begun(vit).set_params(n_ctx=5).initial()["context"]
    assert more.shape == (5, 64) and 0.015 < more.std() < 0.025


def test_images_in_parts_give_the_same(vit: Backbone, pixels: Tensor) -> None:
    whole = begun(vit).fit(pixels, UNEVEN)
    needed = whole.step_bytes(vit, NAMES)
    parts = begun(vit, memory=needed // 3)
    assert parts.step_bytes(vit, NAMES) <= needed // 3
    check_parts(whole, parts, pixels, UNEVEN, fewer_than=4, atol=1e-7)


def test_towers_without_blocks_are_refused() -> None:
    backbone = load_backbone("bundled")
    with pytest.raises(UnsupportedBackboneError, match="the image tower of bundled takes none"):
        MaPLe(backbone).fit(torch.randn(4, 3, 64, 64), ["a", "b"] * 2)


def test_a_step_holds_what_was_estimated(vit: Backbone) -> None:
    check_estimate(begun(vit).set_params(recipe={**STEP, "batch_size": 16}), vit, NAMES, share=0.5)


def test_too_little_memory_is_refused_with_what_is_enough(vit: Backbone) -> None:
    model = begun(vit).set_params(runtime=Runtime(cache=False, memory=100_000))
    with pytest.raises(ParameterError, match=r"must be at least \S+ here.*3 classes, 9 images.*Got 100K") as found:
        model.step_bytes(vit, NAMES)
    named = str(found.value).split("at least ")[1].split()[0]
    assert model.set_params(runtime=Runtime(cache=False, memory=named)).step_bytes(vit, NAMES) <= bytes_of(named)  # type: ignore[operator]


def test_descriptions_stand_behind_the_names(vit: Backbone, pixels: Tensor) -> None:
    texts = {"cat": ["a small animal"]}
    model = MaPLe(vit, class_names=NAMES, descriptions=texts, recipe=STEP).fit(pixels, UNEVEN)
    names = ["cat, a small animal", *NAMES[1:]]
    same = MaPLe(vit, class_names=names, recipe=STEP).fit(pixels, UNEVEN)
    np.testing.assert_allclose(model.logits(pixels), same.logits(pixels), rtol=1e-4, atol=1e-3)
