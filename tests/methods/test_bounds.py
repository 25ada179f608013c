"""Why learning ends: bounds on steps and time, too few images, and the same bits again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import coopt
from coopt.backbones import Backbone
from coopt.methods import learned as learned_module
from coopt.runtime import Runtime
from coopt.text.encode import TextEncoder
from coopt.training import loop, refine
from coopt.training.recipe import LEAST_IMAGES, Recipe
from tests.methods.conftest import NAMES, stopped_at_epoch

EPOCHS = 6
QUICK = {"epochs": EPOCHS, "lbfgs": 1.4, "least_classes": 2}
TIME_OVER = "the time is over"


@pytest.fixture(scope="session")
def many(backbone: Backbone) -> tuple[np.ndarray, np.ndarray]:
    """100 noisy images."""
    random = np.random.default_rng(3)
    targets = np.arange(LEAST_IMAGES) % 4
    noise = random.normal(size=(LEAST_IMAGES, backbone.embed_dim))
    centres = random.normal(size=(4, backbone.embed_dim))
    return (centres[targets] + 2 * noise).astype(np.float32), np.array(NAMES)[targets]


@pytest.fixture(autouse=True)
def _halves_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refine, "DISAGREE", -1.1)


def fit(backbone: Backbone, many: Any, n: int = LEAST_IMAGES, cls: Any = coopt.CoOp, **recipe: Any) -> Any:
    runtime = Runtime(cache=False, checkpoint=recipe.pop("checkpoint", None))
    return cls(backbone, recipe={**QUICK, **recipe}, runtime=runtime).fit(many[0][:n], many[1][:n])


@pytest.fixture(scope="module")
def plain(backbone: Backbone, many: Any) -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(refine, "DISAGREE", -1.1)
        return fit(backbone, many)


def test_from_so_many_images_on_there_are_steps_after_the_epochs(backbone: Backbone, many: Any, plain: Any) -> None:
    few, enough = fit(backbone, many, LEAST_IMAGES - 1), plain
    assert len(few.losses_) == few.text_passes_ == EPOCHS and few.agreements_ == []
    assert few.stopped_ == "all epochs of the recipe were done"
    assert len(enough.losses_) > EPOCHS and enough.losses_[-1] < enough.losses_[EPOCHS - 1]
    assert enough.stopped_ == "all text passes of the recipe were taken"
    assert EPOCHS < enough.text_passes_ <= 1.4 * LEAST_IMAGES**0.5 + 3 and enough.agreements_
    paper = fit(backbone, many, name="paper", epochs=2, lbfgs=None)
    assert len(paper.losses_) == 2 and paper.text_passes_ == 2 * (LEAST_IMAGES // 32)
    cocoop = fit(backbone, many, cls=coopt.CoCoOp, epochs=2)
    assert cocoop.text_passes_ == 16 and cocoop.stopped_ == "all epochs of the recipe were done"


@pytest.mark.parametrize("steps", [3, EPOCHS, EPOCHS + 2])
def test_steps_bound_epochs_and_what_follows(steps: int, backbone: Backbone, many: Any, plain: Any) -> None:
    model = fit(backbone, many, steps=steps)
    assert len(model.losses_) == steps and model.stopped_ == refine.STEPS_TAKEN
    if steps < EPOCHS:  # the learning rates fall to the end all the same
        assert model.losses_ == fit(backbone, many, epochs=steps, lbfgs=None).losses_
    else:
        assert model.losses_ == plain.losses_[:steps]


def test_more_steps_than_there_are_change_nothing(backbone: Backbone, many: Any, plain: Any) -> None:
    bounded = fit(backbone, many, steps=1000, seconds=1e9)
    assert torch.equal(plain.context_, bounded.context_) and plain.stopped_ == bounded.stopped_


class Clock:
    """Time that goes on by what text passes take."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, per_pass: float) -> None:
        self.now, self.per_pass = 1000.0, per_pass
        for module in (loop, refine, _learning()):
            monkeypatch.setattr(module, "time", self)
        original = TextEncoder.__call__

        def encode(encoder: Any, *given: Any) -> Any:
            if torch.is_grad_enabled():
                self.now += self.per_pass
            return original(encoder, *given)

        monkeypatch.setattr(TextEncoder, "__call__", encode)

    def monotonic(self) -> float:
        return self.now


def _learning() -> Any:
    from coopt.methods import learning

    return learning


