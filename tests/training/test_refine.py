"""Refining: what a stopped run goes on with, what it costs, and why it ends."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coopt.errors import TrainingError
from coopt.training import refine as module
from coopt.training.checkpoint import Checkpoint
from coopt.training.lbfgs import TRIES, History
from coopt.training.recipe import FAST
from coopt.training.refine import BACKWARD, FORWARD, PATIENCE, Refined, halves, refine

N = 40
GENERATOR = torch.Generator().manual_seed(0)
IMAGES, TARGETS = torch.randn(N, 6, generator=GENERATOR), torch.arange(N) % 4
NOISE = torch.randn(N, 6, generator=GENERATOR)
RECIPE = replace(FAST, lr=0.05, lbfgs=6.0)


@dataclass
class Evaluated:
    loss: float
    of_parts: Callable[[], list[list[Tensor]]]

    def gradients(self) -> list[list[Tensor]]:
        return self.of_parts()


class Linear:
    """Two tensors of a linear classifier; counts its work, and may press Ctrl-C before a piece of it."""

    def __init__(self, interrupt: int | None = None, loss_of: Callable | None = None) -> None:
        self.parameters = {"weight": torch.zeros(4, 6).requires_grad_(), "bias": torch.zeros(4).requires_grad_()}
        self.interrupt, self.pieces, self.thirds = interrupt, 0, 0
        self.loss_of = loss_of or self._cross_entropy

    def _cross_entropy(self, mask: Tensor) -> Tensor:
        scores = IMAGES @ self.parameters["weight"].T + self.parameters["bias"]
        return torch.nn.functional.cross_entropy(scores[mask], TARGETS[mask], reduction="sum") / N

    def _work(self, thirds: int) -> None:
        if self.pieces == self.interrupt:
            raise KeyboardInterrupt
        self.pieces += 1
        self.thirds += thirds

    def __call__(self, parts: Sequence[Tensor] | None = None) -> Evaluated:
        self._work(FORWARD)
        masks = [torch.ones(N, dtype=torch.bool)] if parts is None else parts
        losses = [self.loss_of(mask) for mask in masks]

        def gradients() -> list[list[Tensor]]:
            found = []
            for loss in losses:
                self._work(BACKWARD)
                found.append(list(torch.autograd.grad(loss, list(self.parameters.values()), retain_graph=True)))
            return found

        return Evaluated(sum(float(loss.detach()) for loss in losses), gradients)


def run(problem: Linear, passes: float = 10.0, recipe=RECIPE, **options) -> Refined:
    units = {"weight": 0.5, "bias": 2.0}
    return refine(problem.parameters, problem, recipe, TARGETS, 1, 3, [2.0] * 10, passes=passes, units=units, **options)


def bits(problem: Linear, state: Refined) -> tuple:
    numbers = [state.losses, state.agreements, state.thirds, state.stopped]
    return [one.tolist() for one in problem.parameters.values()], numbers


@pytest.fixture(autouse=True)
def _to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISAGREE", -1.1)


def test_it_lowers_the_loss_and_counts_what_it_costs() -> None:
    problem = Linear()
    state = run(problem)
    assert state.losses[0] == pytest.approx(math.log(4)) and state.losses[-1] < 0.8 * state.losses[0]
    assert all(after < before for before, after in zip(state.losses, state.losses[1:], strict=False))
    assert state.thirds == problem.thirds and state.steps == len(state.losses) - 1
    assert len(state.agreements) == 1 + state.steps // module.EVERY


@pytest.mark.parametrize("lr", [0.05, 20.0])
def test_what_is_remembered_is_what_was_done(lr: float) -> None:
    """Of a step that had to be made shorter too; in the units of each tensor."""
    problem = Linear()
    state = run(problem, passes=0.0, recipe=replace(RECIPE, lr=lr, steps=10 + 6))
    tried = (problem.thirds - BACKWARD * (len(state.losses) + len(state.agreements))) / FORWARD
    assert len(state.history.pairs) == state.steps == 6 and (tried > len(state.losses)) == (lr > 1)
    moved = torch.cat([problem.parameters["weight"].flatten() / 0.5, problem.parameters["bias"] / 2.0])
    torch.testing.assert_close(sum(step for step, _ in state.history.pairs), moved.detach())
    here = problem(None).gradients()[0]
    torch.testing.assert_close(state.gradient, torch.cat([here[0].flatten() * 0.5, here[1] * 2.0]))


@pytest.mark.parametrize("at", [*range(0, 24), 31, 38])
def test_a_run_stopped_anywhere_ends_in_the_same_bits(at: int, tmp_path: Path) -> None:
    """Before any look at the loss and before any of its gradients, once more when it goes on."""
    whole = Linear()
    expected = bits(whole, run(whole))
    assert whole.pieces > 40
    options = {"checkpoint": tmp_path / "c", "run": "r"}
    for interrupt in (at, 3):
        with pytest.raises(KeyboardInterrupt):
            run(Linear(interrupt), **options)
    problem = Linear()
    assert bits(problem, run(problem, **options)) == expected
    again = Linear(0)  # what is finished is not learned again
    assert bits(again, run(again, **options)) == expected


@pytest.mark.parametrize("kept", [1, 2, 5])
def test_a_run_killed_between_two_checkpoints_ends_in_the_same_bits(
    kept: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = Linear()
    expected = bits(whole, run(whole))
    options = {"checkpoint": tmp_path / "c", "run": "r"}
    monkeypatch.setattr(module, "SAVE_EVERY", -1.0)
    saved, original = [], Checkpoint.save

    def save(self: Checkpoint, path: Path) -> None:
        saved.append(self.epoch)
        if len(saved) <= kept:  # the later ones are not written: the process was killed
            original(self, path)

    monkeypatch.setattr(Checkpoint, "save", save)
    with pytest.raises(KeyboardInterrupt):
        run(Linear(24), **options)
    monkeypatch.undo()
    monkeypatch.setattr(module, "DISAGREE", -1.1)
    assert len(saved) > kept and Checkpoint.load(tmp_path / "c", "r").epoch == 10 + kept
    problem = Linear()
    assert bits(problem, run(problem, **options)) == expected


def test_a_checkpoint_of_the_epochs_is_where_refining_begins(tmp_path: Path) -> None:
    Checkpoint("r", {"weight": torch.ones(4, 6), "bias": torch.ones(4)}, 10, [2.0] * 10).save(tmp_path / "c")
    whole, problem = Linear(), Linear()
    expected = bits(whole, run(whole))
    assert bits(problem, run(problem, checkpoint=tmp_path / "c", run="r")) == expected


def test_the_parts_need_not_be_equal_for_the_whole_to_be_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Comparing halves costs a pass backwards more, and changes no step."""
    monkeypatch.setattr(module, "EVERY", 1)
    often = Linear()
    found = run(often, passes=0.0)
    monkeypatch.setattr(module, "EVERY", 1000)
    seldom = Linear()
    expected = run(seldom, passes=0.0)
    together = min(len(found.losses), len(expected.losses), 8)
    torch.testing.assert_close(found.losses[:together], expected.losses[:together], rtol=1e-5, atol=1e-6)
    assert len(found.agreements) == len(found.losses) and len(expected.agreements) == 1


