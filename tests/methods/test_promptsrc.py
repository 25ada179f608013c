"""What only PromptSRC does, against a step computed slowly by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from coopt import PromptSRC
from coopt.backbones import Backbone
from coopt.runtime import Runtime
from coopt.text.layout import context_prompts, template_prompts
from tests.methods.conftest import ONE_STEP
from tests.methods.slow import doubled, slope, slow_images, slow_text, small_vit

NAMES = ["cat", "forest road", "red sports car"]
UNEVEN = [0, 0, 0, 0, 0, 1, 1, 1, 2]
STEP = {**ONE_STEP, "warmup_lr": 0.01, "batch_size": 9, "views": 1, "balance": 0.0, "average_mean": None}
TEMPLATES = ["a photo of a {}.", "itap of the {}."]


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return small_vit()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def begun(backbone: Backbone, text_path: Any = "auto", memory: Any = "auto", **parameters: Any) -> PromptSRC:
    runtime = Runtime(cache=False, text_path=text_path, memory=memory)
    given = {"recipe": STEP, "templates": TEMPLATES, **parameters}
    model = PromptSRC(backbone, class_names=NAMES, runtime=runtime, **given)
    model.check_parameters()
    model._set_classes(backbone, NAMES, named=True)
    return model


def slow_features(backbone: Any, learned: dict[str, Tensor], pixels: Tensor) -> tuple[Tensor, Tensor]:
    """Normalised features of images and classes, block by block."""
    text = [learned["context"], *learned["deep"]]
    words = slow_text(backbone, context_prompts(small_vit(), NAMES, len(text[0])), text)
    return normalize(slow_images(backbone, pixels, list(learned["image"])), dim=-1), normalize(words, dim=-1)


def slow_loss(backbone: Any, learned: dict[str, Tensor], pixels: Tensor, weights: tuple[float, ...]) -> Tensor:
    images, text = slow_features(backbone, learned, pixels)
    with torch.no_grad():
        of_template = [slow_text(backbone, template_prompts(small_vit(), NAMES, one)) for one in TEMPLATES]
        frozen_text = normalize(torch.stack([normalize(one, dim=-1) for one in of_template]).mean(dim=0), dim=-1)
        frozen_images = normalize(slow_images(backbone, pixels), dim=-1)
        frozen = (backbone.logit_scale * frozen_images @ frozen_text.T).softmax(dim=1)
    scores = backbone.logit_scale * images @ text.T
    divergence = (frozen * (frozen.log() - scores.log_softmax(dim=1))).sum() / scores.numel()
    of_images = (images - frozen_images).abs().sum() / images.numel()
    of_text = (text - frozen_text).abs().sum() / text.numel()
    terms = (cross_entropy(scores, torch.tensor(UNEVEN)), of_images, of_text, divergence)
    return sum((weight * term for weight, term in zip((1.0, *weights), terms, strict=True)), torch.zeros(()))


@pytest.mark.parametrize("path", ["fast", "reference"])
@pytest.mark.parametrize("weights", [(10.0, 25.0, 1.0), (0.0, 0.0, 3.0)])
def test_one_step_is_the_gradient_of_the_formula(
    vit: Backbone, pixels: Tensor, path: str, weights: tuple[float, float, float]
) -> None:
    named = dict(zip(("image_weight", "text_weight", "logit_weight"), weights, strict=True))
    model = begun(vit, path, **named)
    learned = {name: one.requires_grad_() for name, one in model.initial().items()}
    loss = slow_loss(vit, learned, pixels, weights)
    loss.backward()
    expected = {name: (one - 0.01 * one.grad).detach() for name, one in learned.items() if one.grad is not None}
    model.fit(pixels, UNEVEN)
    assert model.losses_ == pytest.approx([loss.item()], rel=1e-4) and set(expected) == set(model.learned_)
    for name, one in expected.items():
        assert (one - learned[name]).abs().max() > 1e-4
        torch.testing.assert_close(model.learned_[name], one, rtol=2e-3, atol=2e-5)
    with torch.no_grad():
        images, text = slow_features(vit, expected, pixels)
    logits = vit.logit_scale * images @ text.T
    torch.testing.assert_close(torch.from_numpy(model.logits(pixels)), logits, rtol=1e-3, atol=3e-3)


def test_the_gradient_is_that_of_finite_differences(vit: Backbone, pixels: Tensor) -> None:
    model = begun(vit)
    start = {name: one.requires_grad_() for name, one in model.initial().items()}
    model._objective(start).loss_of(pixels, torch.tensor(UNEVEN)).backward()
    exact, generator = doubled(vit), torch.Generator().manual_seed(3)
    for name in start:
        way = {other: torch.zeros_like(one) for other, one in start.items()}
        way[name] = torch.randn(start[name].shape, generator=generator)
        found = float((way[name] * start[name].grad).sum())  # type: ignore[operator]

        def loss(learned: dict[str, Tensor]) -> Tensor:
            return slow_loss(exact, learned, pixels.double(), (10.0, 25.0, 1.0))

        assert found == pytest.approx(slope(loss, start, way), rel=1e-3, abs=1e-4)


def test_what_is_learned_is_the_mean_of_the_epochs(
    vit: Backbone, pixels: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = {**STEP, "warmup_lr": None, "lr": 0.01, "epochs": 5, "average_mean": 4.0, "average_std": 1.5}
    ends: list[dict[str, Tensor]] = []
    from coopt.training.average import EpochAverage

    original = EpochAverage.add

    def watched(self: EpochAverage, epoch: int, parameters: Any) -> None:
        ends.append({name: one.detach().double().clone() for name, one in parameters.items()})
        original(self, epoch, parameters)

    monkeypatch.setattr(EpochAverage, "add", watched)
    model = begun(vit, recipe=recipe).fit(pixels, UNEVEN)
    weights = torch.tensor([-((e - 4.0) ** 2) / (2 * 1.5**2) for e in range(1, 6)], dtype=torch.float64).softmax(dim=0)
    assert len(ends) == 5
    for name, one in model.learned_.items():
        mean = sum(weight * end[name] for weight, end in zip(weights, ends, strict=True))
        torch.testing.assert_close(one.double(), mean, rtol=1e-5, atol=1e-7)
        assert (one - ends[-1][name]).abs().max() > 1e-4


def test_images_in_parts_give_the_same(vit: Backbone, pixels: Tensor) -> None:
    whole = begun(vit).fit(pixels, UNEVEN)
    parts = begun(vit, memory=whole.step_bytes(vit, NAMES) // 3).fit(pixels, UNEVEN)
    assert parts.losses_ == pytest.approx(whole.losses_, rel=1e-6)
    for name, one in whole.learned_.items():
        torch.testing.assert_close(parts.learned_[name], one, rtol=1e-4, atol=1e-6)


def test_the_towers_vectors_are_independent(vit: Backbone) -> None:
    start = begun(vit).initial()
    assert {name: tuple(one.shape) for name, one in start.items()} == {
        "context": (4, 64),
        "deep": (2, 4, 64),
        "image": (3, 4, 96),
    }
    words = vit.text.embed(torch.tensor(vit.tokenizer.encode("a photo of a")))
    assert torch.equal(start["context"], words) and 0.015 < start["image"].std() < 0.025
    assert PromptSRC(vit).recipe == "fast" and PromptSRC.recipes["paper"].average_mean == 15
