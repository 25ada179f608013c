"""How much work a pass and a fit are, counted, so that a regression cannot land unseen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from coopt import CoOp
from coopt.backbones import Backbone
from coopt.backbones.tokenizers import ClipTokenizer
from coopt.runtime import Runtime
from coopt.text.encode import TextEncoder
from coopt.text.fast import FastPass
from coopt.text.layout import check_class_names, context_prompts
from tests.text.test_fast import context_for, one_by_one

NAMES = ["cat", "red cat", "dog", "forest road"]  # with the period and the end: 3, 4, 3 and 4 tokens
TAILS = 14


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> Callable[[type, str], list[tuple[Any, ...]]]:
    """Keeps the arguments of every call of a method."""

    def of(cls: type, name: str) -> list[tuple[Any, ...]]:
        seen: list[tuple[Any, ...]] = []
        original = getattr(cls, name)

        def counted(*arguments: Any, **options: Any) -> Any:
            seen.append(arguments)
            return original(*arguments, **options)

        monkeypatch.setattr(cls, name, counted)
        return seen

    return of


def rows(seen: list[tuple[Any, ...]]) -> list[int]:
    return [len(arguments[1]) for arguments in seen]


def test_tokens_through_the_blocks(backbone: Backbone, calls: Any) -> None:
    blocks, last, rest = (calls(FastPass, name) for name in ("_block", "_last_block", "_rest"))
    encoder = TextEncoder(backbone, context_prompts(backbone, NAMES, 16))
    encoder(context_for(backbone, 16).requires_grad_()).sum().backward()
    layers = len(backbone.text.open.blocks)
    # The start and 16 vectors once, and the tails; behind the last attention the end tokens alone.
    assert rows(blocks) == [17 + TAILS] * (layers - 1) and rows(last) == [17 + TAILS]
    assert rows(rest) == [17 + TAILS] * (layers - 1) + [len(NAMES)]
    assert encoder.rows == 17 + TAILS


def test_what_is_constant_is_projected_once(backbone: Backbone, calls: Any) -> None:
    projected = calls(FastPass, "_project")
    encoder = TextEncoder(backbone, context_prompts(backbone, NAMES, 16))
    for _ in range(2):
        encoder(context_for(backbone, 16).requires_grad_()).sum().backward()
    others = len(backbone.text.open.blocks) - 2  # the last block projects for itself
    assert rows(projected) == [TAILS, *[17, *[17 + TAILS] * others] * 2]


def test_chunks_but_the_last_run_twice_for_a_gradient_and_once_without(backbone: Backbone, calls: Any) -> None:
    encoder = one_by_one(TextEncoder(backbone, context_prompts(backbone, NAMES, 4)))
    passes = calls(FastPass, "_last_block")
    features = encoder(context_for(backbone, 4).requires_grad_())
    assert rows(passes) == [5 + 3, 5 + 3, 5 + 4, 5 + 4] and sum(rows(passes)) == encoder.rows
    features.sum().backward()
    assert rows(passes)[4:] == [5 + 4, 5 + 3, 5 + 3]
    TextEncoder(backbone, context_prompts(backbone, NAMES, 4))(context_for(backbone, 4).requires_grad_())
    assert len(passes) == 2 * len(NAMES)


def test_the_last_chunk_runs_twice_where_its_activations_would_not_fit(backbone: Backbone, calls: Any) -> None:
    encoder = one_by_one(TextEncoder(backbone, context_prompts(backbone, NAMES, 4), batch=100_000))
    assert not encoder.estimate().keeps_last
    passes = calls(FastPass, "_last_block")
    encoder(context_for(backbone, 4).requires_grad_()).sum().backward()
    assert len(passes) == 2 * len(NAMES)


def test_chunks_in_bf16_have_one_shape(backbone: Backbone, calls: Any) -> None:
    """A CPU's products are compiled for every shape."""
    prompts, context = context_prompts(backbone, NAMES, 4), context_for(backbone, 4)
    whole = TextEncoder(backbone, prompts, precision="bf16")(context)
    encoder = one_by_one(TextEncoder(backbone, prompts, precision="bf16"))
    passes, rest = calls(FastPass, "_last_block"), calls(FastPass, "_rest")
    features = encoder(context)
    assert rows(passes) == [64] * len(NAMES) and set(rows(rest)) == {64}
    assert (features - whole).norm() < 0.02 * whole.norm()


@pytest.mark.parametrize(("batch", "steps"), [(4096, 1), (8, 3)])
def test_text_passes_of_a_fit(backbone: Backbone, calls: Any, batch: int, steps: int) -> None:
    features = torch.randn(24, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    passes, seen = calls(TextEncoder, "__call__"), calls(FastPass, "_last_block")
    recipe = {"epochs": 4, "batch_size": batch, "steps_per_epoch": None}
    model = CoOp(backbone, n_ctx=2, recipe=recipe, runtime=Runtime(cache=False)).fit(features, NAMES * 6)
    assert len(passes) == len(seen) == 4 * steps + 1  # and once for prediction
    model.predict(features), model.predict_proba(features)
    assert len(passes) == 4 * steps + 1


def test_class_specific_chunks_touch_their_own_vectors_alone(backbone: Backbone, calls: Any) -> None:
    encoder = one_by_one(TextEncoder(backbone, context_prompts(backbone, NAMES, 4, "end", True)))
    seen = calls(FastPass, "__call__")
    encoder(context_for(backbone, len(NAMES), 4).requires_grad_()).sum().backward()
    assert [tuple(arguments[2][0].vectors.shape[:2]) for arguments in seen] == [(1, 4)] * (2 * len(NAMES) - 1)


def test_chunks_of_like_lengths_share_their_indices(backbone: Backbone) -> None:
    names = [f"cat {i}" for i in range(10, 60)]
    encoder = one_by_one(TextEncoder(backbone, context_prompts(backbone, names, 4)))
    plans = [chunk.run.__closure__ for chunk in encoder._chunks_for(1)[0]]
    patterns = {
        id(cell.cell_contents.pattern)
        for cells in plans
        for cell in cells or ()
        if hasattr(cell.cell_contents, "pattern")
    }
    assert len(patterns) == len(set(encoder.prompts.lengths.tolist()))


def test_a_name_is_tokenised_once(backbone: Backbone, calls: Any) -> None:
    seen = calls(ClipTokenizer, "encode")
    for _ in range(3):
        check_class_names(backbone, NAMES)
        context_prompts(backbone, NAMES, 4)
    assert (
        len(seen) == 2 * len(NAMES) + 2
    )  # bare, and with its period; and once whether a word stands behind another otherwise


def test_prediction_holds_few_scores_at_once(backbone: Backbone, calls: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    features = torch.randn(24, backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    model = CoOp(backbone, n_ctx=2, recipe={"epochs": 2}, runtime=Runtime(cache=False)).fit(features, NAMES * 6)
    whole = model.predict(features), model.logits(features)
    monkeypatch.setattr("coopt.methods.base.SCORES_TOGETHER", 5 * len(NAMES) + 1)
    seen = calls(CoOp, "_logits")
    assert (model.predict(features) == whole[0]).all() and abs(model.logits(features) - whole[1]).max() < 1e-4
    assert rows(seen) == [5, 5, 5, 5, 4] * 2
