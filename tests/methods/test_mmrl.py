"""What only MMRL does, against a step computed slowly by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

import coopt
from coopt import MMRL
from coopt.backbones import Backbone, load_backbone
from coopt.errors import PromptTooLongError, UnsupportedBackboneError
from coopt.methods.own_classes import codes_of
from coopt.runtime import Runtime
from coopt.text.layout import template_prompts
from tests.methods.conftest import ONE_STEP
from tests.methods.slow import doubled, slope, slow_images, slow_inserted_text, slow_read_images, slow_text, small_vit
from tests.methods.steps import check_estimate, check_parts

NAMES = ["cat", "forest road", "red sports car"]
UNEVEN = [0, 0, 0, 0, 0, 1, 1, 1, 2]
STEP = {**ONE_STEP, "warmup_lr": 0.01, "batch_size": 9, "views": 1, "balance": 0.0}
TEMPLATE = "an image of a {}."
SMALL: dict[str, Any] = {"tokens": 3, "space": 7, "share": 0.6, "guide_weight": 0.8, "template": TEMPLATE}


@pytest.fixture(scope="module")
def vit() -> Backbone:
    return small_vit()


@pytest.fixture(scope="module")
def pixels() -> Tensor:
    return torch.randn(9, 3, 32, 32, generator=torch.Generator().manual_seed(5))


def begun(backbone: Backbone, first_block: int = 2, recipe: Any = STEP, **runtime: Any) -> MMRL:
    machine = Runtime(cache=False, **runtime)
    model = MMRL(backbone, class_names=NAMES, runtime=machine, recipe=recipe, first_block=first_block, **SMALL)
    model.check_parameters()
    model._set_classes(backbone, NAMES, named=True)
    return model


def some(model: MMRL) -> dict[str, Tensor]:
    """Values for what is learned that are large enough for every token to matter."""
    generator = torch.Generator().manual_seed(1)
    return {name: 0.4 * torch.randn(one.shape, generator=generator) for name, one in model.initial().items()}


def slow_features(
    backbone: Any, learned: dict[str, Tensor], pixels: Tensor, first_block: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalised text features, class features and representation features, with every token written out."""

    def tokens(tower: str, blocks: int) -> dict[int, Tensor]:
        begin = min(first_block, blocks) - 1
        return {
            begin + i: torch.stack([weight @ one + bias for one in learned["space"]])
            for i, (weight, bias) in enumerate(zip(learned[f"{tower}.weight"], learned[f"{tower}.bias"], strict=True))
        }

    words = slow_inserted_text(backbone, template_prompts(small_vit(), NAMES, TEMPLATE), tokens("text", 3))
    seen = slow_read_images(backbone, pixels, tokens("image", 4), learned["projection"])
    text, own, read = (normalize(one, dim=-1) for one in (words, *seen))
    return text, own, read


def slow_loss(backbone: Any, learned: dict[str, Tensor], pixels: Tensor, first_block: int = 2) -> Tensor:
    text, own, read = slow_features(backbone, learned, pixels, first_block)
    targets, scale = torch.tensor(UNEVEN), backbone.logit_scale
    frozen_text = normalize(slow_text(backbone, template_prompts(small_vit(), NAMES, TEMPLATE)), dim=-1)
    frozen_images = normalize(slow_images(backbone, pixels), dim=-1)
    of_images = 1 - (own * frozen_images).sum(dim=1).mean()
    of_text = 1 - (text * frozen_text).sum(dim=1).mean()
    first, second = cross_entropy(scale * own @ text.T, targets), cross_entropy(scale * read @ text.T, targets)
    return 0.6 * first + 0.4 * second + 0.8 * of_images + 0.8 * of_text


def slow_scores(backbone: Any, learned: dict[str, Tensor], pixels: Tensor, share: float) -> Tensor:
    with torch.no_grad():
        text, own, read = slow_features(backbone, learned, pixels, 2)
        return backbone.logit_scale * (share * own @ text.T + (1 - share) * read @ text.T)


@pytest.mark.parametrize(("path", "first_block"), [("fast", 2), ("fast", 3), ("fast", 6), ("reference", 2)])
def test_one_step_is_the_gradient_of_the_formula(
    vit: Backbone, pixels: Tensor, path: str, first_block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = begun(vit, first_block, text_path=path)
    start = some(model)
    assert start["text.weight"].shape == ({2: 2, 3: 1, 6: 1}[first_block], 64, 7)
    assert start["image.weight"].shape == ({2: 3, 3: 2, 6: 1}[first_block], 96, 7)
    monkeypatch.setattr(MMRL, "initial", lambda self: start)
    learned = {name: one.clone().requires_grad_() for name, one in start.items()}
    loss = slow_loss(vit, learned, pixels, first_block)
    loss.backward()
    model.fit(pixels, UNEVEN)
    assert model.losses_ == pytest.approx([loss.item()], rel=1e-4) and set(model.learned_) == set(start)
    for name, one in learned.items():
        assert one.grad is not None and one.grad.abs().max() > 1e-4
        torch.testing.assert_close(model.learned_[name], (one - 0.01 * one.grad).detach(), rtol=1e-3, atol=2e-5)
    if first_block == 2:
        expected = slow_scores(vit, model.learned_, pixels, 0.6)
        torch.testing.assert_close(torch.from_numpy(model.logits(pixels)), expected, rtol=1e-3, atol=2e-3)


def test_the_gradient_is_that_of_finite_differences(vit: Backbone, pixels: Tensor) -> None:
    model = begun(vit)
    start = {name: one.requires_grad_() for name, one in some(model).items()}
    model._objective(start).loss_of(pixels, torch.tensor(UNEVEN)).backward()
    exact, generator = doubled(vit), torch.Generator().manual_seed(3)
    way = {name: torch.randn(one.shape, generator=generator) for name, one in start.items()}
    for part in ("text", "image", ""):  # the last: what belongs to both
        there = {n: one if n.split(".")[0] == part or not (part or "." in n) else 0 * one for n, one in way.items()}
        found = sum(float((one * start[name].grad).sum()) for name, one in there.items())  # type: ignore[operator]
        expected = slope(lambda learned: slow_loss(exact, learned, pixels.double()), start, there)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4) and abs(found) > 0.01


