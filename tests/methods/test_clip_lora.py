"""What only CLIP-LoRA does, against a step computed slowly by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, normalize

import coopt
from coopt import CLIPLoRA
from coopt.backbones import Backbone
from coopt.errors import UnsupportedBackboneError
from coopt.methods.attention_weights import attention_weights
from coopt.runtime import Runtime
from coopt.text.layout import template_prompts
from tests.methods.conftest import ONE_STEP
from tests.methods.slow import doubled, slope, slow_images, slow_text, small_vit

NAMES = ["cat", "forest road", "red sports car"]
UNEVEN = [0, 0, 0, 0, 0, 1, 1, 1, 2]
STEP = {**ONE_STEP, "warmup_lr": 0.01, "batch_size": 9, "views": 1, "balance": 0.0}
TEMPLATE = "an image of a {}."


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return small_vit()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def begun(backbone: Backbone, text_path: Any = "auto", **parameters: Any) -> CLIPLoRA:
    runtime = Runtime(cache=False, text_path=text_path)
    model = CLIPLoRA(backbone, class_names=NAMES, runtime=runtime, recipe=STEP, template=TEMPLATE, **parameters)
    model.check_parameters()
    model._set_classes(backbone, NAMES, named=True)
    return model


def some(model: CLIPLoRA, seed: int = 1) -> dict[str, Tensor]:
    """Values for what is learned that are not zero anywhere."""
    generator = torch.Generator().manual_seed(seed)
    return {name: 0.1 * torch.randn(one.shape, generator=generator) for name, one in model.initial().items()}


def matrices(backbone: Any, tower: str, learned: dict[str, Tensor], scale: float) -> list[Tensor]:
    """Each block's matrix for queries, keys and values with its change, part by part."""
    transformer = backbone.model.transformer if tower == "text" else backbone.model.visual.transformer
    within = "transformer" if tower == "text" else "visual.transformer"
    out = []
    for i, block in enumerate(transformer.resblocks):
        a, b = (learned[f"{tower}:{within}.resblocks.{i}.attn.in_proj_weight:{which}"] for which in "AB")
        frozen = block.attn.in_proj_weight.chunk(3)
        out.append(torch.cat([w + scale * b[part] @ a[part] for part, w in enumerate(frozen)]))
    return out


def slow_logits(backbone: Any, learned: dict[str, Tensor], pixels: Tensor, scale: float) -> Tensor:
    prompts = template_prompts(small_vit(), NAMES, TEMPLATE)
    words = slow_text(backbone, prompts, weights=matrices(backbone, "text", learned, scale))
    seen = slow_images(backbone, pixels, weights=matrices(backbone, "image", learned, scale))
    return backbone.logit_scale * normalize(seen, dim=-1) @ normalize(words, dim=-1).T


