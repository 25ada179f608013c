"""L-BFGS against exact solutions and against the full matrix that it stands for."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from coopt.training.lbfgs import HISTORY, SHORTEST, History, enough, flat, shorter

SEEDS = range(8)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def positive(seed: int, n: int) -> Tensor:
    """A symmetric matrix with eigenvalues from 1 to 30."""
    basis = torch.linalg.qr(drawn(seed, n, n))[0]
    return basis @ torch.diag(torch.logspace(0, 1.5, n, dtype=torch.float64)) @ basis.T


@pytest.mark.parametrize("seed", SEEDS)
def test_a_convex_quadratic_is_solved_faster_than_at_any_linear_rate(seed: int) -> None:
    n = 6
    matrix, goal = positive(seed, n), drawn(seed + 100, n)
    place, history, errors = torch.zeros(n, dtype=torch.float64), History(), []
    gradient = matrix @ (place - goal)
    for _ in range(22):
        way = history.direction(gradient, first=0.1)
        before = float(0.5 * (place - goal) @ matrix @ (place - goal))
        slope, length = float(gradient @ way), 1.0
        assert slope < 0
        while True:
            there = place + length * way
            after = float(0.5 * (there - goal) @ matrix @ (there - goal))
            if enough(length, slope, before, after):
                break
            length = shorter(length, slope, before, after)
        changed = matrix @ (there - goal)
        history.add(there - place, changed - gradient)
        place, gradient = there, changed
        errors.append(float((place - goal).norm() / goal.norm()))
        if errors[-1] < 1e-12:
            break
    assert errors[-1] < 1e-10
    half = len(errors) // 2  # the later steps gain more digits than the earlier ones
    assert errors[-1] / errors[half] < 0.1 * errors[half] / errors[0]


@pytest.mark.parametrize("count", [1, 3, HISTORY])
@pytest.mark.parametrize("seed", SEEDS)
def test_directions_are_those_of_the_explicit_matrix(seed: int, count: int) -> None:
    n = 25
    matrix, gradient = positive(seed, n), drawn(seed + 50, n)
    history = History()
    for i in range(count):
        step = drawn(1000 * seed + i, n)
        history.add(step, matrix @ step)
    step, change = history.pairs[-1]
    inverse = torch.eye(n, dtype=torch.float64) * (step @ change) / (change @ change)
    for step, change in history.pairs:
        rho = 1 / (step @ change)
        left = torch.eye(n, dtype=torch.float64) - rho * torch.outer(step, change)
        inverse = left @ inverse @ left.T + rho * torch.outer(step, step)
    torch.testing.assert_close(history.direction(gradient, 1.0), -inverse @ gradient, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(inverse @ change, step)  # the secant equation


def test_only_the_last_steps_along_which_the_gradient_grew_are_remembered() -> None:
    history, gradient = History(), drawn(0, 5)
    step = drawn(1, 5)
    for change in (-step, torch.zeros_like(step), drawn(2, 5) * math.nan, step * 1e-9 - step):
        history.add(step, change)
    assert history.pairs == []
    across = drawn(3, 5)
    history.add(step, across - step * (step @ across) / (step @ step))  # neither grew nor fell, up to rounding
    assert history.pairs == []
    for i in range(HISTORY + 3):
        history.add(drawn(i, 5), (i + 1) * drawn(i, 5))
    assert len(history.pairs) == HISTORY
    assert all(torch.equal(pair[0], drawn(i + 3, 5)) for i, pair in enumerate(history.pairs))
    assert float(gradient @ history.direction(gradient, 1.0)) < 0


def test_the_first_step_has_the_length_that_was_asked_for_whatever_the_gradient() -> None:
    for times in (1e-6, 1.0, 1e6):
        gradient = times * drawn(0, 40)
        way = History().direction(gradient, first=0.3)
        assert float(way.square().mean().sqrt()) == pytest.approx(0.3)
        torch.testing.assert_close(way / way.norm(), -gradient / gradient.norm())
    assert (History().direction(torch.zeros(4), first=0.3) == 0).all()


@pytest.mark.parametrize("low", [0.11, 0.2, 0.35, 0.499])
@pytest.mark.parametrize("length", [1.0, 0.25])
def test_a_refused_step_becomes_one_to_the_lowest_point_of_a_parabola(low: float, length: float) -> None:
    def loss(x: float) -> float:
        return 5 + 3 * (x - low * length) ** 2

    slope = -6 * low * length
    assert shorter(length, slope, loss(0), loss(length)) == pytest.approx(low * length)


def test_a_step_becomes_shorter_by_half_at_least_and_a_tenth_at_most() -> None:
    assert shorter(1.0, -1.0, 0.0, -0.9) == 0.5  # the lowest point lies behind half of it
    for bad in (1e9, math.inf, math.nan):
        assert shorter(0.5, -1.0, 0.0, bad) == pytest.approx(0.5 * SHORTEST)
    assert not enough(1.0, -1.0, 0.0, math.nan) and not enough(1.0, -1.0, 0.0, math.inf)
    assert not enough(1.0, -1.0, 2.0, 2.0) and enough(1.0, -1.0, 2.0, 1.99)
    assert enough(1.0, -1.0, 2.0, 2.001, slack=2e-3) and not enough(1.0, -1.0, 2.0, 2.003, slack=2e-3)


def test_gradients_become_one_row_each_in_its_unit() -> None:
    one, other = torch.arange(4.0).view(2, 2), torch.ones(3)
    assert flat([one, other], [0.5, 2.0]).tolist() == [0, 0.5, 1, 1.5, 2, 2, 2]