def rates_of(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    rates: list[float] = []
    original = loop._epoch

    def epoch(optimizer: Any, rate: float, *more: Any) -> float:
        rates.append(rate)
        return original(optimizer, rate, *more)

    monkeypatch.setattr(loop, "_epoch", epoch)
    return rates


@pytest.mark.parametrize(("seconds", "epochs"), [(0.5, 2), (3.9, 3), (5.2, 5)])
def test_learning_rates_fall_in_the_time_there_is(
    seconds: float, epochs: int, backbone: Backbone, many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock, rates = Clock(monkeypatch, per_pass=1.0), rates_of(monkeypatch)
    began = clock.now
    model = fit(backbone, many, seconds=seconds)
    assert len(model.losses_) == len(rates) == epochs and model.stopped_ == TIME_OVER
    assert clock.now - began <= max(seconds, loop.MEASURED)
    assert (
        rates[2:] == Recipe.of(QUICK).learning_rates(epochs)[2:]
    )  # the first two are from before anything was measured
    assert rates[1:] == sorted(rates[1:], reverse=True)
    if epochs > 2:
        assert rates[-1] <= 0.75 * rates[0]


def test_time_may_end_after_the_epochs(
    backbone: Backbone, many: Any, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    Clock(monkeypatch, per_pass=1.0)
    model = fit(backbone, many, seconds=EPOCHS + 3.5)
    assert EPOCHS < len(model.losses_) <= EPOCHS + 4 and model.stopped_ == TIME_OVER
    assert model.losses_ == plain.losses_[: len(model.losses_)]


def test_a_run_in_time_goes_on_with_the_epochs_it_had(
    backbone: Backbone, many: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Clock(monkeypatch, per_pass=1.0)
    whole = fit(backbone, many, seconds=4.5)
    assert len(whole.losses_) == 4
    stopped_at_epoch(3, lambda: fit(backbone, many, seconds=4.5, checkpoint=tmp_path / "c"), monkeypatch)
    again = fit(backbone, many, seconds=4.5, checkpoint=tmp_path / "c")
    assert again.losses_ == whole.losses_ and torch.equal(again.context_, whole.context_)
    assert again.stopped_ == TIME_OVER


def test_a_run_in_time_that_was_stopped_before_it_measured_an_epoch_measures_anew(
    backbone: Backbone, many: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    Clock(monkeypatch, per_pass=1.0)
    last = loop.MEASURED - 1
    stopped_at_epoch(last, lambda: fit(backbone, many, seconds=4.5, checkpoint=tmp_path / "c"), monkeypatch)
    again = fit(backbone, many, seconds=4.5, checkpoint=tmp_path / "c")
    assert len(again.losses_) == loop.MEASURED - 1 + 4 and again.stopped_ == TIME_OVER


def test_classes_without_images_count(backbone: Backbone, many: Any) -> None:
    given = many[0], np.array([0, 1])[np.arange(LEAST_IMAGES) % 2]
    few = {**QUICK, "least_classes": len(NAMES)}
    model = coopt.CoOp(backbone, class_names=NAMES, recipe=few, runtime=Runtime(cache=False)).fit(*given)
    assert len(model.losses_) > EPOCHS
    model = coopt.CoOp(backbone, class_names=NAMES[:-1], recipe=few, runtime=Runtime(cache=False)).fit(*given)
    assert len(model.losses_) == EPOCHS


def test_halves_hold_all_views_of_an_image_and_passes_go_by_images(
    backbone: Backbone, many: Any, plain: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, original = [], learned_module.WholeLoss.__call__

    def call(whole: Any, parts: Any = None) -> Any:
        seen.append((len(whole.targets), parts))
        return original(whole, parts)

    def features(*_: Any, **options: Any) -> Any:
        found = torch.from_numpy(many[0]).expand(len(options["views"]), -1, -1)
        return type("Extracted", (), {"features": found.clone(), "kept": range(LEAST_IMAGES)})

    monkeypatch.setattr(learned_module.WholeLoss, "__call__", call)
    monkeypatch.setattr(coopt.CoOp, "_features", lambda self, images, views: features(views=views))
    monkeypatch.setattr(learned_module, "is_features", lambda images: False)
    model = fit(backbone, many, views=3)
    halves = [parts for count, parts in seen if parts is not None and count == 3 * LEAST_IMAGES]
    assert halves and all(torch.equal(one[:LEAST_IMAGES].repeat(3), one) for pair in halves for one in pair)
    assert model.text_passes_ == pytest.approx(plain.text_passes_, abs=2.5)


@pytest.mark.parametrize("at", [EPOCHS - 3, EPOCHS, EPOCHS + 1, EPOCHS + 4])
def test_a_fit_stopped_at_any_pass_ends_in_the_same_bits(
    at: int, backbone: Backbone, many: Any, plain: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    original, passes = TextEncoder.__call__, []

    def encode(encoder: Any, *given: Any) -> Any:
        if torch.is_grad_enabled():
            passes.append(1)
            if len(passes) == at + 1:
                raise KeyboardInterrupt
        return original(encoder, *given)

    with monkeypatch.context() as patch:
        patch.setattr(TextEncoder, "__call__", encode)
        with pytest.raises(KeyboardInterrupt):
            fit(backbone, many, checkpoint=tmp_path / "c")
        again = fit(backbone, many, checkpoint=tmp_path / "c")
    assert torch.equal(again.context_, plain.context_) and again.losses_ == plain.losses_
    assert (again.agreements_, again.text_passes_) == (plain.agreements_, plain.text_passes_)
    assert again.stopped_ == plain.stopped_


@pytest.mark.parametrize("threads", [1, 2])
def test_the_same_seed_gives_the_same_bits_on_as_many_threads(
    threads: int, backbone: Backbone, many: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("coopt.threads.SMALL", 0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        one, other = fit(backbone, many), fit(backbone, many)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(one.context_, other.context_) and one.losses_ == other.losses_
    assert one.agreements_ == other.agreements_