def test_it_ends_when_halves_disagree_so_often_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISAGREE", -0.5)
    told = iter([-0.6, -0.4, -0.7, -0.2, -0.5, -0.9, -0.9])
    monkeypatch.setattr(module, "cosine_similarity", lambda *parts, dim: torch.tensor(next(told)))
    state = run(Linear(), passes=0.0)
    assert state.stopped == "halves of the images no longer agree"
    assert PATIENCE == 2 and len(state.agreements) == 6 and state.steps == 5 * module.EVERY
    assert state.agreements == pytest.approx([-0.6, -0.4, -0.7, -0.2, -0.5, -0.9])


def test_halves_of_images_without_a_message_disagree() -> None:
    """With labels that say nothing of the images the gradients of halves become opposite, with others they stay alike."""

    def agreements(loss_of: Callable[[Linear], Callable[[Tensor], Tensor]]) -> list[float]:
        problem = Linear()
        problem.loss_of = loss_of(problem)
        return run(problem, passes=0.0).agreements

    def of(images: Tensor) -> Callable[[Linear], Callable[[Tensor], Tensor]]:
        def loss_of(problem: Linear) -> Callable[[Tensor], Tensor]:
            def loss(mask: Tensor) -> Tensor:
                scores = images @ problem.parameters["weight"].T + problem.parameters["bias"]
                return torch.nn.functional.cross_entropy(scores[mask], TARGETS[mask], reduction="sum") / N

            return loss

        return loss_of

    centres = torch.eye(4, 6)[TARGETS]
    assert min(agreements(of(centres + 0.1 * NOISE))[:3]) > 0.5
    assert agreements(of(NOISE))[-1] < -0.8


