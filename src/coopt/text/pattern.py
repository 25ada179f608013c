"""Who attends to whom: each tail sees the whole prefix and, causally, itself.

Tails lie packed, one after the other in order of length. Neighbours share a *bin*: a few dozen rows that attend together to
the prefix and to each other, where a mask hides from each tail what belongs to the others. So a layer's attention is one
batch of matrix products of one shape, whatever the lengths. A bin that its tails do not fill has fillers at its end, which
no tail sees. The prefix attends to itself apart from them.

To attend, rows are laid out anew, head by head and bin by bin, as the batch that matrix products take: one gather there and
one back.

Notation: G groups, H heads, C classes, P prefix tokens, B bins of T rows and at most E classes, K = P + T keys.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

BIN_ROWS = 64
"""Bins are not made larger than that unless a tail is: a row's scores grow with its bin."""

GATHER_COST = 30
"""What moving a row of a head into the batch costs, in scores."""


class Bins(NamedTuple):
    """How tails, in ascending order of length, share bins.

    Attributes:
        starts: the first class of each bin.
        rows: T, of the fullest.
        classes: E, the most in one.
    """

    starts: tuple[int, ...]
    rows: int
    classes: int

    @classmethod
    def of(cls, lengths: Int[Tensor, " classes"], prefix: int) -> Bins:
        """The cheapest for tails of these lengths behind a prefix."""
        stops = [0, *lengths.cumsum(0).tolist()]
        longest = stops[-1] - stops[-2]
        sizes = [longest, *range(8 * (longest // 8 + 1), BIN_ROWS + 1, 8)]
        return min((cls._filled(stops, size) for size in sizes), key=lambda bins: bins._cost(prefix))

    @classmethod
    def _filled(cls, stops: list[int], size: int) -> Bins:
        """Each bin takes tails as long as they fit into `size` rows; `stops` says where the rows of each class end."""
        bounds = [0]
        while bounds[-1] < len(stops) - 1:
            bounds.append(bisect_right(stops, stops[bounds[-1]] + size) - 1)
        rows = max(stops[stop] - stops[start] for start, stop in pairwise(bounds))
        return cls(tuple(bounds[:-1]), rows, max(stop - start for start, stop in pairwise(bounds)))

    def _cost(self, prefix: int) -> int:
        keys = prefix + self.rows
        return len(self.starts) * (self.rows * keys + GATHER_COST * (self.rows + 2 * keys))

    @property
    def shape(self) -> tuple[int, int, int]:
        """B, T and E."""
        return len(self.starts), self.rows, self.classes


@dataclass(frozen=True, eq=False)
class Gather:
    """Heads of rows to a batch and back.

    Attributes:
        to_batch: for every row of the batch the head of a row that it is.
        to_rows: for every head of every row its row of the batch.
        fillers: rows of the batch that are nothing.
        shapes: of the sections that the batch comes in.
        heads: n * H, side by side in a row.
        dtype: of the batch.
    """

    to_batch: Int[Tensor, " batch"]
    to_rows: Int[Tensor, " heads"]
    fillers: Int[Tensor, " fillers"]
    shapes: tuple[tuple[int, ...], ...]
    heads: int
    dtype: torch.dtype

    def spread(self, rows: Float[Tensor, "rows features"]) -> Float[Tensor, "batch depth"]:
        """Rows as a batch."""
        return rows.to(self.dtype).view(-1, rows.shape[1] // self.heads).index_select(0, self.to_batch)

    def pack(self, batch: Float[Tensor, "batch depth"]) -> Float[Tensor, "rows features"]:
        """The batch back to rows."""
        return batch.index_select(0, self.to_rows).view(-1, self.heads * batch.shape[1])

    def views(self, batch: Float[Tensor, "batch depth"]) -> list[tuple[Tensor, ...]]:
        """What lies side by side in a row, for each section: (*shape[1:], depth) as often as shape[0] says."""
        parts = batch.split([math.prod(shape) for shape in self.shapes])
        sections = zip(parts, self.shapes, strict=True)
        return [part.view(*shape, batch.shape[1]).unbind() for part, shape in sections]


@dataclass(frozen=True, eq=False)
class AttentionPattern:
    """How rows map to groups, prefix and tails.

    Rows come in the order: the prefix for each group, then for each group the tails. Masks are what is added to scores:
    zero, or minus infinity for what must not be seen.

    Attributes:
        groups: G.
        heads: H.
        prefix: P.
        lengths: of the C tails, ascending.
        bins: which of them attend together.
        causal: the prefix's mask.
        mask: the tails'.
        end_mask: that of their end tokens alone.
        dtype: what attention computes in.
        multiple: rows, and rows of end tokens, are filled up to a multiple of it; what these hold does not matter.
    """

    groups: int
    heads: int
    prefix: int
    lengths: Int[Tensor, " classes"]
    bins: Bins
    causal: Float[Tensor, "prefix prefix"]
    mask: Float[Tensor, "bins 1 rows keys"]
    end_mask: Float[Tensor, "bins 1 most keys"]
    dtype: torch.dtype
    multiple: int

    @classmethod
    def of(
        cls,
        lengths: Int[Tensor, " classes"],
        prefix: int,
        groups: int,
        heads: int,
        device: torch.device,
        dtype: torch.dtype,
        multiple: int = 1,
    ) -> AttentionPattern:
        """The pattern for tails of these (ascending) lengths."""
        bins = Bins.of(lengths, prefix)
        owner, position = _owners(lengths, bins), torch.arange(bins.rows)
        within = (owner[:, None] == owner[:, :, None]) & (position <= position[:, None])
        seen = torch.cat([torch.ones(*owner.shape, prefix, dtype=torch.bool), within], dim=2)
        ends = _ends(owner, bins).clamp(min=0)
        by_ends = seen.gather(1, ends[:, :, None].expand(-1, -1, seen.shape[2]))
        causal = torch.ones(prefix, prefix, dtype=torch.bool).tril()
        masks = causal, seen[:, None], by_ends[:, None]
        causal, mask, end_mask = (torch.where(one, 0.0, -math.inf).to(device, dtype) for one in masks)
        return cls(groups, heads, prefix, lengths, bins, causal, mask, end_mask, dtype, multiple)

    @cached_property
    def projected(self) -> Gather:
        """Of rows of queries, keys and values: the prefix's (3, G, H, P), the tails' queries (1, G, B, H, T), and the keys
        and values that these meet, the prefix's first (2, G, B, H, K)."""
        prefix, tails, keys = self._sections()
        return self._gather(3, [((0, 1, 2), *prefix), ((0,), *tails), ((1, 2), *keys)])

    @cached_property
    def keys_values(self) -> Gather:
        """Of rows of keys and values: the prefix's (2, G, H, P), and what the end tokens meet (2, G, B, H, K)."""
        prefix, _, keys = self._sections()
        return self._gather(2, [((0, 1), *prefix), ((0, 1), *keys)])

    @cached_property
    def attended(self) -> Gather:
        """Of attended rows: the prefix's (1, G, H, P), the tails' (1, G, B, H, T)."""
        prefix, tails, _ = self._sections()
        return self._gather(1, [((0,), *prefix), ((0,), *tails)])

    @cached_property
    def ends(self) -> Gather:
        """Of rows of end tokens alone, one for each group and class: (1, G, B, H, E)."""
        owner = _owners(self.lengths, self.bins)
        ends = _ends(owner, self.bins)
        stands = ends >= 0
        classes = torch.where(stands, owner.gather(1, ends.clamp(min=0)), 0)
        rows = torch.arange(self.groups)[:, None, None] * len(self.lengths) + classes
        return self._gather(1, [((0,), rows, stands)])

    def _sections(self) -> tuple[tuple[Tensor, Tensor], ...]:
        """Which rows stand in a section, and where they do: of the prefix (G, P), tails (G, B, T), their keys (G, B, K)."""
        owner = _owners(self.lengths, self.bins)
        stands = owner >= 0
        within = torch.zeros_like(owner)  # a filler shows some row: nobody looks
        within[stands] = torch.arange(int(stands.sum()))
        group = torch.arange(self.groups)[:, None, None]
        prefix = group * self.prefix + torch.arange(self.prefix)
        tails = self.groups * self.prefix + group * int(self.lengths.sum()) + within
        copies = torch.zeros(len(owner), self.prefix, dtype=torch.bool)  # a prefix row comes back from its own section
        keys = torch.cat([prefix.expand(-1, len(owner), -1), tails], dim=2)
        return (prefix[:, 0], torch.tensor(True)), (tails, stands), (keys, torch.cat([copies, stands], dim=1))

    def _gather(self, n: int, sections: list[tuple[tuple[int, ...], Tensor, Tensor]]) -> Gather:
        """For rows with `n` things side by side, to sections of some of these."""
        head = torch.arange(self.heads)[:, None]
        taken, real = [], []
        for parts, rows, stands in sections:
            part = torch.tensor(parts).view(-1, *[1] * rows.ndim)
            taken.append((rows * n + part).unsqueeze(-2) * self.heads + head)
            real.append(stands.unsqueeze(-2 if stands.ndim else 0).expand(taken[-1].shape).flatten())
        to_batch, is_real = torch.cat([index.flatten() for index in taken]), torch.cat(real)
        heads = int(is_real.sum())
        to_rows = torch.zeros(heads + -heads % (n * self.heads * self.multiple), dtype=torch.long)
        to_rows[to_batch[is_real]] = is_real.nonzero()[:, 0]
        device = self.mask.device
        # These are held for every class as long as training lasts: four bytes each, not eight.
        to_batch, to_rows = (index.to(device, torch.int32) for index in (to_batch, to_rows))
        fillers = (~is_real).nonzero()[:, 0].to(device)
        return Gather(to_batch, to_rows, fillers, tuple(index.shape for index in taken), n * self.heads, self.dtype)


def _owners(lengths: Int[Tensor, " classes"], bins: Bins) -> Int[Tensor, "bins rows"]:
    """The class that each row of a bin belongs to; -1 for fillers."""
    stops = lengths.cumsum(0)
    first = torch.tensor(bins.starts)
    begins = stops[first] - lengths[first]
    row = begins[:, None] + torch.arange(bins.rows)
    owner = torch.searchsorted(stops, row, right=True)
    following = torch.tensor([*bins.starts[1:], len(lengths)])
    return torch.where(owner < following[:, None], owner, -1)


def _ends(owner: Int[Tensor, "bins rows"], bins: Bins) -> Int[Tensor, "bins most"]:
    """Where in each bin the end tokens stand, in order; -1 where there are no more."""
    following = torch.nn.functional.pad(owner[:, 1:], (0, 1), value=-1)
    is_end = (owner >= 0) & (owner != following)
    ends = torch.full((len(owner), bins.classes), -1)
    row, position = is_end.nonzero(as_tuple=True)
    ends[row, owner[row, position] - torch.tensor(bins.starts)[row]] = position
    return ends
