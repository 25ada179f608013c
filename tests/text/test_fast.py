"""The fast path against the reference path: features and gradients."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from coopt.backbones import Backbone
from coopt.errors import ParameterError
from coopt.text.encode import TextEncoder
from coopt.text.layout import POSITIONS, Prompts, context_prompts, template_prompts
from tests.models import small_open_clip
from tests.text.names import class_names

NAMES = [
    "forest_road",
    "T-shirt/top",
    "crane (bird)",
    "crème brûlée",
    "cat",
    "cat flap",
    "o'clock",
    "person playing the violin in a very long class name that goes on",
]

KINDS = {
    "clip": dict(),
    "clip-quickgelu": dict(quick_gelu=True),
    "custom-text": dict(custom=True),
    "custom-text-layerscale": dict(custom=True, ls_init_value=1.0),
    "custom-text-linear-projection": dict(custom=True, proj_bias=True),
    "tanh-gelu": dict(custom=True, act_kwargs={"approximate": "tanh"}),
    "end-by-id": dict(pool_type="eos", eos_id=49407),
    "short-context": dict(custom=True, context_length=40),
}


@pytest.fixture(scope="module", params=["openai", *KINDS])
def any_backbone(request: pytest.FixtureRequest, backbone: Backbone) -> Backbone:
    return backbone if request.param == "openai" else small_open_clip(**KINDS[request.param])


def features_and_gradient(encoder: TextEncoder, context: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """The features, and the gradient of a sum of them that weighs every value differently."""
    context = context.clone().requires_grad_()
    features = encoder(context)
    (features * weight).sum().backward()
    assert context.grad is not None
    return features.detach(), context.grad


def relative(a: Tensor, b: Tensor) -> float:
    return float((a - b).norm() / b.norm())


def one_by_one(encoder: TextEncoder, groups: int = 1) -> TextEncoder:
    """The encoder with every class in a chunk of its own."""
    while encoder.shrink(groups if groups == 1 else encoder.groups_at_once):
        pass
    assert encoder.estimate().chunks == len(encoder.prompts)
    return encoder


def compare(backbone: Backbone, prompts: Prompts, context: Tensor, fast: TextEncoder | None = None) -> None:
    reference = TextEncoder(backbone, prompts, path="reference")
    fast = fast or TextEncoder(backbone, prompts, path="fast")
    with torch.no_grad():
        shape = reference(context).shape
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(5))
    features, gradient = features_and_gradient(reference, context, weight)
    ours, our_gradient = features_and_gradient(fast, context, weight)
    assert ours.shape == features.shape
    assert relative(ours, features) < 1e-5
    assert relative(our_gradient, gradient) < 1e-4


def context_for(backbone: Backbone, *shape: int) -> Tensor:
    return 0.1 * torch.randn(*shape, backbone.text.width, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("csc", [False, True], ids=["unified", "csc"])
@pytest.mark.parametrize("n_ctx", [1, 4, 16])
def test_fast_path_equals_reference(any_backbone: Backbone, position: str, csc: bool, n_ctx: int) -> None:
    prompts = context_prompts(any_backbone, NAMES, n_ctx, position, csc)  # type: ignore[arg-type]
    shape = (len(NAMES), n_ctx) if csc else (n_ctx,)
    compare(any_backbone, prompts, context_for(any_backbone, *shape))


@pytest.mark.parametrize("position", POSITIONS)
def test_groups_of_contexts_equal_reference(any_backbone: Backbone, position: str) -> None:
    prompts = context_prompts(any_backbone, NAMES, 4, position)  # type: ignore[arg-type]
    compare(any_backbone, prompts, context_for(any_backbone, 3, 4))


@pytest.mark.parametrize("template", ["a photo of a {}.", "{} texture.", "{}", "a centered satellite photo of {}"])
def test_templates_equal_reference(any_backbone: Backbone, template: str) -> None:
    prompts = template_prompts(any_backbone, NAMES, template)
    features = TextEncoder(any_backbone, prompts, path="reference")()
    assert relative(TextEncoder(any_backbone, prompts)(), features) < 1e-5


@pytest.mark.parametrize("position", POSITIONS)
@pytest.mark.parametrize("csc", [False, True], ids=["unified", "csc"])
def test_towers_without_a_start_token(position: str, csc: bool) -> None:
    """Nothing is shared then when the name comes first: the prefix is empty."""
    backbone = small_open_clip(start_token=False)
    prompts = context_prompts(backbone, NAMES, 4, position, csc)  # type: ignore[arg-type]
    assert position != "front" or prompts.shared == 0
    compare(backbone, prompts, context_for(backbone, *((len(NAMES), 4) if csc else (4,))))


@pytest.mark.parametrize("csc", [False, True], ids=["unified", "csc"])
def test_chunks_change_nothing(backbone: Backbone, csc: bool) -> None:
    prompts = context_prompts(backbone, NAMES, 4, "end", csc)
    context = context_for(backbone, *((len(NAMES), 4) if csc else (4,)))
    weight = torch.randn(len(NAMES), backbone.embed_dim, generator=torch.Generator().manual_seed(5))
    whole = features_and_gradient(TextEncoder(backbone, prompts), context, weight)
    chunked = one_by_one(TextEncoder(backbone, prompts))
    for ours, expected in zip(features_and_gradient(chunked, context, weight), whole, strict=True):
        assert relative(ours, expected) < 2e-6
    compare(backbone, prompts, context, chunked)


def test_chunked_groups_equal_reference(backbone: Backbone) -> None:
    prompts = context_prompts(backbone, NAMES, 4, "middle")
    compare(backbone, prompts, context_for(backbone, 3, 4), one_by_one(TextEncoder(backbone, prompts), groups=3))


@pytest.mark.parametrize("csc", [False, True], ids=["unified", "csc"])
def test_chunks_of_the_reference_path_change_nothing(backbone: Backbone, csc: bool) -> None:
    prompts = context_prompts(backbone, NAMES, 2, "end", csc)
    chunked = one_by_one(TextEncoder(backbone, prompts, path="reference"))
    compare(backbone, prompts, context_for(backbone, *((len(NAMES), 2) if csc else (2,))), chunked)
    if not csc:
        compare(backbone, prompts, context_for(backbone, 2, 2), chunked)


@settings(max_examples=25, deadline=None)
@given(
    names=class_names(longest=12),
    n_ctx=st.integers(1, 8),
    position=st.sampled_from(POSITIONS),
    csc=st.booleans(),
)
def test_any_names_any_layout(backbone: Backbone, names: list[str], n_ctx: int, position: str, csc: bool) -> None:
    prompts = context_prompts(backbone, names, n_ctx, position, csc)  # type: ignore[arg-type]
    compare(backbone, prompts, context_for(backbone, *((len(names), n_ctx) if csc else (n_ctx,))))


def test_bf16_is_close_and_returns_fp32(backbone: Backbone) -> None:
    prompts = context_prompts(backbone, NAMES, 4)
    context = context_for(backbone, 4)
    exact = TextEncoder(backbone, prompts)(context)
    for path in ("fast", "reference"):
        half = TextEncoder(backbone, prompts, precision="bf16", path=path)(context)  # type: ignore[arg-type]
        assert half.dtype is torch.float32
        assert 0 < relative(half, exact) < 0.03


def test_work_is_prefix_and_tails_only(backbone: Backbone) -> None:
    prompts = context_prompts(backbone, ["cat", "dog"], 16)
    # start and 16 context vectors once; then for each class: its one token, the period and the end
    assert TextEncoder(backbone, prompts).rows == 17 + 2 * 3
    assert TextEncoder(backbone, prompts, path="reference").rows == 2 * 77
    # class-specific context shares the start alone
    assert TextEncoder(backbone, context_prompts(backbone, ["cat", "dog"], 16, "end", True)).rows == 1 + 2 * 19


@pytest.mark.parametrize(
    "text", [dict(no_causal_mask=True), dict(no_causal_mask=True, pool_type="last"), dict(pool_type="last")], ids=str
)
def test_fast_path_is_refused_where_it_is_not_exact(text: dict) -> None:
    """And the reference path serves these towers."""
    backbone = small_open_clip(custom=True, **text)
    prompts = context_prompts(backbone, NAMES, 4)
    assert TextEncoder(backbone, prompts).path in ("padded", "reference")
    with pytest.raises(ParameterError, match="The fast text path is not exact for test:CustomTextCLIP"):
        TextEncoder(backbone, prompts, path="fast")
    context = context_for(backbone, 4).requires_grad_()
    TextEncoder(backbone, prompts)(context).sum().backward()
    assert context.grad is not None and bool((context.grad.abs().amax(1) > 0).all())


@pytest.mark.usefixtures("unchecked")
def test_unknown_path_is_refused(backbone: Backbone) -> None:
    with pytest.raises(
        ParameterError, match="'path' parameter of the text encoder must be one of auto, fast, reference"
    ):
        TextEncoder(backbone, context_prompts(backbone, NAMES, 4), path="quick")  # type: ignore[arg-type]


def test_prompts_without_blocks_take_the_reference_path() -> None:
    """A tower with blocks of a kind that only its own forward knows still works."""
    backbone = small_open_clip(custom=True, qk_norm=True)
    prompts = context_prompts(backbone, NAMES, 4)
    encoder = TextEncoder(backbone, prompts)
    assert encoder.path == "reference"
    context = context_for(backbone, 4)
    assert torch.equal(encoder(context), TextEncoder(backbone, prompts, path="reference")(context))
    with pytest.raises(ParameterError, match="not exact for test:CustomTextCLIP"):
        TextEncoder(backbone, prompts, path="fast")