@pytest.mark.parametrize("path", ["auto", "reference"])
@pytest.mark.parametrize(("rank", "alpha", "dropout"), [(2, 1.0, 0.0), (3, 2.0, 0.5)])
def test_one_step_is_the_gradient_of_the_formula(
    vit: Backbone, pixels: Tensor, path: str, rank: int, alpha: float, dropout: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = begun(vit, path, rank=rank, alpha=alpha, dropout=dropout)
    start = some(model)
    monkeypatch.setattr(CLIPLoRA, "initial", lambda self: start)
    learned = {name: one.clone().requires_grad_() for name, one in start.items()}
    kept = model.dropped({name: torch.ones_like(one) for name, one in start.items()}, (0, 0))
    in_step = {name: one * kept[name] for name, one in learned.items()}
    loss = cross_entropy(slow_logits(vit, in_step, pixels, alpha / rank), torch.tensor(UNEVEN))
    loss.backward()
    expected = {name: (one - 0.01 * one.grad).detach() for name, one in learned.items() if one.grad is not None}
    model.fit(pixels, UNEVEN)
    assert model.losses_ == pytest.approx([loss.item()], rel=1e-4) and set(expected) == set(model.learned_)
    for name, one in expected.items():
        torch.testing.assert_close(model.learned_[name], one, rtol=2e-3, atol=1e-5)
    with torch.no_grad():
        logits = slow_logits(vit, expected, pixels, alpha / rank)
    torch.testing.assert_close(torch.from_numpy(model.logits(pixels)), logits, rtol=1e-3, atol=3e-3)


def test_the_gradient_is_that_of_finite_differences(vit: Backbone, pixels: Tensor) -> None:
    model = begun(vit, dropout=0.0)
    start = {name: one.requires_grad_() for name, one in some(model).items()}
    model._objective(start).loss_of(pixels, torch.tensor(UNEVEN)).backward()
    exact = doubled(vit)
    generator = torch.Generator().manual_seed(3)
    way = {name: torch.randn(one.shape, generator=generator) for name, one in start.items()}
    for tower in ("text", "image"):
        there = {name: one if name.startswith(tower) else torch.zeros_like(one) for name, one in way.items()}
        found = sum(float((one * start[name].grad).sum()) for name, one in there.items())  # type: ignore[operator]

        def loss(learned: dict[str, Tensor]) -> Tensor:
            return cross_entropy(slow_logits(exact, learned, pixels.double(), 0.5), torch.tensor(UNEVEN))

        assert found == pytest.approx(slope(loss, start, there), rel=1e-3, abs=1e-4)


def test_it_begins_at_the_hand_made_prompt(vit: Backbone, pixels: Tensor) -> None:
    still = {**STEP, "warmup_lr": 0.0}
    model = CLIPLoRA(vit, template=TEMPLATE, recipe=still).fit(pixels, [NAMES[i] for i in UNEVEN])
    plain = coopt.ZeroShot(vit, templates=TEMPLATE).fit_classes(NAMES)
    np.testing.assert_allclose(model.logits(pixels), plain.logits(pixels), rtol=1e-4, atol=1e-3)
    a = model.initial()["text:transformer.resblocks.0.attn.in_proj_weight:A"]
    assert a.shape == (3, 2, 64) and a.abs().max() <= 1 / 8 < 1.05 * a.abs().max()


def test_what_is_dropped(vit: Backbone) -> None:
    model = begun(vit, dropout=0.25)
    ones = {name: torch.ones_like(one) for name, one in model.initial().items()}
    first, again, other = (model.dropped(ones, moment) for moment in ((0, 1), (0, 1), (1, 0)))
    assert all(torch.equal(one, again[name]) for name, one in first.items())
    a = {name: one for name, one in first.items() if name.endswith(":A")}
    assert any(not torch.equal(one, other[name]) for name, one in a.items())
    assert all(bool((first[name] == 1).all()) for name in first if name.endswith(":B"))
    numbers = torch.cat([one[:, 0].flatten() for one in a.values()])
    assert set(numbers.tolist()) == {0.0, float(torch.ones(()) / 0.75)}
    assert abs(float((numbers == 0).float().mean()) - 0.25) < 0.05
    assert all(bool((one == one[:, :1]).all()) for one in a.values())  # whole columns


def test_the_text_takes_the_fast_path(vit: Backbone) -> None:
    model = begun(vit)
    learned = {name: one.requires_grad_() for name, one in model.initial().items()}
    shared = model._shared(learned, 9)
    assert shared.encode is not None and shared.encode.path == "fast"


def test_the_classifier_holds_the_sums_and_can_be_exported(vit: Backbone, pixels: Tensor) -> None:
    model = CLIPLoRA(vit, recipe={**STEP, "warmup_lr": 1.0}).fit(pixels, [NAMES[i] for i in UNEVEN])
    classifier = model.classifier()
    images = torch.export.Dim("images", min=1, max=64)
    program = torch.export.export(classifier, (pixels[:2],), dynamic_shapes={"pixels": {0: images}})
    for one in (classifier, program.module()):
        with torch.no_grad():
            np.testing.assert_allclose(one(pixels).numpy(), model.logits(pixels), rtol=1e-4, atol=1e-3)
    plain = coopt.ZeroShot(vit).fit_classes(NAMES).classifier()
    assert (classifier(pixels) - plain(pixels)).abs().max() > 0.1


@pytest.mark.parametrize(
    ("module", "expected"),
    [
        (nn.MultiheadAttention(8, 2), [("in_proj_weight", 3, 8, 8)]),
        (nn.ModuleDict({"qkv": nn.Linear(8, 24)}), [("qkv.weight", 3, 8, 8)]),
        (nn.ModuleDict({n: nn.Linear(8, 6) for n in ("query", "key", "value")}), [(f"{n}.weight", 1, 6, 8) for n in ("query", "key", "value")]),
        (nn.ModuleDict({n: nn.Linear(8, 8) for n in ("q_proj", "k_proj", "v_proj", "c_proj")}), [(f"{n}.weight", 1, 8, 8) for n in ("q_proj", "k_proj", "v_proj")]),
        (nn.ModuleDict({"qkv": nn.Linear(8, 16)}), []),
        (nn.Linear(8, 8), []),
    ],
)  # fmt: skip
def test_where_attention_keeps_its_weights(module: nn.Module, expected: list[tuple[str, int, int, int]]) -> None:
    assert [(one.name, one.parts, one.rows, one.columns) for one in attention_weights(module)] == expected


def test_separate_weights_of_a_resnet(pixels: Tensor) -> None:
    resnet = coopt.load_backbone("bundled")
    images = torch.randn(6, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    recipe = {"epochs": 3, "batch_size": 6, "views": 1}
    model = CLIPLoRA(resnet, recipe=recipe, runtime=Runtime(cache=False)).fit(images, ["a", "b", "c"] * 2)
    names = {name for name in model.learned_ if name.startswith("image:") and name.endswith(":B")}
    assert names == {f"image:visual.attnpool.{part}_proj.weight:B" for part in "qkv"}
    assert all(bool(model.learned_[name].abs().max() > 1e-5) for name in names) and model.losses_[-1] < model.losses_[0]


def test_towers_without_attention_are_refused(vit: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vit, "image", nn.Linear(2, 2))
    with pytest.raises(UnsupportedBackboneError, match="in the image tower of test:vit-0 there is no attention layer"):
        CLIPLoRA(vit).fit(torch.randn(4, 3, 32, 32), ["a", "b"] * 2)
