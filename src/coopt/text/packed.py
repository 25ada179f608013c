"""The packed path: exact text features of towers that mask their padding, each prompt at its own length.

Nobody sees a masked token, so a prompt that is cut behind its end token keeps its feature, and nothing need be computed of
padding. Prompts of one length go through the tower's own forward together, whatever its architecture.

Notation: G groups (contexts that share the class names), C prompts, L tokens of the longest, M context vectors, W width, D
output width.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.backbones.text_tower import TextTower
from coopt.text.fast import Learned
from coopt.text.layout import Prompts
from coopt.text.reference import encode_reference

CALL_ROWS = 48
"""What one more forward costs, in rows of a prompt: below that, prompts of neighbouring lengths run together."""


def run_lengths(lengths: Int[Tensor, " classes"]) -> Int[Tensor, " classes"]:
    """At how many tokens each prompt runs: at its own length, or at that of slightly longer ones which it runs with.

    Few prompts of a length are not worth a forward of their own; what they are filled up with is masked. Chosen so that the
    rows, with `CALL_ROWS` more for each forward, are the fewest.
    """
    distinct, counts = (one.tolist() for one in lengths.unique(return_counts=True))
    # best[i]: the least cost of the first i distinct lengths, and where the last of their runs begins.
    best: list[tuple[int, int]] = [(0, 0)]
    for stop in range(1, len(distinct) + 1):
        costs = (
            (best[start][0] + CALL_ROWS + distinct[stop - 1] * sum(counts[start:stop]), start) for start in range(stop)
        )
        best.append(min(costs))
    run_at, stop = torch.zeros(len(distinct), dtype=torch.long), len(distinct)
    while stop:
        start = best[stop][1]
        run_at[start:stop], stop = distinct[stop - 1], start
    return run_at[torch.searchsorted(torch.tensor(distinct), lengths)]


class PackedPlan:
    """Some prompts by the length at which they run.

    Args:
        prompts: C prompts, in ascending order of length.
        lengths: at how many tokens each runs.
        groups: G.
    """

    def __init__(self, prompts: Prompts, lengths: Int[Tensor, " classes"], groups: int) -> None:
        self.classes, self.groups = len(prompts), groups
        distinct, counts = lengths.unique_consecutive(return_counts=True)
        self.parts: list[tuple[int, Tensor, Prompts]] = []
        start = 0
        for length, count in zip(distinct.tolist(), counts.tolist(), strict=True):
            part = torch.arange(start, start + count)
            self.parts.append((length, part, prompts[part.repeat(groups)]))
            start += count

    def encode(
        self, tower: TextTower, learned: Mapping[int, Learned], weights: Mapping[str, Tensor]
    ) -> Float[Tensor, "groups classes dim"]:
        """Features (not normalised) of the prompts for each of the groups.

        Args:
            tower: which takes prompts of any length.
            learned: the vectors of context slots at the input of blocks; those of block 0 are the context.
            weights: what stands for some of the tower's weights, by name.
        """
        parts = [
            encode_reference(tower, prompts, self._of_part(learned, part), weights, length).unflatten(
                0, (self.groups, -1)
            )
            for length, part, prompts in self.parts
        ]
        return torch.cat(parts, dim=1)

    def _of_part(self, learned: Mapping[int, Learned], part: Tensor) -> dict[int, Learned]:
        """The vectors of a part's prompts: what groups or classes have of their own is a prompt's own here."""
        return {block: Learned(*self._of_prompts(one, part)) for block, one in learned.items()}

    def _of_prompts(self, one: Learned, part: Tensor) -> tuple[Tensor, bool]:
        if one.vectors.ndim == 2:
            return one.vectors, False
        if one.class_specific:
            return one.vectors[part.to(one.vectors.device)].repeat(self.groups, 1, 1), True
        return one.vectors.repeat_interleave(len(part), dim=0), True
