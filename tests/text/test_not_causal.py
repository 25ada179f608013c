"""Towers that are not causal: the packed path and the padded path against the reference path, and what each may leave out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.protocol import Framing
from coopt.errors import ParameterError, UnsupportedBackboneError
from coopt.text.encode import TextEncoder
from coopt.text.layout import POSITIONS, Prompts, context_prompts, template_prompts
from coopt.text.packed import CALL_ROWS, run_lengths
from coopt.text.plain import PlainText
from tests.text.live import LiveBytes
from tests.text.names import class_names
from tests.text.test_fast import NAMES, features_and_gradient, one_by_one, relative
from tests.text.test_memory import many_names, peak
from tests.text.towers import SEEING, masked_backbone, seeing_backbone

N_CTX = 4

MASKED: dict[str, dict[str, Any]] = {
    "bert": {},
    "mean": dict(pooling="mean"),
    "no start": dict(framing=Framing(start=None, end=49407, pad=3)),
    "read at the end": dict(pooling="eos"),
}


@pytest.fixture(scope="module", params=[*MASKED, *SEEING])
def any_backbone(request: pytest.FixtureRequest) -> Backbone:
    made = masked_backbone(**MASKED[request.param]) if request.param in MASKED else seeing_backbone(request.param)
    made.name = request.param
    return made


@pytest.fixture(scope="module", params=["bert", "siglip"])
def backbone_of_each(request: pytest.FixtureRequest) -> Backbone:
    return masked_backbone() if request.param == "bert" else seeing_backbone()


def path_of(backbone: Backbone) -> str:
    return "packed" if backbone.text.any_length else "padded"


def drawn(backbone: Backbone, *shape: int, seed: int = 3) -> Tensor:
    return torch.randn(*shape, backbone.text.width, generator=torch.Generator().manual_seed(seed)) * 0.3


def compare(backbone: Backbone, prompts: Prompts, context: Tensor, ours: TextEncoder | None = None) -> None:
    reference = TextEncoder(backbone, prompts, path="reference")
    ours = ours or TextEncoder(backbone, prompts)
    assert (reference.path, ours.path) == ("reference", path_of(backbone))
    with torch.no_grad():
        shape = reference(context).shape
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    features, gradient = features_and_gradient(reference, context, weight)
    our_features, our_gradient = features_and_gradient(ours, context, weight)
    assert our_features.shape == features.shape
    assert relative(our_features, features) < 3e-6
    assert relative(our_gradient, gradient) < 1e-5
    # No vector is without effect, so the comparison cannot pass for want of a gradient.
    assert bool((gradient.abs().amax(-1) > 1e-4 * gradient.abs().max()).all())


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("csc", [False, True], ids=["unified", "csc"])
def test_equal_to_the_reference_path(any_backbone: Backbone, position: Any, csc: bool) -> None:
    prompts = context_prompts(any_backbone, NAMES, N_CTX, position, csc)
    compare(any_backbone, prompts, drawn(any_backbone, *((len(NAMES), N_CTX) if csc else (N_CTX,))))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_groups_of_contexts(backbone_of_each: Backbone, position: Any, chunked: bool) -> None:
    prompts = context_prompts(backbone_of_each, NAMES, N_CTX, position)
    encoder = TextEncoder(backbone_of_each, prompts)
    compare(backbone_of_each, prompts, drawn(backbone_of_each, 3, N_CTX), one_by_one(encoder, 3) if chunked else None)


@pytest.mark.parametrize("csc", [False, True], ids=["unified", "csc"])
def test_chunks(backbone_of_each: Backbone, csc: bool) -> None:
    prompts = context_prompts(backbone_of_each, NAMES, N_CTX, "middle", csc)
    context = drawn(backbone_of_each, *((len(NAMES), N_CTX) if csc else (N_CTX,)))
    compare(backbone_of_each, prompts, context, one_by_one(TextEncoder(backbone_of_each, prompts)))


@pytest.mark.parametrize("template", ["a photo of a {}.", "{}"])
def test_templates(any_backbone: Backbone, template: str) -> None:
    prompts = template_prompts(any_backbone, NAMES, template)
    expected = TextEncoder(any_backbone, prompts, path="reference")()
    for learning in (False, True):
        assert relative(TextEncoder(any_backbone, prompts, learning=learning)(), expected) < 3e-6


@settings(max_examples=20, deadline=None)
@given(
    names=class_names(longest=6),
    n_ctx=st.integers(1, 8),
    position=st.sampled_from(POSITIONS),
    csc=st.booleans(),
)
def test_any_names_any_layout(
    backbone_of_each: Backbone, names: list[str], n_ctx: int, position: Any, csc: bool
) -> None:
    prompts = context_prompts(backbone_of_each, names, n_ctx, position, csc)
    compare(backbone_of_each, prompts, drawn(backbone_of_each, *((len(names), n_ctx) if csc else (n_ctx,))))


CASES: dict[str, tuple[tuple[int, ...], int | None, bool]] = {
    "shared": ((1, 2), None, False),
    "by groups": ((1,), None, True),
    "class-specific": ((1, 2), 1, False),
    "by groups, then class-specific": ((1, 2), 2, True),
}


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("csc", [False, True], ids=["unified", "csc"])
def test_deep_prompts(backbone_of_each: Backbone, case: str, csc: bool) -> None:
    deep, start, grouped = CASES[case]
    if csc and grouped:
        return  # a class's own context has no groups
    backbone = masked_backbone(layers=3) if backbone_of_each.text.any_length else backbone_of_each
    prompts = context_prompts(backbone, NAMES, N_CTX, "middle", csc)
    sets = (3,) if grouped else ()
    shapes = {0: (len(NAMES), N_CTX) if csc else (*sets, N_CTX)}
    specific = [block for block in deep if csc or (start is not None and block >= start)]
    shapes |= {block: (len(NAMES), N_CTX) if block in specific else (*sets, N_CTX) for block in deep}
    results = []
    for path in ("auto", "reference", "auto"):
        encoder = TextEncoder(backbone, prompts, path=path, deep=deep, per_class_from=start)  # type: ignore[arg-type]
        encoder = one_by_one(encoder, 3 if grouped else 1) if len(results) == 2 else encoder
        leaves = {block: drawn(backbone, *shape, seed=block).requires_grad_() for block, shape in shapes.items()}
        features = encoder(leaves[0], deep={block: leaves[block] for block in deep})
        weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(5))
        (features * weight).sum().backward()
        results.append([features.detach(), *(one.grad for one in leaves.values())])
    for ours in (results[0], results[2]):
        for one, expected in zip(ours, results[1], strict=True):
            assert relative(one, expected) < 1e-5


def test_exchanged_weights_on_the_packed_path() -> None:
    backbone = masked_backbone()
    prompts = context_prompts(backbone, NAMES, N_CTX)
    name = "blocks.1.linear1.weight"
    weight, context = dict(backbone.text.named_parameters())[name] * 1.1, drawn(backbone, N_CTX)
    results = []
    for path in ("auto", "reference"):
        encoder = TextEncoder(backbone, prompts, path=path, weights=[name])  # type: ignore[arg-type]
        leaf = weight.clone().requires_grad_()
        features = encoder(context, weights={name: leaf})
        features.square().sum().backward()
        results.append((encoder.path, features.detach(), leaf.grad))
    (path, *ours), (_, *expected) = results
    assert path == "packed"
    for one, other in zip(ours, expected, strict=True):
        assert relative(one, other) < 1e-5
    assert TextEncoder(seeing_backbone(), prompts, weights=["ln_final.weight"]).path == "reference"


def test_bf16(backbone_of_each: Backbone) -> None:
    prompts, context = context_prompts(backbone_of_each, NAMES, N_CTX), drawn(backbone_of_each, N_CTX)
    weight = torch.randn(len(NAMES), backbone_of_each.embed_dim, generator=torch.Generator().manual_seed(5))
    exact = features_and_gradient(TextEncoder(backbone_of_each, prompts), context, weight)
    encoder = TextEncoder(backbone_of_each, prompts, precision="bf16")
    assert encoder.path == path_of(backbone_of_each)
    half = features_and_gradient(encoder, context, weight)
    assert half[0].dtype is torch.float32
    assert 0 < relative(half[0], exact[0]) < 0.03 and 0 < relative(half[1], exact[1]) < 0.1


@pytest.mark.parametrize("position", POSITIONS)
def test_what_is_seen_changes_the_feature_and_nothing_else(any_backbone: Backbone, position: Any) -> None:
    """Every context vector, every name token and, where it is seen, every pad."""
    tower = any_backbone.text
    prompts = context_prompts(any_backbone, ["red cat", "old oak tree"], 2, position)
    framing, lengths = prompts.framing, prompts.lengths.tolist()
    context = drawn(any_backbone, 2)
    encoder = TextEncoder(any_backbone, prompts)
    before = encoder(context)
    for i in range(2):
        moved = (encoder(context + drawn(any_backbone, 2, seed=9) * (torch.arange(2) == i)[:, None]) - before).norm(
            dim=-1
        )
        assert bool((moved > 1e-4 * before.norm(dim=-1)).all())
    for column in range(prompts.token_ids.shape[1]):
        ids = prompts.token_ids.clone()
        ids[0, column] = 320 + column
        if (
            prompts.context_index[0, column] >= 0
            or (framing.start is not None and column == 0)
            or column == lengths[0] - 1
        ):
            continue
        other = Prompts(ids, prompts.context_index, prompts.lengths, framing)
        if column < lengths[0]:
            features = TextEncoder(any_backbone, other)(context)
            assert (features[0] - before[0]).norm() > 1e-4 * before[0].norm()
            assert relative(features[1], before[1]) < 1e-6
    full = torch.full((1, tower.context_length), framing.pad)
    full[0, : lengths[0]] = torch.where(
        prompts.context_index[0, : lengths[0]] < 0, prompts.token_ids[0, : lengths[0]], framing.placeholder
    )
    vectors = tower.embed(full)
    vectors[0, : len(prompts.context_index[0])][prompts.context_index[0] >= 0] = context
    assert relative(tower(vectors, full)[0], before[0]) < 3e-6
    pads = vectors.clone()
    pads[0, lengths[0] :] += drawn(any_backbone, 1)
    moved = relative(tower(pads, full)[0], before[0])
    assert (moved > 1e-4) == (path_of(any_backbone) == "padded") and (moved < 3e-6 or moved > 1e-4)


def test_padding_and_end_may_be_one_token() -> None:
    """The first end is where a prompt is read out, and a context slot is neither."""
    framing = Framing(start=None, end=49407, pad=49407)
    assert framing.placeholder not in (framing.end, framing.pad)
    assert Framing(start=1, end=0, pad=0).placeholder == 1 and Framing(start=0, end=2, pad=1).placeholder == 0
    backbone = seeing_backbone("siglip", pool_type="eos", eos_id=49407)
    for position in POSITIONS:
        prompts = context_prompts(backbone, NAMES, N_CTX, position)
        compare(backbone, prompts, drawn(backbone, N_CTX))


def test_work_follows_the_lengths() -> None:
    masked, seeing = masked_backbone(), seeing_backbone()
    names = ["cat", "dog"] * 40 + ["red cat"] * 40
    packed = TextEncoder(masked, context_prompts(masked, names, 4))
    assert packed.rows == 80 * 8 + 40 * 9
    reference = TextEncoder(masked, context_prompts(masked, names, 4), path="reference")
    assert packed.operations * 120 * 40 == reference.operations * packed.rows
    assert packed.estimate().kept < reference.estimate().kept / 4
    assert packed.groups_at_once > 1 == reference.groups_at_once
    padded = TextEncoder(seeing, context_prompts(seeing, names, 4))
    assert (
        padded.rows == 120 * 32
        and padded.operations < 0.6 * TextEncoder(seeing, padded.prompts, path="reference").operations
    )


def test_lengths_that_run_together() -> None:
    assert run_lengths(torch.tensor([5, 5, 5])).tolist() == [5, 5, 5]
    few = torch.tensor([5, 6, 9, 40])
    assert run_lengths(few).tolist() == [9, 9, 9, 40]
    many = torch.tensor([8] * (2 * CALL_ROWS) + [9] * (2 * CALL_ROWS) + [11])
    together = run_lengths(many)
    assert together.unique().tolist() == [8, 9, 11] and bool((together >= many).all())


@pytest.mark.parametrize("kind", ["packed", "padded"])
@pytest.mark.parametrize(("precision", "csc"), [("fp32", False), ("bf16", True)])
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_a_step_holds_what_was_estimated(kind: str, precision: Any, csc: bool, chunked: bool) -> None:
    backbone = masked_backbone() if kind == "packed" else seeing_backbone()
    prompts = context_prompts(backbone, many_names(50), 4, "end", csc)
    whole = TextEncoder(backbone, prompts, precision=precision, batch=8)
    memory = 2 * whole.least_memory if chunked else "auto"
    encoder = TextEncoder(backbone, prompts, precision=precision, batch=8, memory=memory)
    assert encoder.path == kind and (encoder.estimate().chunks > 1) == chunked
    held = peak(backbone, encoder, 4)
    assert 0.3 * encoder.estimate().tensors < held <= encoder.estimate().tensors
    if chunked:
        assert encoder.estimate().total <= memory


def test_without_a_gradient_nothing_is_kept() -> None:
    backbone = seeing_backbone()
    prompts = template_prompts(backbone, [f"cat {i}" for i in range(60)], "a photo of a {}.")
    encoder = TextEncoder(backbone, prompts, learning=False)
    with torch.no_grad(), LiveBytes(backbone) as live:
        encoder()
    assert 0.3 * encoder.estimate().tensors < live.peak <= encoder.estimate().tensors


def test_the_fast_path_is_refused_with_what_is_exact(backbone_of_each: Backbone) -> None:
    prompts = context_prompts(backbone_of_each, NAMES, N_CTX)
    with pytest.raises(ParameterError, match=rf"not exact for .*\(here the {path_of(backbone_of_each)} path\)"):
        TextEncoder(backbone_of_each, prompts, path="fast")
    with pytest.raises(UnsupportedBackboneError, match="There is no plain text pass of the text tower"):
        PlainText(backbone_of_each, prompts)


def test_slots_without_a_context_are_refused(backbone_of_each: Backbone) -> None:
    encoder = TextEncoder(backbone_of_each, context_prompts(backbone_of_each, NAMES, N_CTX))
    with pytest.raises(ParameterError, match="slots for context vectors. Got no context"):
        encoder()
