"""The loop: steps, resuming, and what stops it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from coopt.errors import SavedFileError, TrainingError
from coopt.training import loop
from coopt.training.batches import batch_order, batches_of, cached_views
from coopt.training.recipe import FAST, PAPER, Recipe

FEATURES = torch.randn(2, 20, 6, generator=torch.Generator().manual_seed(0))
TARGETS = torch.arange(20) % 4
SGD = replace(PAPER, batch_size=6, lr=0.1)
ADAM = replace(FAST, batch_size=6, steps_per_epoch=None)


def run(recipe: Recipe, epochs: int, stop_after: int | None = None, **options) -> tuple[Tensor, list[float]]:
    """Trains a linear classifier; `stop_after` presses Ctrl-C in the middle of the epoch that follows."""
    weight = torch.zeros(4, 6).requires_grad_()
    batches = batches_of(cached_views(FEATURES, seed=1), TARGETS, recipe, seed=1)

    def interrupted(epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
        for step, batch in enumerate(batches(epoch)):
            if epoch == stop_after and step == 1:
                raise KeyboardInterrupt
            yield batch

    def loss_of(features: Tensor, targets: Tensor) -> Tensor:
        return torch.nn.functional.cross_entropy(features @ weight.T, targets)

    losses = loop.train({"weight": weight}, loss_of, interrupted, recipe, epochs, **options)
    return weight.detach(), losses


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("stop_after", [1, 4, 9])
def test_an_interrupted_run_ends_in_the_same_bits(recipe: Recipe, stop_after: int, tmp_path: Path) -> None:
    expected, expected_losses = run(recipe, 10)
    checkpoint = tmp_path / "checkpoint.safetensors"
    with pytest.raises(KeyboardInterrupt):
        run(recipe, 10, stop_after, checkpoint=checkpoint, run="r")
    weight, losses = run(recipe, 10, checkpoint=checkpoint, run="r")
    assert torch.equal(weight, expected) and losses == expected_losses


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.safetensors"
    weight, losses = run(SGD, 3, checkpoint=checkpoint, run="r")
    again, same = run(SGD, 3, checkpoint=checkpoint, run="r")
    assert torch.equal(weight, again) and losses == same


def test_checkpoints_are_written_while_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SAVE_EVERY", 0.0)
    saved: list[int] = []
    monkeypatch.setattr(loop.Checkpoint, "save", lambda self, path: saved.append(self.epoch))
    run(SGD, 4, checkpoint=tmp_path / "c", run="r")
    assert saved == [1, 2, 3, 4]


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    run(SGD, 2, checkpoint=tmp_path / "c", run="one")
    with pytest.raises(TrainingError, match="checkpoint of another run.*Choose another output folder"):
        run(SGD, 2, checkpoint=tmp_path / "c", run="two")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    run(SGD, 2, checkpoint=tmp_path / "c", run="one")
    data = (tmp_path / "c").read_bytes()
    (tmp_path / "c").write_bytes(data[: len(data) // 2])
    with pytest.raises(SavedFileError, match="not a readable checkpoint.*Delete it"):
        run(SGD, 2, checkpoint=tmp_path / "c", run="one")


def test_a_loss_that_is_not_finite_stops_training() -> None:
    weight = torch.zeros(4, 6).requires_grad_()
    batches = batches_of(cached_views(FEATURES, seed=1), TARGETS, SGD, seed=1)
    with pytest.raises(TrainingError, match=r"loss of epoch 1 is nan: lower the learning rate \(recipe\.lr\)\.$"):
        loop.train({"w": weight}, lambda x, y: (x @ weight.T).sum() * float("nan"), batches, SGD, 2)
    with pytest.raises(TrainingError, match=r"loss of epoch 1 is nan: a weight is broken\.$"):
        loop.train(
            {"w": weight}, lambda x, y: weight.sum() * float("nan"), batches, SGD, 2, fault=lambda: "a weight is broken"
        )


@pytest.mark.parametrize("recipe", [SGD, ADAM], ids=["sgd", "adam"])
@pytest.mark.parametrize("where", ["forward", "backward"])
def test_a_step_without_memory_is_taken_again_in_smaller_pieces(recipe: Recipe, where: str) -> None:
    expected, expected_losses = run(recipe, 3)
    weight, shrunk = torch.zeros(4, 6).requires_grad_(), []
    calls = iter(range(1000))

    def loss_of(features: Tensor, targets: Tensor) -> Tensor:
        loss = torch.nn.functional.cross_entropy(features @ weight.T, targets)
        return fails(loss, where) if next(calls) == 1 else loss

    batches = batches_of(cached_views(FEATURES, seed=1), TARGETS, recipe, seed=1)
    losses = loop.train({"w": weight}, loss_of, batches, recipe, 3, shrink=lambda: shrunk.append(1) is None)
    assert shrunk == [1] and losses == expected_losses and torch.equal(weight, expected)


def test_too_little_memory_for_the_smallest_pieces_is_an_error() -> None:
    weight = torch.zeros(4, 6).requires_grad_()
    batches = batches_of(cached_views(FEATURES, seed=1), TARGETS, SGD, seed=1)
    answers = iter([True, True, False])
    with pytest.raises(TrainingError, match="too little memory for a training step.*batch_size"):
        loop.train({"w": weight}, lambda x, y: fails(weight.sum(), "forward"), batches, SGD, 1, shrink=answers.__next__)
    assert not any(answers) and (weight == 0).all() and weight.grad is None


def fails(loss: Tensor, where: str) -> Tensor:
    """A loss whose gradient is half applied when the memory of a GPU ends, or that ends it itself."""
    error = torch.cuda.OutOfMemoryError("CUDA out of memory")
    if where == "forward":
        raise error

    class Fails(torch.autograd.Function):
        @staticmethod
        def forward(ctx: object, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: object, grad: Tensor) -> Tensor:
            raise error

    return loss + Fails.apply(loss)  # type: ignore[no-any-return]


def test_incomplete_last_batches_are_dropped_unless_they_are_all() -> None:
    assert [len(b) for b in batch_order(20, 0, SGD, seed=1)] == [6, 6, 6]
    assert [len(b) for b in batch_order(4, 0, SGD, seed=1)] == [4]
    assert [len(b) for b in batch_order(20, 0, replace(SGD, steps_per_epoch=1), seed=1)] == [6]


def test_order_and_views_depend_on_seed_and_epoch_alone() -> None:
    first = torch.cat(batch_order(20, 0, SGD, seed=1))
    assert torch.equal(first, torch.cat(batch_order(20, 0, SGD, seed=1)))
    assert not torch.equal(first, torch.cat(batch_order(20, 1, SGD, seed=1)))
    assert not torch.equal(first, torch.cat(batch_order(20, 0, SGD, seed=2)))
    views = cached_views(FEATURES, seed=1)
    views(7)
    assert torch.equal(views(3), cached_views(FEATURES, seed=1)(3))
    assert all((views(3)[i] == FEATURES[0, i]).all() or (views(3)[i] == FEATURES[1, i]).all() for i in range(20))