@pytest.mark.parametrize("first_block", [2, 3])
def test_classes_in_chunks_and_one_longer_name_give_what_the_reference_path_gives(
    vit: Backbone, first_block: int
) -> None:
    names = ["cat", "dog", "a very long name of a class", "forest road", "red sports car", "o'clock"]
    found = {}
    for path, chunks in (("reference", 1), ("fast", 1), ("fast", 3)):
        model = begun(vit, first_block, text_path=path)
        model._set_classes(vit, names, named=True)
        learned = {name: one.requires_grad_() for name, one in some(model).items()}
        encode = model._shared(learned, 1).encode
        assert encode is not None and encode.path == path
        while encode.estimate().chunks < chunks:
            assert encode.shrink()
        placed = model.put_in(learned)
        text = encode(None, {i: placed[f"text.{i}"] for i in model.blocks("text")})
        way = torch.randn(text.shape, generator=torch.Generator().manual_seed(8))
        gradients = torch.autograd.grad((text * way).sum(), [learned["space"], learned["text.weight"]])
        found[path, chunks] = [text.detach(), *gradients]
    expected = found.pop(("reference", 1))
    for ours in found.values():
        for one, other in zip(ours, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_new_classes_take_the_class_feature_alone(vit: Backbone, pixels: Tensor, tmp_path: Path) -> None:
    model = begun(vit)
    model.fit(pixels, UNEVEN)
    both, own = (slow_scores(vit, model.learned_, pixels, share).numpy() for share in (0.6, 1.0))
    assert np.abs(both - own).max() > 0.5
    permuted = model.with_classes([NAMES[2], NAMES[0]])
    np.testing.assert_allclose(permuted.logits(pixels), both[:, [2, 0]], rtol=1e-3, atol=2e-3)
    new = model.with_classes(["violin", "cat"])
    np.testing.assert_allclose(new.logits(pixels)[:, 1], own[:, 0], rtol=1e-3, atol=2e-3)
    loaded = coopt.load(new.save(tmp_path / "new"), vit)
    assert (loaded.logits(pixels) == new.logits(pixels)).all()
    back = loaded.with_classes(NAMES)
    np.testing.assert_allclose(back.logits(pixels), model.logits(pixels), rtol=1e-5, atol=1e-4)
    assert torch.equal(loaded.learned_from_, codes_of(NAMES)) and len(set(codes_of(NAMES).tolist())) == 3  # type: ignore[attr-defined]


def test_the_exported_classifier_has_both_features(vit: Backbone, pixels: Tensor) -> None:
    model = begun(vit)
    model.fit(pixels, UNEVEN)
    with torch.no_grad():
        scores = model.classifier()(pixels)
        assert model.classifier().image_tower(pixels).shape == (9, 2 * vit.embed_dim)
        exported = torch.export.export(model.classifier(), (pixels,)).module()(pixels)
    assert torch.equal(scores, torch.from_numpy(model.logits(pixels)))
    torch.testing.assert_close(exported, scores, rtol=1e-4, atol=1e-3)


def test_where_it_begins(vit: Backbone) -> None:
    model = MMRL(vit, class_names=NAMES)
    model.check_parameters()
    model._set_classes(vit, NAMES, named=True)
    start = model.initial()
    assert start["space"].shape == (5, 512) and 0.018 < start["space"].std() < 0.022
    assert start["text.weight"].abs().max() <= 512**-0.5 < 1.01 * start["text.weight"].abs().max()
    assert start["projection"].shape == (96, 32) and 0.09 < start["projection"].std() < 0.115
    assert list(model.blocks("text")) == [2] and list(model.blocks("image")) == [3]  # of 3 and 4
    assert list(model.set_params(first_block=2).blocks("image")) == [1, 2, 3]


def test_images_in_parts_give_the_same(vit: Backbone, pixels: Tensor) -> None:
    whole = begun(vit)
    whole.fit(pixels, UNEVEN)
    check_parts(whole, begun(vit, memory=whole.step_bytes(vit, NAMES) // 2), pixels, UNEVEN, fewer_than=6)


@pytest.mark.parametrize("first_block", [2, 6])
def test_a_step_holds_what_was_estimated(vit: Backbone, first_block: int) -> None:
    check_estimate(begun(vit, first_block, recipe={**STEP, "batch_size": 16}), vit, NAMES, share=0.6)


def test_what_cannot_take_the_tokens_is_refused(vit: Backbone, pixels: Tensor) -> None:
    bundled = load_backbone("bundled")
    with pytest.raises(UnsupportedBackboneError, match="reads them out, and that of bundled takes none"):
        MMRL(bundled).fit(torch.randn(4, 3, 64, 64), ["a", "b"] * 2)
    with pytest.raises(PromptTooLongError, match="3 of them put in between blocks, but test:vit-0 takes 77"):
        begun(vit).set_params(class_names=["dog " * 70, *NAMES[1:]]).fit(pixels, UNEVEN)