@pytest.mark.parametrize("passes", [5.0, 10.0, 18.0, 22.0, 23.0, 25.0, 100.0])
def test_text_passes_end_at_the_cap(passes: float) -> None:
    problem, recipe = Linear(), replace(RECIPE, lbfgs=4.0)
    state = run(problem, passes=passes, recipe=recipe)
    cap = recipe.most_passes(N)
    assert cap == round(4 * math.sqrt(N)) and state.stopped == "all text passes of the recipe were taken"
    # A step that has begun may try several lengths, and compare halves.
    assert passes + state.thirds / 3 <= max(cap, passes) + (BACKWARD + FORWARD * (TRIES - 1)) / 3
    if cap - passes >= 3:
        assert passes + state.thirds / 3 > cap - 1 - 1e-9 and state.steps >= 1
    else:
        assert problem.pieces == 0 and state.losses == []  # nothing is looked at that no step follows


def test_it_ends_when_no_step_lowers_the_loss() -> None:
    problem = Linear()
    start = [one.detach().clone() for one in problem.parameters.values()]

    def loss_of(mask: Tensor) -> Tensor:  # its gradient says down, and there it goes up
        total = sum(one.sum() for one in problem.parameters.values())
        return (total.detach() - total + total.detach().abs() + 1) * mask.sum() / N

    problem.loss_of = loss_of
    state = run(problem, passes=-1000.0)
    assert state.stopped == "no step lowers the loss any more" and state.losses == [1.0]
    assert state.thirds == problem.thirds == FORWARD + 2 * BACKWARD + TRIES * FORWARD
    assert all(torch.equal(a, b) for a, b in zip(start, problem.parameters.values(), strict=True))


@pytest.mark.parametrize("size", [0.0, 1e-30])
def test_a_gradient_of_nothing_is_the_end(size: float) -> None:
    problem = Linear()
    problem.loss_of = lambda mask: 1 + size * sum(one.sum() for one in problem.parameters.values())
    state = run(problem)
    assert state.stopped == "no step lowers the loss any more"
    assert all(bool((one == 0).all()) for one in problem.parameters.values())


def test_memories_that_rounding_spoiled_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    original, spoiled = History.direction, []

    def direction(self: History, gradient: Tensor, first: float) -> Tensor:
        way = original(self, gradient, first)
        if len(self.pairs) == 3 and len(spoiled) < 2:
            spoiled.append(1)
            return -way if len(spoiled) == 1 else way * math.nan
        return way

    monkeypatch.setattr(History, "direction", direction)
    state = run(Linear())
    assert len(spoiled) == 2 and state.losses[-1] < 0.8 * state.losses[0]


