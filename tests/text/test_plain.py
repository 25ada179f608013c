"""The plain text pass against the others, and exported."""

from __future__ import annotations

import pytest
import torch

from coopt.backbones import Backbone
from coopt.errors import UnsupportedBackboneError
from coopt.text.encode import TextEncoder
from coopt.text.layout import POSITIONS, Position, context_prompts, template_prompts
from coopt.text.plain import PlainText
from tests.models import small_open_clip
from tests.text.test_fast import KINDS, NAMES, context_for, relative


@pytest.fixture(scope="module", params=["openai", *KINDS])
def any_backbone(request: pytest.FixtureRequest, backbone: Backbone) -> Backbone:
    return backbone if request.param == "openai" else small_open_clip(**KINDS[request.param])


@pytest.mark.parametrize("position", POSITIONS)
def test_equals_the_reference_path(any_backbone: Backbone, position: Position) -> None:
    prompts = context_prompts(any_backbone, NAMES, 4, position)
    plain, reference = PlainText(any_backbone, prompts), TextEncoder(any_backbone, prompts, path="reference")
    for shape in ((4,), (3, 4)):
        context = context_for(any_backbone, *shape)
        ours, expected = plain(context), reference(context)
        assert ours.shape == expected.shape and relative(ours, expected) < 1e-5


def test_equals_the_reference_path_in_float64_with_its_gradient() -> None:
    backbone = small_open_clip()
    backbone.text.double()
    prompts = context_prompts(backbone, NAMES, 4, "middle")
    results = []
    for text in (PlainText(backbone, prompts), TextEncoder(backbone, prompts, path="reference")):
        context = context_for(backbone, 2, 4).double().requires_grad_()
        features = text(context)
        features.square().sum().backward()
        results.append((features.detach(), context.grad))
    for ours, expected in zip(*results, strict=True):
        assert relative(ours, expected) < 1e-10  # type: ignore[arg-type]


def test_without_anything_shared() -> None:
    backbone = small_open_clip(start_token=False)
    prompts = context_prompts(backbone, NAMES, 4, "front")
    assert prompts.shared == 0
    context = context_for(backbone, 4)
    assert relative(PlainText(backbone, prompts)(context), TextEncoder(backbone, prompts)(context)) < 1e-5


def test_exported(backbone: Backbone) -> None:
    """With any number of groups, and without an operation that is not torch's own."""
    prompts = context_prompts(backbone, NAMES, 4)
    plain = PlainText(backbone, prompts).eval()
    groups = torch.export.Dim("groups", min=1, max=64)
    program = torch.export.export(plain, (context_for(backbone, 3, 4),), dynamic_shapes={"context": {0: groups}})
    for count in (2, 5):
        contexts = context_for(backbone, count, 4)
        assert relative(program.module()(contexts), TextEncoder(backbone, prompts)(contexts)) < 1e-5
    called = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert "aten.scaled_dot_product_attention.default" in called
    assert all(name.startswith("aten.") or "getitem" in name for name in called), called


def test_what_has_no_plain_pass(backbone: Backbone) -> None:
    with pytest.raises(
        UnsupportedBackboneError, match="no plain text pass of class-specific prompts. Use the features"
    ):
        PlainText(backbone, context_prompts(backbone, NAMES, 4, class_specific=True))
    bidirectional = small_open_clip(custom=True, no_causal_mask=True)
    with pytest.raises(UnsupportedBackboneError, match="no plain text pass of the text tower of test:CustomTextCLIP"):
        PlainText(bidirectional, template_prompts(bidirectional, NAMES, "a {}"))
