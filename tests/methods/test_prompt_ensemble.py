"""Several prompts learned side by side are those that CoOp learns one by one, averaged."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from coopt.backbones import Backbone
from coopt.methods.coop import CoOp
from coopt.methods.prompt_ensemble import PromptEnsemble
from coopt.prompts.context import word_context
from coopt.runtime import Runtime

SGD = {"optimizer": "sgd", "lr": 0.02, "epochs": 6}
ADAM = {"lr": 0.02, "epochs": 6}


@pytest.mark.parametrize("recipe", [SGD, ADAM, {**ADAM, "weight_decay": 0.1, "batch_size": 31}])
def test_members_are_what_coop_learns_with_their_seeds(recipe: Any, backbone: Backbone, uneven: Any) -> None:
    members = [CoOp(backbone, n_ctx=2, seed=seed, recipe=recipe).fit(*uneven) for seed in (5, 6, 7)]
    ours = PromptEnsemble(backbone, members=3, n_ctx=2, seed=5, recipe=recipe).fit(*uneven)
    for context, member in zip(ours.contexts_, members, strict=True):
        torch.testing.assert_close(context, member.context_, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(ours.losses_, np.sum([one.losses_ for one in members], axis=0), rtol=1e-4)
    assert ours.text_passes_ == sum(one.text_passes_ for one in members)


def test_class_features_are_averaged_as_directions(backbone: Backbone, features: Any, labels: Any) -> None:
    ours = PromptEnsemble(backbone, members=2, n_ctx=2, recipe=ADAM).fit(features, labels)
    other = CoOp(backbone, n_ctx=2, recipe={**ADAM, "epochs": 1}).fit(features, labels)
    texts = []
    for context in ours.contexts_:
        other._set_state({"context": context})
        texts.append(other.text_features_)
    assert (texts[0] - texts[1]).norm() > 1e-2
    torch.testing.assert_close(ours.text_features_, normalize((texts[0] + texts[1]) / 2, dim=1), atol=1e-5, rtol=1e-4)
    scores = backbone.logit_scale * normalize(torch.from_numpy(features), dim=1) @ ours.text_features_.T
    np.testing.assert_allclose(ours.logits(features), scores.numpy(), atol=1e-3)


def test_contexts_are_averaged_to_one_prompt(backbone: Backbone, features: Any, labels: Any) -> None:
    ours = PromptEnsemble(backbone, average="contexts", recipe=ADAM).fit(features, labels)
    other = CoOp(backbone, recipe={**ADAM, "epochs": 1}).fit(features, labels)
    other._set_state({"context": ours.contexts_.mean(dim=0)})
    torch.testing.assert_close(ours.text_features_, other.text_features_, atol=1e-5, rtol=1e-4)
    new = ours.with_classes(["cat", "axolotl"])
    torch.testing.assert_close(
        new.text_features_[0], ours.text_features_[ours.class_names_.index("cat")], atol=1e-5, rtol=1e-4
    )


def test_members_begin_as_words_and_near_by(backbone: Backbone, features: Any, labels: Any) -> None:
    model = PromptEnsemble(backbone, members=4, spread=0.5, recipe={**SGD, "lr": 0.0, "weight_decay": 0.0})
    contexts = model.fit(features, labels).contexts_
    words = word_context(backbone, "a photo of a")
    assert torch.equal(contexts[0], words)
    away = [(one - words).square().mean().sqrt() / words.square().mean().sqrt() for one in contexts[1:]]
    assert all(0.4 < one < 0.6 for one in away) and len({float(one) for one in away}) == 3
    together = PromptEnsemble(backbone, members=2, spread=0.0, recipe=ADAM).fit(features, labels)
    alone = CoOp(backbone, recipe=ADAM).fit(features, labels)
    torch.testing.assert_close(together.contexts_, alone.context_.expand(2, -1, -1), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(together.text_features_, alone.text_features_, rtol=1e-4, atol=1e-5)


def test_in_chunks_the_same_is_learned(backbone: Backbone, features: Any, labels: Any) -> None:
    whole = PromptEnsemble(backbone, recipe=ADAM).fit(features, labels)
    needed = whole.step_bytes(backbone, whole.class_names_)
    assert needed > 1.5 * CoOp(backbone, recipe=ADAM).step_bytes(backbone, whole.class_names_)
    cut = PromptEnsemble(backbone, recipe=ADAM, runtime=Runtime(memory=int(0.7 * needed))).fit(features, labels)
    np.testing.assert_allclose(cut.losses_, whole.losses_, rtol=1e-5)


def test_l_bfgs_may_follow(backbone: Backbone) -> None:
    random = np.random.default_rng(0)
    which = np.arange(120) % 4
    table = (
        random.normal(size=(4, backbone.embed_dim))[which] + 3 * random.normal(size=(120, backbone.embed_dim))
    ).astype(np.float32)
    recipe = {"lr": 0.02, "epochs": 4, "least_classes": 2, "steps": 10}
    model = PromptEnsemble(backbone, members=2, n_ctx=2, recipe=recipe, class_names=["cat", "dog", "cow", "hen"])
    model.fit(table, which)
    assert len(model.losses_) > 4 and model.losses_[-1] < model.losses_[3]
