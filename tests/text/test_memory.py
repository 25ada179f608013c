"""Memory as a promise: what is estimated against what is allocated, and what happens when it is too little."""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy, normalize

from coopt import CoCoOp, CoOp
from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.runtime import Runtime
from coopt.text import memory
from coopt.text.encode import TextEncoder
from coopt.text.layout import context_prompts, template_prompts
from coopt.text.memory import ALLOCATOR, DEFAULT_MEMORY, LEAST_AUTOMATIC, automatic_memory, bytes_of, text_of
from tests.models import small_open_clip
from tests.text.live import LiveBytes

CPU = torch.device("cpu")


def many_names(count: int) -> list[str]:
    """Names of two to nine tokens."""
    return [" ".join(["red", "car"] * (i % 4)) + f" cat {i}" for i in range(count)]


def peak(backbone: Backbone, encoder: TextEncoder, n_ctx: int) -> int:
    """The most bytes that a training step holds, the first one, which makes the plans."""
    classes, width = len(encoder.prompts), backbone.text.width
    shape = (classes, n_ctx, width) if encoder.prompts.class_specific else (n_ctx, width)
    with LiveBytes(backbone) as live:
        context = (0.02 * torch.randn(*shape)).requires_grad_()
        images = torch.randn(encoder.batch, backbone.embed_dim)
        text = normalize(encoder(context), dim=-1)
        cross_entropy(100 * normalize(images, dim=-1) @ text.T, torch.zeros(encoder.batch, dtype=torch.long)).backward()
    return live.peak


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("csc", [False, True], ids=["unified", "csc"])
@pytest.mark.parametrize(
    "tower", [{}, {"layers": 6, "width": 128, "heads": 4}, {"custom": True, "ls_init_value": 1.0}], ids=str
)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_a_step_holds_what_was_estimated(chunked: bool, tower: dict[str, Any], csc: bool, precision: str) -> None:
    """The tensors never take more, and at least half of it."""
    backbone = small_open_clip(**tower)
    prompts = context_prompts(backbone, many_names(50), 4, "end", csc)
    options: dict[str, Any] = {"precision": precision, "batch": 8}
    whole = TextEncoder(backbone, prompts, **options)
    memory = 2 * whole.least_memory if chunked else "auto"
    encoder = TextEncoder(backbone, prompts, memory=memory, **options)
    estimate = encoder.estimate()
    assert (estimate.chunks > 1) == chunked and (not chunked or estimate.total <= memory)
    assert 0.5 * estimate.tensors < peak(backbone, encoder, 4) <= estimate.tensors


def test_the_promise_is_for_the_process(backbone: Backbone) -> None:
    """The heap's holes count, and the weights' copies."""
    prompts = context_prompts(backbone, many_names(9), 4)
    whole, halved = (TextEncoder(backbone, prompts, precision=one).estimate() for one in ("fp32", "bf16"))
    assert whole.total == math.ceil(whole.allocator * whole.tensors) and whole.weights == 0
    copies = [*TextEncoder(backbone, prompts, precision="bf16")._fast.blocks]
    matrices = [
        one for block in copies for one in (block.qkv_weight, block.out_proj.weight, block.fc.weight, block.proj.weight)
    ]
    assert halved.weights == 1.5 * 2 * sum(one.numel() for one in matrices)  # and what is compiled for them
    assert halved.total == math.ceil(halved.allocator * halved.tensors) + halved.weights
    assert halved.allocator > whole.allocator == ALLOCATOR


@pytest.mark.parametrize("batch", [1, 3000])
def test_logits_count(backbone: Backbone, batch: int) -> None:
    encoder = TextEncoder(backbone, context_prompts(backbone, many_names(30), 4), batch=batch)
    assert 0.5 * encoder.estimate().tensors < peak(backbone, encoder, 4) <= encoder.estimate().tensors


