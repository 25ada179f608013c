"""How many classes run at once: chunks of them, as few as fit into the memory, known before anything runs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch

from coopt.text.memory import BlockRange, Costs, StepMemory

FINER = 1.15
"""By how much the number of chunks grows until they fit."""

Bounds = list[tuple[int, int]]
"""Which classes, in order of length, run together: from, to."""


class ChunkSizes:
    """Chunks of classes that are sorted by the lengths of their tails.

    Args:
        costs: of a text pass.
        stages: of all classes together.
        learned: bytes of class-specific vectors of all kinds, with what training holds beside them.
        batch: images of a step that the features of one context are compared with.
        memory: bytes that a step may hold above the model; None: only activations are bounded, by `automatic`.
        automatic: bytes that the activations of a chunk may take when `memory` is None.
        beside: bytes that the step holds for other things.
    """

    def __init__(
        self,
        costs: Costs,
        stages: Sequence[BlockRange],
        learned: int,
        batch: int,
        memory: int | None,
        automatic: int,
        beside: int = 0,
    ) -> None:
        self.costs, self.stages, self.learned = costs, stages, learned
        self.batch, self.memory, self.automatic, self.beside = batch, memory, automatic, beside
        self.limit = math.inf  # bytes of a chunk's tensors, after the device ran out of memory
        self.classes = len(stages[0].tails)

    @property
    def whole(self) -> Bounds:
        """All classes at once."""
        return [(0, self.classes)]

    def cut(self, groups: int) -> Bounds:
        """The fewest chunks that fit into the memory, or nearly; one class in each when no others do."""
        whole = self.estimate(self.whole, groups)
        allowed = self.automatic if self.memory is None else self.memory
        tried = self.cuts(least=int(max(whole.activations / allowed, whole.chunk / self.limit)))
        return next(
            bounds for bounds in tried if len(bounds) == self.classes or self.fits(self.estimate(bounds, groups))
        )

    def cuts(self, least: int = 1) -> Iterator[Bounds]:
        """Ever more chunks, from one or at least so many, to one class in each."""
        parts, bounds = 1, self._bounds(1)
        while len(bounds) < self.classes:
            if parts == 1 or parts >= least:
                yield bounds
            parts = max(parts + 1, int(parts * FINER))
            bounds = self._bounds(parts)
        yield bounds

    def _bounds(self, parts: int) -> Bounds:
        """About `parts` chunks with equal numbers of tail rows (at least one class in each)."""
        rows = self.stages[-1].tails.cumsum(0)
        part = (rows - 1) * parts // rows[-1]
        stops = torch.unique_consecutive(part, return_counts=True)[1].cumsum(0).tolist()
        return list(zip([0, *stops], stops, strict=False))

    def fits(self, estimate: StepMemory) -> bool:
        """Whether a step of this size may be taken."""
        enough = estimate.activations <= self.automatic if self.memory is None else estimate.total <= self.memory
        return enough and estimate.chunk <= self.limit

    def estimate(self, bounds: Bounds, groups: int) -> StepMemory:
        """What a step in these chunks holds."""
        cut = len(bounds) > 1
        # Chunks whose tails have the same lengths cost the same.
        alike = {tuple(tuple(stage.tails[start:stop].tolist()) for stage in self.stages) for start, stop in bounds}
        sizes = [self.costs.chunk(self._with_tails(tails), groups, cut) for tails in alike]
        head, carried = self.costs.head(self.classes, self.batch, groups)
        return StepMemory(
            chunks=len(bounds),
            kept=max(size.kept for size in sizes),
            chunk=max(size.most for size in sizes),
            head=head + self.learned,
            carried=carried + self.learned,
            indices=self.costs.plans(len(bounds), self.stages, groups) + sum(size.indices for size in sizes),
            weights=self.costs.weights + self.beside,
            allocator=self.costs.allocator,
        )

    def _with_tails(self, tails: Sequence[tuple[int, ...]]) -> list[BlockRange]:
        """The stages of some of the classes."""
        return [stage._replace(tails=torch.tensor(lengths)) for stage, lengths in zip(self.stages, tails, strict=True)]

    def at_once(self) -> int:
        """How many contexts with all their classes fit into the memory together; at least one."""
        one = self.estimate(self.whole, 1)
        room = self.automatic // one.activations if self.memory is None else self.memory // one.total
        return max(1, int(min(room, self.limit // one.chunk)))

    def halve(self, groups: int) -> bool:
        """Allows chunks half the size of those for so many groups; False when they are as small as they can be."""
        bounds = self.cut(groups)
        if groups == 1 and len(bounds) == self.classes:
            return False
        self.limit = self.estimate(bounds, groups).chunk // 2
        return True