@pytest.mark.parametrize("at", [0, 5])
def test_a_gradient_that_is_not_finite_is_an_error_that_names_the_step(at: int, tmp_path: Path) -> None:
    def broken(problem: Linear) -> Linear:
        def loss_of(mask: Tensor) -> Tensor:
            loss = problem._cross_entropy(mask)
            return loss + Poison.apply(problem.parameters["bias"].sum()) if problem.thirds > after else loss

        problem.loss_of = loss_of
        return problem

    class Poison(torch.autograd.Function):
        """0, with a gradient that is not a number."""

        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x * 0

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            return grad * math.nan

    after = 0
    if at:
        counting = Linear()
        counted = run(counting, recipe=replace(RECIPE, steps=10 + at - 1))
        assert counted.steps == at - 1
        after = counted.thirds
    with pytest.raises(
        TrainingError, match=rf"gradient of the loss of all images is not finite at step {at}: lower the learning rate"
    ):
        run(broken(Linear()))
    with pytest.raises(
        TrainingError, match=rf"gradient of the loss of all images is not finite at step {at}: a weight is broken\.$"
    ):
        run(broken(Linear()), fault=lambda: "a weight is broken", checkpoint=tmp_path / "c", run="r")
    assert (tmp_path / "c").exists() == bool(at)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_first_loss_that_is_not_finite_is_an_error(value: float) -> None:
    problem = Linear()
    problem.loss_of = lambda mask: problem.parameters["bias"].sum() + value
    with pytest.raises(TrainingError, match=rf"loss of all images is {value} at step 0: lower the learning rate"):
        run(problem)


@pytest.mark.parametrize("seed", range(6))
def test_every_class_is_halved_as_evenly_as_can_be(seed: int) -> None:
    counts = torch.randint(0, 7, (9,), generator=torch.Generator().manual_seed(seed))
    targets = torch.arange(9).repeat_interleave(counts)
    targets = targets[torch.randperm(len(targets), generator=torch.Generator().manual_seed(seed))]
    drawn = [halves(targets, seed, draw) for draw in (0, 4, 8)]
    for mask in drawn:
        ours = torch.bincount(targets[mask], minlength=9)
        assert ((2 * ours - counts).abs() <= 1).all() and abs(2 * int(mask.sum()) - len(targets)) <= 1
    assert torch.equal(drawn[0], halves(targets, seed, 0))
    assert not torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], halves(targets, seed + 1, 0))


def test_one_evaluation_is_held_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    alive: list[weakref.ref] = []
    refused = []

    class Watched(Linear):
        def __call__(self, parts: Sequence[Tensor] | None = None) -> Evaluated:
            assert not any(one() is not None for one in alive)
            evaluated = super().__call__(parts)
            alive.append(weakref.ref(evaluated))
            return evaluated

    def rarely_enough(*given: float) -> bool:
        refused.append(1)
        return len(refused) % 3 == 0

    monkeypatch.setattr(module, "enough", rarely_enough)
    run(Watched())
    assert len(refused) > 6


def test_both_halves_together_are_all_images_once() -> None:
    seen = []

    class Watched(Linear):
        def __call__(self, parts: Sequence[Tensor] | None = None) -> Evaluated:
            seen.append(parts)
            return super().__call__(parts)

    run(Watched())
    given = [parts for parts in seen if parts is not None]
    assert given and all(len(parts) == 2 and torch.equal(parts[0], ~parts[1]) for parts in given)


def test_steps_and_seconds_are_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    state = run(Linear(), recipe=replace(RECIPE, steps=17))
    assert state.steps == 7 and state.stopped == "all steps that were allowed were taken"
    clock = iter(range(1000))
    monkeypatch.setattr(module.time, "monotonic", lambda: float(next(clock)))
    state = run(Linear(), until=12.0)
    assert state.stopped == "the time is over" and 1 <= state.steps < 12