def test_the_reference_path_keeps_its_promise_too(backbone: Backbone) -> None:
    prompts = context_prompts(backbone, many_names(9), 4)
    encoder = TextEncoder(backbone, prompts, path="reference")
    chunked = TextEncoder(backbone, prompts, path="reference", memory=encoder.estimate().total // 2)
    assert chunked.estimate().chunks > 1
    for one in (encoder, chunked):
        assert 0.3 * one.estimate().tensors < peak(backbone, one, 4) <= one.estimate().tensors


@pytest.mark.parametrize("classes", [100, 400])
def test_memory_does_not_grow_with_the_classes(backbone: Backbone, classes: int) -> None:
    encoder = TextEncoder(backbone, context_prompts(backbone, many_names(classes), 4), memory="2.2M", batch=2)
    assert encoder.estimate().chunks > 1
    assert peak(backbone, encoder, 4) <= 2_200_000 / ALLOCATOR


def test_without_a_gradient_nothing_is_kept(backbone: Backbone) -> None:
    prompts = template_prompts(backbone, many_names(80), "a photo of a {}.")
    encoder = TextEncoder(backbone, prompts, learning=False)
    with torch.no_grad(), LiveBytes(backbone) as live:
        encoder()
    assert 0.3 * encoder.estimate().tensors < live.peak <= encoder.estimate().tensors
    assert encoder.estimate().total < TextEncoder(backbone, prompts).estimate().total


def test_images_together_in_cocoop(backbone: Backbone) -> None:
    model = CoCoOp(backbone, n_ctx=2, runtime=Runtime(memory="3M"), recipe={"batch_size": 8})
    needed = model.step_bytes(backbone, many_names(20))
    assert needed <= 3_000_000
    model.check_parameters()
    model._set_classes(backbone, many_names(20), named=True)
    with LiveBytes(backbone) as live:
        learned = {name: tensor.requires_grad_() for name, tensor in model.initial().items()}
        images, targets = torch.randn(8, backbone.embed_dim), torch.arange(8)
        model._objective(learned).loss_of(images, targets).backward()
    assert 0.4 * needed < ALLOCATOR * live.peak <= 3_000_000


def test_the_least_memory_is_named_and_is_enough(backbone: Backbone) -> None:
    prompts = context_prompts(backbone, many_names(12), 4)
    with pytest.raises(ParameterError, match=r"must be at least \S+ here.*12 classes, 7 images.*Got 10K") as found:
        TextEncoder(backbone, prompts, memory=10_000, batch=7)
    named = str(found.value).split("at least ")[1].split()[0]
    encoder = TextEncoder(backbone, prompts, memory=named, batch=7)
    assert encoder.least_memory <= encoder.memory < 1.02 * encoder.least_memory  # type: ignore[operator]
    assert encoder.estimate().total <= encoder.memory  # type: ignore[operator]


def test_memory_decides_nothing_that_is_learned(backbone: Backbone) -> None:
    names = many_names(30)
    features, labels = torch.randn(60, backbone.embed_dim, generator=torch.Generator().manual_seed(0)), names * 2
    options: dict[str, Any] = {"n_ctx": 2, "recipe": {"epochs": 5}}
    whole = CoOp(backbone, **options).fit(features, labels)
    least = CoOp(backbone, **options, runtime=Runtime(memory="6M"))
    assert least.step_bytes(backbone, names) <= 6_000_000 < whole.step_bytes(backbone, names) * 2
    least.fit(features, labels)
    assert isinstance(whole, CoOp) and isinstance(least, CoOp)
    assert (whole.context_ - least.context_).norm() < 1e-4 * whole.context_.norm()
    assert whole.parameters == least.parameters and "memory" not in least.parameters


def test_halving(backbone: Backbone) -> None:
    encoder = TextEncoder(backbone, context_prompts(backbone, many_names(8), 2))
    sizes = [encoder.estimate().chunk]
    while encoder.shrink():
        sizes.append(encoder.estimate().chunk)
    assert encoder.estimate().chunks == 8 and len(sizes) > 2
    assert all(after <= before / 2 for before, after in pairwise(sizes[:-1]))


def test_groups_are_halved_first(backbone: Backbone) -> None:
    encoder = TextEncoder(backbone, context_prompts(backbone, many_names(8), 2))
    assert encoder.groups_at_once > 8
    seen = []
    for groups in (8, 4, 2):
        assert encoder.shrink(groups)
        seen.append(encoder.groups_at_once)
    assert seen == [4, 2, 1] and encoder.estimate().chunks == 1
    assert encoder.shrink(1) and encoder.estimate().chunks > 1


@pytest.mark.parametrize(
    ("given", "expected"), [("auto", None), (5, 5), ("4G", 4 * 10**9), ("1.5 gb", 1_500_000_000), ("300M", 3 * 10**8)]
)
def test_sizes(given: int | str, expected: int | None) -> None:
    assert bytes_of(given) == expected


@pytest.mark.parametrize("given", [0, -1, "", "much", "4X", "0G", True, 1.5])
@pytest.mark.usefixtures("unchecked")
def test_sizes_that_are_none(given: Any) -> None:
    with pytest.raises(
        ParameterError, match="'memory' parameter of the method must be 'auto', a number of bytes, or a text such as"
    ):
        bytes_of(given)


@pytest.mark.parametrize("size", [1, 999, 10**6, 123_456_789, 999_999_999, 10**12 + 1])
def test_sizes_as_text_are_never_less(size: int) -> None:
    assert size <= bytes_of(text_of(size)) <= 1.01 * size + 1000  # type: ignore[operator]


def test_automatic_memory_is_the_same_unless_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    def free(n_bytes: int | None) -> int:
        monkeypatch.setattr(memory, "free_memory", lambda device: n_bytes)
        return automatic_memory(CPU)

    assert free(None) == free(100 * DEFAULT_MEMORY) == free(2 * DEFAULT_MEMORY) == DEFAULT_MEMORY
    assert free(2 * DEFAULT_MEMORY - 2) == DEFAULT_MEMORY // 2
    assert LEAST_AUTOMATIC // 2 <= free(1) <= LEAST_AUTOMATIC
