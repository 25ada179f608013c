"""L-BFGS: directions of descent from the last steps and the changes of the gradient along them.

Nocedal: "Updating Quasi-Newton Matrices with Limited Storage", Mathematics of Computation 35, 1980; the two loops and the
scaling are algorithm 7.4 of Nocedal and Wright: "Numerical Optimization", 2006.

`torch.optim.LBFGS` is not used: its line search looks for longer steps too, which from a context that begins as words loses
accuracy, and it cannot be stopped between two steps and go on to the same bits.
"""

from __future__ import annotations

import math

import torch
from jaxtyping import Float
from torch import Tensor

HISTORY = 20
"""Steps that are remembered."""

SUFFICIENT = 1e-4
"""Part of the decrease that the slope promises which a step must keep (Armijo's condition)."""

SHORTEST = 0.1
"""A step that is refused is made shorter by this at most at once, and to half at least."""

TRIES = 8
"""Lengths of a step that are tried."""


class History:
    """The last steps and the changes of the gradient along them.

    Args:
        pairs: those of a run that goes on, oldest first.
    """

    def __init__(self, pairs: list[tuple[Tensor, Tensor]] | None = None) -> None:
        self.pairs = pairs or []

    def add(self, step: Float[Tensor, " n"], change: Float[Tensor, " n"]) -> None:
        """Remembers a step, unless the gradient did not grow along it: then it says nothing of the curvature."""
        if float(step @ change) > 1e-8 * float(step.norm() * change.norm()):
            self.pairs = [*self.pairs, (step, change)][-HISTORY:]

    def direction(self, gradient: Float[Tensor, " n"], first: float) -> Float[Tensor, " n"]:
        """Where to go from here.

        Args:
            gradient: at this place.
            first: root mean square of the step while nothing is remembered.
        """
        way = gradient.clone()
        if not self.pairs:
            size = float(way.square().mean().sqrt())
            return way * (-first / size if size > 0 else 0.0)
        parts = []
        for step, change in reversed(self.pairs):
            part = (step @ way) / (step @ change)
            way -= part * change
            parts.append(part)
        step, change = self.pairs[-1]
        way *= (step @ change) / (change @ change)
        for (step, change), part in zip(self.pairs, reversed(parts), strict=True):
            way += step * (part - (change @ way) / (step @ change))
        return -way


def shorter(length: float, slope: float, before: float, after: float) -> float:
    """The next length to try, at the lowest point of the parabola through what is known.

    Args:
        length: of the step that was refused.
        slope: of the loss along the direction, at its beginning; negative.
        before: the loss at its beginning.
        after: the loss at its end.
    """
    lowest = -slope * length * length / (2 * (after - before - slope * length))
    if math.isnan(lowest):  # as the loss was
        lowest = 0.0
    return min(max(lowest, SHORTEST * length), 0.5 * length)


def enough(length: float, slope: float, before: float, after: float, slack: float = 0.0) -> bool:
    """Whether a step makes the loss fall as it should; `slack` is how far rounding may move the loss."""
    return after <= before + SUFFICIENT * length * slope + slack


def flat(gradients: list[Tensor], units: list[float]) -> Float[Tensor, " n"]:
    """Gradients as one row of numbers, with respect to tensors that are counted in units."""
    return torch.cat([(one * unit).flatten() for one, unit in zip(gradients, units, strict=True)])
