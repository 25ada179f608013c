"""What is learned among word embeddings does not hang on how large a text tower's embeddings are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor

import coopt
from coopt.backbones import Backbone, load_backbone
from coopt.methods.learned import LearnedMethod
from coopt.methods.sites import TextTokens
from coopt.prompts.context import embedding_rms
from coopt.runtime import Runtime
from coopt.training.recipe import EMBEDDING_RMS
from tests.methods.test_sites import DeepText, LowRank
from tests.reparametrised import scaled

NAMES = ["red", "green", "blue", "striped"]
TIMES = [0.25, 4.0, 3.0]
CONTEXT = {"context"}
COCOOP = {"context", "meta_net.linear2.weight", "meta_net.linear2.bias"}


@pytest.fixture(scope="module")
def bundled() -> Backbone:
    return load_backbone("bundled", "cpu")


@pytest.fixture(scope="module")
def others(bundled: Backbone) -> Mapping[float, Backbone]:
    return {times: scaled(bundled, times) for times in TIMES}


@pytest.fixture(scope="module")
def images(bundled: Backbone) -> tuple[np.ndarray, np.ndarray]:
    """120 images, a class with more than the others, as features that hand-made prompts tell apart half."""
    random = np.random.default_rng(0)
    targets = np.concatenate([np.arange(100) % 4, np.zeros(20, int)])
    text = coopt.ZeroShot(bundled, runtime=Runtime(cache=False)).fit_classes(NAMES).text_features_.numpy()
    noise = random.normal(size=(120, text.shape[1])) / np.sqrt(text.shape[1])
    away = random.normal(size=(4, text.shape[1])) / np.sqrt(text.shape[1])
    return (text + 0.3 * away)[targets] + 2.0 * noise, np.array(NAMES)[targets]


def fitted(cls: type[LearnedMethod], backbone: Backbone, images: Any, recipe: Any, **more: Any) -> Any:
    features, labels = images
    return cls(backbone, recipe=recipe, runtime=Runtime(cache=False), **more).fit(features.astype(np.float32), labels)


def test_the_learning_rates_are_meant_for_the_bundled_model(bundled: Backbone, others: Any) -> None:
    assert embedding_rms(bundled) == pytest.approx(EMBEDDING_RMS, rel=3e-3)
    for times, other in others.items():
        assert embedding_rms(other) == pytest.approx(times * embedding_rms(bundled), rel=1e-6)


@pytest.fixture(scope="module")
def plain(bundled: Backbone, images: Any) -> coopt.CoOp:
    return fitted(coopt.CoOp, bundled, images, {"least_classes": 2})


@pytest.mark.parametrize("times", [0.25, 4.0])
def test_from_words_the_same_prompt_is_learned_bit_for_bit(
    times: float, plain: coopt.CoOp, others: Any, images: Any
) -> None:
    """By a power of two; the epochs, weight decay and L-BFGS."""
    other = fitted(coopt.CoOp, others[times], images, {"least_classes": 2})
    assert len(plain.losses_) > 17 and plain.text_passes_ > 17  # some of them of L-BFGS
    assert other.losses_ == plain.losses_ and other.agreements_ == plain.agreements_
    assert (other.stopped_, other.text_passes_) == (plain.stopped_, plain.text_passes_)
    assert torch.equal(other.context_, times * plain.context_)
    assert (other.predict(images[0].astype(np.float32)) == plain.predict(images[0].astype(np.float32))).all()


def test_by_any_other_factor_it_is_the_same_up_to_rounding(plain: coopt.CoOp, others: Any, images: Any) -> None:
    other = fitted(coopt.CoOp, others[3.0], images, {"least_classes": 2})
    np.testing.assert_allclose(other.losses_, plain.losses_, rtol=1e-3)
    assert other.stopped_ == plain.stopped_
    away = float((other.context_ / 3 - plain.context_).norm() / plain.context_.norm())
    assert away < 1e-4, away
    assert (other.predict(images[0].astype(np.float32)) == plain.predict(images[0].astype(np.float32))).all()


@pytest.mark.parametrize(
    ("cls", "more", "inside"),
    [
        (coopt.CoOp, {}, CONTEXT),
        (coopt.CoOp, {"csc": True}, set()),
        (coopt.KgCoOp, {}, CONTEXT),
        (coopt.CoCoOp, {}, COCOOP),
        (DeepText, {}, {"context", "deep"}),
        (LowRank, {}, set()),
        (coopt.TextBias, {}, set()),
        (coopt.TextTransformation, {}, set()),
    ],
)
def test_only_vectors_among_embeddings_are_measured_in_them(
    cls: type[LearnedMethod], more: Any, inside: set[str], bundled: Backbone, others: Any
) -> None:
    def units(backbone: Backbone, recipe: str) -> dict[str, float]:
        model = cls(backbone, recipe=recipe, **more)
        model.check_parameters()
        model._set_classes(backbone, NAMES, named=True)
        named = model.units()
        assert named.keys() <= model.initial().keys()
        return {name: named.get(name, 1.0) for name in model.initial()}

    here, there, paper = units(bundled, "fast"), units(others[4.0], "fast"), units(others[4.0], "paper")
    csc_is_measured = more.get("csc") and there["context"] != 1.0
    inside = CONTEXT if csc_is_measured else inside
    assert here == pytest.approx(dict.fromkeys(here, 1.0), rel=3e-3)
    assert there == {name: (4 if name in inside else 1) * unit for name, unit in here.items()}
    assert set(paper.values()) == {1.0}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_without_a_size_the_learning_rate_is_what_it_is(
    optimizer: str, bundled: Backbone, others: Any, images: Any
) -> None:
    recipe: dict[str, Any] = {
        "name": "paper",
        "optimizer": optimizer,
        "lr": 1e-3,
        "warmup_lr": 1e-3,
        "weight_decay": 0.0,
    }
    recipe |= {"epochs": 1, "batch_size": 120, "views": 1} | (
        {"lr": 0.1, "warmup_lr": 0.1} if optimizer == "sgd" else {}
    )
    for other, times in ((bundled, 1.0), (others[4.0], 4.0)):
        model = fitted(coopt.CoOp, other, images, recipe)
        moved = model.context_ - model.initial()["context"]
        if optimizer == "adam":  # a first step is the learning rate in every number
            assert float(moved.abs().median()) == pytest.approx(1e-3, rel=2e-2)
        elif times == 1:
            plain = moved
        else:  # a gradient is the smaller the larger the numbers
            assert float((moved - plain / 4).norm()) < 1e-2 * float(moved.norm())


class Scaled(coopt.CoCoOp):
    """CoCoOp whose meta-net begins as large as the embeddings are."""

    method: ClassVar[str] = "scaled"
    times: ClassVar[float] = 1.0

    def initial(self) -> dict[str, Tensor]:
        size = embedding_rms(self.backbone_) / 0.0625
        size = 2.0 ** round(float(np.log2(size)))
        begun = super().initial()
        return {name: one * (size if ".linear2." in name else 1) for name, one in begun.items()}


def test_cocoop_learns_the_same_where_its_network_begins_in_proportion(
    bundled: Backbone, others: Any, images: Any
) -> None:
    few = images[0][:16], images[1][:16]
    recipe = {"epochs": 3}
    plain, other = (fitted(Scaled, backbone, few, recipe) for backbone in (bundled, others[4.0]))
    assert other.losses_ == plain.losses_
    for name, one in plain.learned_.items():
        assert torch.equal(other.learned_[name], one * (4 if name in COCOOP else 1)), name


def test_deep_prompts_are_in_proportion_too(bundled: Backbone, others: Any, images: Any) -> None:
    """Vectors of a block are added to a stream that is the larger by the same factor."""

    class Words(DeepText):
        method: ClassVar[str] = "words"

        def initial(self) -> dict[str, Tensor]:
            begun = super().initial()
            size = 2.0 ** round(float(np.log2(embedding_rms(self.backbone_) / 0.0625)))
            return {name: one * size for name, one in begun.items()}

    recipe = {"epochs": 4, "lbfgs": 1.5, "least_classes": 2}
    plain, other = (fitted(Words, backbone, images, recipe) for backbone in (bundled, others[0.25]))
    assert len(plain.losses_) > 4 and other.losses_ == plain.losses_
    assert all(torch.equal(other.learned_[name], one / 4) for name, one in plain.learned_.items())
    assert isinstance(plain.sites()[0], TextTokens)
