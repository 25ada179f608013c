"""The methods that learn with prompts, on a tower that sees its padding and on one that masks it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import coopt
from coopt.backbones import Backbone
from coopt.methods.registry import METHODS
from coopt.runtime import Runtime
from tests.methods.conftest import NAMES
from tests.text.towers import masked_backbone, seeing_backbone

FEW = {"lr": 0.02, "epochs": 2, "views": 1}
PARAMETERS: dict[str, dict[str, Any]] = {
    "coop": dict(n_ctx=2, position="middle", recipe=FEW),
    "coop-csc": dict(n_ctx=2, csc=True, position="front", recipe=FEW),
    "cocoop": dict(n_ctx=2, init=None, recipe={**FEW, "epochs": 1}),
    "kgcoop": dict(n_ctx=2, init=None, recipe=FEW),
    "prograd": dict(n_ctx=2, init=None, recipe=FEW),
    "tcp": dict(n_ctx=2, guide_weight=0.1, recipe=FEW),
    "prompt_ensemble": dict(n_ctx=2, members=2, recipe=FEW),
    "text_bias": dict(recipe=FEW),
    "text_transformation": dict(recipe=FEW),
    "tip_adapter": dict(alpha=20.0),
    "zero_shot": dict(templates="ensemble"),
}


@pytest.fixture(scope="module", params=["packed", "padded"])
def tower(request: pytest.FixtureRequest) -> Backbone:
    made = masked_backbone(length=24) if request.param == "packed" else seeing_backbone(context_length=24)
    made.name = request.param
    return made


@pytest.fixture(scope="module")
def given(tower: Backbone) -> tuple[np.ndarray, list[str]]:
    generator = np.random.default_rng(0)
    centres = generator.normal(size=(len(NAMES), tower.embed_dim))
    features = np.repeat(centres, 6, axis=0) + 0.1 * generator.normal(size=(24, tower.embed_dim))
    return features.astype(np.float32), [name for name in NAMES for _ in range(6)]


def made(name: str, tower: Backbone, path: str = "auto") -> Any:
    cls = METHODS.get(name.split("-")[0])
    return cls(tower, runtime=Runtime(cache=False, text_path=path), **PARAMETERS[name])  # type: ignore[arg-type, call-arg]


def test_every_method_with_prompts_is_here() -> None:
    with_prompts = {name for name in METHODS.names() if METHODS.get(name).capabilities.text}
    pixels = {
        "image_tuning",
        "prolip",
        "clip_lora",
        "maple",
        "promptsrc",
        "mmrl",
        "two_stage",
    }  # these have tests of their own
    templates = {"gda", "proker", "lp_plus_plus", "clap", "taskres"}
    assert with_prompts - {name.split("-")[0] for name in PARAMETERS} - pixels == templates  # as tip_adapter has them


@pytest.mark.parametrize("name", PARAMETERS)
def test_learned_saved_and_as_on_the_reference_path(name: str, tower: Backbone, given: Any, tmp_path: Path) -> None:
    features, labels = given
    model = made(name, tower).fit(features, labels)
    scores = model.logits(features)
    assert np.isfinite(scores).all() and scores.shape == (24, len(NAMES))
    loaded = coopt.load(model.save(tmp_path / "prompt"), backbone=tower)
    assert (loaded.logits(features) == scores).all()
    slow = made(name, tower, "reference").fit(features, labels).logits(features)
    assert np.abs(slow - scores).max() < 2e-3 * np.abs(scores).max()


def test_words(tower: Backbone) -> None:
    """Words as a start are counted in tokens, and the nearest words of their vectors are themselves."""
    from coopt.prompts.context import initial_context
    from coopt.prompts.words import nearest_words

    context = initial_context(tower, NAMES, None, False, "a photo of a", 0)
    assert context.shape == (4, tower.text.width)
    assert [near[0].word for near in nearest_words(tower, context, 1)] == ["a", "photo", "of", "a"]
