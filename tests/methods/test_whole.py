"""The loss of all images at once is the plain objective on one batch of them, however it is cut into pieces."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

import coopt
from coopt.backbones import Backbone
from coopt.methods import whole as module
from coopt.methods.forward import Batch, Forward, Sites
from coopt.methods.learned import LearnedMethod
from coopt.methods.sites import TextTokens
from coopt.methods.whole import WholeLoss
from coopt.runtime import Runtime
from coopt.text.encode import TextEncoder
from tests.methods.conftest import NAMES
from tests.methods.test_sites import DeepText, LowRank

N = 21
TARGETS = (torch.arange(N) ** 2) % 4  # uneven, and one class without images
IMAGES = 2 * torch.randn(N, 64, generator=torch.Generator().manual_seed(1))
WEIGHTS = torch.tensor([0.6, 1.7, 1.0, 0.9])


class Guided(DeepText):
    """Deep prompts whose loss sees the hand-made prompts and what is learned itself, beside the text."""

    method: ClassVar[str] = "guided"

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        held = (forward.text() - forward.unchanged_text()).square().sum(dim=1).mean()
        return super().loss(forward, batch) + 3 * held + 0.1 * forward.parameters["deep"].square().sum()


VARIANTS: dict[str, tuple[type[LearnedMethod], dict[str, Any]]] = {
    "coop": (coopt.CoOp, {"n_ctx": 3}),
    "csc": (coopt.CoOp, {"n_ctx": 3, "csc": True}),
    "middle": (coopt.CoOp, {"n_ctx": 3, "position": "middle"}),
    "kgcoop": (coopt.KgCoOp, {}),
    "tcp": (coopt.TCP, {"divergence": 5.0}),
    "prompt_ensemble": (coopt.PromptEnsemble, {"members": 2}),
    "text_bias": (coopt.TextBias, {}),
    "text_transformation": (coopt.TextTransformation, {}),
    "deep": (DeepText, {}),
    "deep-per-class": (DeepText, {"per_class": True}),
    "guided": (Guided, {}),
    "low-rank": (LowRank, {}),
}


@pytest.fixture(params=VARIANTS)
def variant(request: pytest.FixtureRequest) -> str:
    return request.param


def prepared(variant: str, backbone: Backbone, **runtime: Any) -> tuple[LearnedMethod, dict[str, Tensor]]:
    """A method that knows its classes, and what it learns, somewhere."""
    cls, parameters = VARIANTS[variant]
    model = cls(backbone, runtime=Runtime(cache=False, **runtime), **parameters)
    model.check_parameters()
    model._set_classes(backbone, NAMES, named=True)
    model._class_weights = WEIGHTS
    generator = torch.Generator().manual_seed(5)
    learned = {}
    for name, one in model.initial().items():
        learned[name] = (one + 0.05 * torch.randn(one.shape, generator=generator)).requires_grad_()
    return model, learned


def plain(model: LearnedMethod, learned: Mapping[str, Tensor]) -> tuple[float, list[Tensor]]:
    loss = model._objective(dict(learned)).loss_of(images(model), TARGETS)
    return float(loss.detach()), list(torch.autograd.grad(loss, list(learned.values())))


def images(model: LearnedMethod) -> Tensor:
    return IMAGES[:, : model.backbone_.embed_dim]


def whole(model: LearnedMethod, learned: Mapping[str, Tensor]) -> WholeLoss:
    make = model._objective(dict(learned)).whole
    assert make is not None
    return make(images(model), TARGETS)


def same(found: Sequence[Tensor], expected: Sequence[Tensor], within: float) -> None:
    for one, other in zip(found, expected, strict=True):
        assert one.shape == other.shape and float((one - other).norm()) <= within * float(other.norm())
        assert float((one - other).abs().max()) <= within * float(other.abs().max())


@pytest.mark.parametrize("together", [4096, 5, 1])
def test_it_is_the_plain_objective(
    variant: str, together: int, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, learned = prepared(variant, backbone)
    loss, gradients = plain(model, learned)
    monkeypatch.setattr(module, "IMAGES_TOGETHER", together)
    passes, original = [], TextEncoder.__call__
    monkeypatch.setattr(TextEncoder, "__call__", lambda self, *a: passes.append(1) or original(self, *a))
    found = whole(model, learned)()
    assert found.loss == pytest.approx(loss, rel=1e-6)
    (whole_gradients,) = found.gradients()
    same(whole_gradients, gradients, 4e-6)
    begins = model.unchanged_text.__func__ is not LearnedMethod.unchanged_text  # type: ignore[attr-defined]
    assert len(passes) <= (0 if variant.startswith("text_") else 1) + (begins or variant == "guided")


def test_halves_add_up_to_the_whole(variant: str, backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    model, learned = prepared(variant, backbone)
    loss, gradients = plain(model, learned)
    monkeypatch.setattr(module, "IMAGES_TOGETHER", 4)
    mask = torch.arange(N) % 3 == 0
    found = whole(model, learned)((mask, ~mask))
    assert found.loss == pytest.approx(loss, rel=1e-6)
    first, second = found.gradients()
    same([a + b for a, b in zip(first, second, strict=True)], gradients, 4e-6)
    assert any(float((a - b).abs().max()) > 0.01 * float(a.abs().max()) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("variant", ["coop", "csc", "kgcoop", "deep", "deep-per-class", "guided"])
def test_in_chunks_of_classes_and_on_the_reference_path(variant: str, backbone: Backbone) -> None:
    model, learned = prepared(variant, backbone)
    loss, gradients = plain(model, learned)
    mask = torch.arange(N) < 8
    chunked, _ = prepared(variant, backbone)
    chunks = whole(chunked, learned)
    assert chunks.shrink() and not chunks.shrink()  # to one class at a time
    slow = whole(prepared(variant, backbone, text_path="reference")[0], learned)
    for other, within in ((chunks, 1e-5), (slow, 2e-5)):
        found = other((mask, ~mask))
        assert found.loss == pytest.approx(loss, rel=1e-5)
        first, second = found.gradients()
        same([a + b for a, b in zip(first, second, strict=True)], gradients, within)


def test_too_little_memory_makes_the_text_pass_smaller(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> None:
    model, learned = prepared("coop", backbone)
    loss, _ = plain(model, learned)
    original, failures = WholeLoss.evaluated, [1]

    def evaluated(self: WholeLoss, parts: Any) -> Any:
        if failures:
            failures.pop()
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(self, parts)

    monkeypatch.setattr(WholeLoss, "evaluated", evaluated)
    assert whole(model, learned)().loss == pytest.approx(loss, rel=1e-5)
    failures += [1] * 9
    with pytest.raises(coopt.errors.TrainingError, match="too little memory for a training step"):
        whole(model, learned)()


def test_too_little_memory_for_the_gradient_makes_the_text_pass_smaller(
    backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, learned = prepared("coop", backbone)
    _, gradients = plain(model, learned)
    mask = torch.arange(N) < 8
    found = whole(model, learned)((mask, ~mask))
    original, calls = torch.autograd.grad, []

    def grad(outputs: Tensor, *rest: Any, **options: Any) -> Any:
        if outputs is found.text and not calls.append(1) and len(calls) == 2:  # with the first half's gradient made
            original(outputs, *rest, **options)  # its activations are spent
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return original(outputs, *rest, **options)

    monkeypatch.setattr(torch.autograd, "grad", grad)
    first, second = found.gradients()
    assert len(calls) == 4 and found.text is None
    same([a + b for a, b in zip(first, second, strict=True)], gradients, 1e-5)


class Toy(TextEncoder):
    """A text pass in double precision."""

    def __init__(self, dim: int) -> None:
        generator = torch.Generator().manual_seed(3)
        self.maps = torch.randn(4, 6, dim, generator=generator, dtype=torch.float64)

    def __call__(self, context: Any = None, deep: Any = (), weights: Any = ()) -> Tensor:
        return torch.einsum("w,cwd->cd", torch.tanh(context.sum(dim=0)), self.maps) + 0.1


@pytest.mark.parametrize("together", [4096, 3])
@pytest.mark.parametrize("weights", [None, WEIGHTS.double()])
def test_in_double_precision_it_is_exact(
    together: int, weights: Tensor | None, backbone: Backbone, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "IMAGES_TOGETHER", together)
    pictures = IMAGES[:, : backbone.embed_dim].double()
    learned = {
        "context": torch.randn(2, 6, generator=torch.Generator().manual_seed(4), dtype=torch.float64).requires_grad_(),
        "beside": torch.ones(4, dtype=torch.float64).requires_grad_(),
    }

    def loss_of(forward: Forward, batch: Batch) -> Tensor:
        scores = forward.logits() * forward.parameters["beside"]
        return batch.cross_entropy(scores) + forward.parameters["context"].square().sum()

    encode = Toy(backbone.embed_dim)
    shared = Sites(backbone, (TextTokens(),), dict, lambda tower, parameters: {}, encode, lambda: torch.empty(0), None)
    batch = Batch(pictures, TARGETS, weights)
    expected = loss_of(Forward(shared, learned, batch), batch)
    gradients = torch.autograd.grad(expected, list(learned.values()))
    mask = torch.arange(N) % 2 == 0
    made = WholeLoss(shared, learned, loss_of, pictures, TARGETS, weights, lambda: False)
    for parts in (None, (mask, ~mask)):
        found = made(parts)
        assert found.loss == pytest.approx(float(expected.detach()), rel=1e-12)
        sums = [sum(ones) for ones in zip(*found.gradients(), strict=True)]
        same(sums, gradients, 1e-10)
