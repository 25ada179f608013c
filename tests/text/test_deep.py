"""Vectors at the input of blocks: the fast path against the reference path, and what they cost."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.text.encode import TextEncoder
from coopt.text.layout import POSITIONS, Prompts, context_prompts, template_prompts
from tests.models import small_open_clip
from tests.text.live import LiveBytes
from tests.text.test_fast import NAMES, one_by_one
from tests.text.test_memory import many_names

M = 4
GROUPS = 3

KINDS = {
    "clip": dict(),
    "layerscale": dict(custom=True, ls_init_value=1.0),
    "tanh-gelu": dict(custom=True, act_kwargs={"approximate": "tanh"}),
}


def in_float64(backbone: Backbone) -> Backbone:
    backbone.text.double()
    return backbone


@pytest.fixture(scope="module", params=KINDS)
def exact(request: pytest.FixtureRequest) -> Backbone:
    """A tower of five blocks in float64, where the two paths may differ by nothing but rounding."""
    return in_float64(small_open_clip(layers=5, **KINDS[request.param]))


# Which blocks, from which on class-specific, and whether vectors before that are one set for each group.
CASES: dict[str, tuple[tuple[int, ...], int | None, bool]] = {
    "shared": ((1, 3), None, False),
    "shared in the last block": ((4,), None, False),
    "shared by groups": ((1, 2), None, True),
    "class-specific": ((2, 3), 2, False),
    "class-specific from the first on": ((1, 2, 3, 4), 1, False),
    "class-specific in the last block": ((1, 4), 4, False),
    "shared, then class-specific": ((1, 2, 3), 3, False),
    "by groups, then class-specific": ((1, 2, 4), 2, True),
}


def drawn(shape: tuple[int, ...], seed: int, like: Backbone) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(*shape, like.text.width, generator=generator).to(next(like.text.parameters()).dtype)


def vectors_of(backbone: Backbone, encoder: TextEncoder, grouped: bool) -> tuple[Tensor, dict[int, Tensor]]:
    classes, start = len(encoder.prompts), encoder._per_class_from
    sets = (GROUPS,) if grouped else ()
    context = drawn((classes, M) if encoder.prompts.class_specific else (*sets, M), 1, backbone)
    specific = {block: start is not None and block >= start for block in encoder.deep}
    return context, {b: drawn((classes, M) if specific[b] else (*sets, M), 10 + b, backbone) for b in encoder.deep}


def features_and_gradients(encoder: TextEncoder, context: Tensor, deep: dict[int, Tensor]) -> list[Tensor]:
    leaves = [one.clone().requires_grad_() for one in (context, *deep.values())]
    features = encoder(leaves[0], deep=dict(zip(deep, leaves[1:], strict=True)))
    weight = torch.randn(features.shape, generator=torch.Generator().manual_seed(5)).to(features.dtype)
    (features * weight).sum().backward()
    return [features.detach(), *(one.grad for one in leaves if one.grad is not None)]


def compare(backbone: Backbone, prompts: Prompts, case: str, chunked: bool, tolerance: float) -> None:
    deep, start, grouped = CASES[case]
    reference, fast = (
        TextEncoder(backbone, prompts, path=path, deep=deep, per_class_from=start) for path in ("reference", "fast")
    )
    context, vectors = vectors_of(backbone, fast, grouped)
    expected = features_and_gradients(reference, context, vectors)
    if chunked:
        one_by_one(fast, GROUPS if grouped else 1)
    ours = features_and_gradients(fast, context, vectors)
    assert len(ours) == len(expected) == 2 + len(deep)
    for one, other in zip(ours, expected, strict=True):
        assert one.shape == other.shape
        assert float((one - other).norm() / other.norm()) < tolerance
    assert all(float(one.abs().max()) > 0 for one in expected)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_fast_path_equals_reference(exact: Backbone, case: str, chunked: bool) -> None:
    compare(exact, context_prompts(exact, NAMES, M, "middle"), case, chunked, 1e-10)


@pytest.mark.parametrize("position", [one for one in POSITIONS if one != "middle"])
@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_fast_path_equals_reference_in_other_positions(position: Any, case: str, chunked: bool) -> None:
    backbone = in_float64(small_open_clip(layers=5))
    compare(backbone, context_prompts(backbone, NAMES, M, position), case, chunked, 1e-10)


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_class_specific_prompts(exact: Backbone, position: Any, chunked: bool) -> None:
    """Their vectors are class-specific at every block."""
    prompts = context_prompts(exact, NAMES, M, position, class_specific=True)
    compare(exact, prompts, "shared", chunked, 1e-10)


def test_without_a_start_token() -> None:
    """Nothing is shared any more once vectors are class-specific: the prefix is empty then."""
    backbone = in_float64(small_open_clip(layers=5, start_token=False))
    compare(backbone, context_prompts(backbone, NAMES, M), "shared, then class-specific", False, 1e-10)


def test_vectors_at_a_block_replace_what_the_context_became(exact: Backbone) -> None:
    """At the last block the context is seen by nobody but through what other tokens made of it before."""
    prompts = context_prompts(exact, NAMES, M)
    plain, deep = TextEncoder(exact, prompts), TextEncoder(exact, prompts, deep=(1,))
    context, other = drawn((M,), 1, exact), drawn((M,), 2, exact)
    assert not torch.allclose(plain(context), deep(context, deep={1: other}))
    assert not torch.allclose(deep(context, deep={1: other}), deep(other, deep={1: other}))


@pytest.mark.parametrize("case", ["shared", "shared, then class-specific"])
def test_bf16_is_close(case: str) -> None:
    backbone = small_open_clip(layers=5)
    deep, start, grouped = CASES[case]
    prompts = context_prompts(backbone, NAMES, M)
    made = [
        TextEncoder(backbone, prompts, deep=deep, per_class_from=start, precision=precision)
        for precision in ("fp32", "bf16", "bf16")
    ]
    one_by_one(made[2])
    context, vectors = vectors_of(backbone, made[0], grouped)
    whole, *half = (features_and_gradients(encoder, context, vectors) for encoder in made)
    for other in half:
        assert other[0].dtype is torch.float32
        for one, exactly in zip(other, whole, strict=True):
            assert 0 < float((one - exactly).norm() / exactly.norm()) < 0.05


def test_what_is_shared_is_computed_once_until_it_is_not(exact: Backbone) -> None:
    prompts = context_prompts(exact, ["cat", "dog"], M)
    shared = TextEncoder(exact, prompts, deep=(2,))
    specific = TextEncoder(exact, prompts, deep=(2,), per_class_from=2)
    assert shared.rows == specific.rows == (1 + M) + 2 * 3
    assert [(stage.block, stage.prefix) for stage in specific._stages] == [(0, 1 + M), (2, 1)]
    assert specific._stages[1].tails.tolist() == [M + 3, M + 3]
    assert shared.operations < specific.operations
    # In front of the context there is nothing to be grouped anew.
    assert len(TextEncoder(exact, context_prompts(exact, NAMES, M, "front"), deep=(2,), per_class_from=2)._stages) == 1


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("case", ["shared", "class-specific", "shared, then class-specific"])
@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_a_step_holds_what_was_estimated(case: str, precision: Any, chunked: bool) -> None:
    backbone = small_open_clip(layers=5)
    deep, start, grouped = CASES[case]
    options: dict[str, Any] = {"deep": deep, "per_class_from": start, "precision": precision, "batch": 8}
    prompts = context_prompts(backbone, many_names(50), M)
    memory = 2 * TextEncoder(backbone, prompts, **options).least_memory if chunked else "auto"
    encoder = TextEncoder(backbone, prompts, memory=memory, **options)
    estimate = encoder.estimate()
    assert (estimate.chunks > 1) == chunked
    with LiveBytes(backbone) as live:
        context, vectors = vectors_of(backbone, encoder, grouped)
        for one in (context, *vectors.values()):
            one.requires_grad_()
        text = normalize(encoder(context, deep=vectors), dim=-1)
        images = normalize(torch.randn(8, backbone.embed_dim), dim=-1)
        cross_entropy(100 * images @ text.T, torch.zeros(8, dtype=torch.long)).backward()
    assert 0.45 * estimate.tensors < live.peak <= estimate.tensors


@pytest.mark.parametrize("blocks", [(0,), (3,), (1, 7)])
def test_blocks_that_are_none(backbone: Backbone, blocks: tuple[int, ...]) -> None:
    last = backbone.text.depth - 1
    with pytest.raises(ParameterError, match=f"must name blocks from 1 to {last}. Got"):
        TextEncoder(backbone, context_prompts(backbone, NAMES, M), deep=tuple(b if b < 3 else b + last for b in blocks))


def test_vectors_for_other_blocks_are_refused(backbone: Backbone) -> None:
    encoder = TextEncoder(backbone, context_prompts(backbone, NAMES, M), deep=(1,))
    context = drawn((M,), 1, backbone)
    with pytest.raises(ParameterError, match=r"Got vectors for the blocks \[\] .* made for the blocks \[1\]"):
        encoder(context)


# ---- other weights


def test_weights_of_the_tower_can_be_learned() -> None:
    """On the reference path; values and gradients, in chunks too, against finite differences."""
    backbone = in_float64(small_open_clip())
    name = "transformer.resblocks.1.mlp.c_fc.weight"
    weight = dict(backbone.text.named_parameters())[name].detach()
    prompts = context_prompts(backbone, NAMES[:3], 2)
    whole, chunked = (TextEncoder(backbone, prompts, weights=[name]) for _ in range(2))
    one_by_one(chunked)
    assert whole.path == "reference"
    context = drawn((2,), 1, backbone)
    assert torch.equal(whole(context), TextEncoder(backbone, prompts, path="reference")(context))
    results = []
    for encoder in (whole, chunked):
        delta = torch.zeros_like(weight).requires_grad_()
        features = encoder(context, weights={name: weight + delta})
        features[0, 0].backward()
        results.append((features.detach(), delta.grad))
    assert torch.allclose(results[0][0], results[1][0], atol=1e-12)
    assert torch.allclose(results[0][1], results[1][1], atol=1e-12)  # type: ignore[arg-type]
    step = torch.zeros_like(weight)
    step[3, 5] = 1e-5
    above, below = (whole(context, weights={name: weight + sign * step})[0, 0] for sign in (1, -1))
    assert float(results[0][1][3, 5]) == pytest.approx(float(above - below) / 2e-5, rel=1e-5)  # type: ignore[index]
    with pytest.raises(ParameterError, match=r"not exact for test:CLIP with other weights"):
        TextEncoder(backbone, prompts, weights=[name], path="fast")
    with pytest.raises(ParameterError, match=r"has no weights \['nothing'\] to be exchanged"):
        TextEncoder(backbone, prompts, weights=["nothing"])


@pytest.mark.parametrize("chunked", [False, True], ids=["whole", "chunks"])
def test_a_step_that_learns_weights_holds_what_was_estimated(chunked: bool) -> None:
    backbone = small_open_clip(layers=3)
    names = [
        f"transformer.resblocks.{i}.{part}" for i in range(3) for part in ("attn.in_proj_weight", "mlp.c_fc.weight")
    ]
    weights = {name: one.detach().clone() for name, one in backbone.text.named_parameters() if name in names}
    prompts = context_prompts(backbone, many_names(9), M)
    whole = TextEncoder(backbone, prompts, weights=names).estimate().total
    encoder = TextEncoder(backbone, prompts, weights=names, memory=whole // 2 if chunked else "auto")
    assert (encoder.estimate().chunks > 1) == chunked
    with LiveBytes(backbone) as live:
        deltas = {name: (one + 0).requires_grad_() for name, one in weights.items()}
        encoder(drawn((M,), 1, backbone), weights=deltas).sum().backward()
    assert 0.3 * encoder.estimate().tensors < live.peak <= encoder.estimate().tensors


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("tower", [{}, {"custom": True, "ls_init_value": 1.0}], ids=str)
def test_weights_of_attention_take_the_fast_path(tower: dict[str, Any], precision: str) -> None:
    backbone = small_open_clip(**tower)
    names = [name for name, _ in backbone.text.named_parameters() if name.endswith("attn.in_proj_weight")]
    frozen = {name: one for name, one in backbone.text.named_parameters() if name in names}
    prompts = template_prompts(backbone, NAMES, "a photo of a {}.")
    generator = torch.Generator().manual_seed(4)
    found = []
    for path, some in (("auto", names), ("reference", names)):
        options: dict[str, Any] = {"weights": some, "precision": precision}
        whole = TextEncoder(backbone, prompts, path=path, **options)
        parts = TextEncoder(backbone, prompts, path=path, memory=whole.least_memory * 2, **options)
        assert whole.path == ("fast" if path == "auto" else "reference")
        for encoder in (whole, parts):
            changed = {
                name: (one + 0.02 * torch.randn(one.shape, generator=generator.manual_seed(i))).requires_grad_()
                for i, (name, one) in enumerate(frozen.items())
            }
            features = encoder(weights=changed)
            wanted = torch.randn(features.shape, generator=generator.manual_seed(99))
            found.append([features.detach(), *torch.autograd.grad((features * wanted).sum(), list(changed.values()))])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert (one - other).norm() <= (1e-5 if precision == "fp32" else 0.03) * other.norm()
    assert (found[0][0] - TextEncoder(backbone, prompts)()).abs().max() > 1e-2


def test_attention_that_is_learned_on_the_fast_path_holds_what_was_estimated() -> None:
    backbone = small_open_clip(layers=4)
    names = [name for name, _ in backbone.text.named_parameters() if name.endswith("attn.in_proj_weight")]
    frozen = {name: one.detach().clone() for name, one in backbone.text.named_parameters() if name in names}
    prompts = template_prompts(backbone, [f"{i} cats" for i in range(60)], "a photo of a {}.")
    for memory in ("auto", TextEncoder(backbone, prompts, weights=names).estimate().total // 2):
        encoder = TextEncoder(backbone, prompts, weights=names, memory=memory)
        assert encoder.path == "fast" and (encoder.estimate().chunks > 1) == (memory != "auto")
        with LiveBytes(backbone) as live:
            changed = {name: (one + 0).requires_grad_() for name, one in frozen.items()}
            encoder(weights=changed).sum().backward()
        assert 0.3 * encoder.estimate().tensors < live.peak <= encoder.estimate().tensors
