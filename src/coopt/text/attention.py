"""Attention of prefix and tails: each tail sees the whole prefix and, causally, itself.

Tails lie packed, one after the other in order of length. Neighbours share a *bin*: a few dozen rows that attend together to
the prefix and to each other, where a mask hides from each tail what belongs to the others. So a layer's attention is one
batch of matrix products of one shape, whatever the lengths. A bin that its tails do not fill has fillers at its end, which
no tail sees. The prefix attends to itself apart from them.

The gradient is written out by hand: autograd would make a matrix of zeros for every slice and a copy for every join, which
for this few rows costs as much as the arithmetic.

To attend, rows are laid out anew, head by head ("places"): one gather there and one back.

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
"""What moving a row of a head to its place costs, in scores."""


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
    """Heads of rows to places and back.

    Attributes:
        to_places: for every place the head of a row that stands there.
        to_rows: for every head of every row its place.
        filled: the places of fillers.
        shapes: of the sections that places come in.
        heads: n * H, side by side in a row.
        dtype: of places.
    """

    to_places: Int[Tensor, " places"]
    to_rows: Int[Tensor, " heads"]
    filled: Int[Tensor, " filled"]
    shapes: tuple[tuple[int, ...], ...]
    heads: int
    dtype: torch.dtype

    def spread(self, rows: Float[Tensor, "rows features"]) -> Float[Tensor, "places depth"]:
        """Rows at their places."""
        return rows.to(self.dtype).view(-1, rows.shape[1] // self.heads).index_select(0, self.to_places)

    def pack(self, places: Float[Tensor, "places depth"]) -> Float[Tensor, "rows features"]:
        """Places back to rows."""
        return places.index_select(0, self.to_rows).view(-1, self.heads * places.shape[1])

    def views(self, places: Float[Tensor, "places depth"]) -> list[tuple[Tensor, ...]]:
        """What lies side by side in a row, for each section: (*shape[1:], depth) as often as shape[0] says."""
        parts = places.split([math.prod(shape) for shape in self.shapes])
        sections = zip(parts, self.shapes, strict=True)
        return [part.view(*shape, places.shape[1]).unbind() for part, shape in sections]


@dataclass(frozen=True, eq=False)
class Layout:
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
    ) -> Layout:
        """The layout for tails of these (ascending) lengths."""
        bins = Bins.of(lengths, prefix)
        owner, place = _owners(lengths, bins), torch.arange(bins.rows)
        within = (owner[:, None] == owner[:, :, None]) & (place <= place[:, None])
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
        copies = torch.zeros(len(owner), self.prefix, dtype=torch.bool)  # a prefix row's place is in its own section
        keys = torch.cat([prefix.expand(-1, len(owner), -1), tails], dim=2)
        return (prefix[:, 0], torch.tensor(True)), (tails, stands), (keys, torch.cat([copies, stands], dim=1))

    def _gather(self, n: int, sections: list[tuple[tuple[int, ...], Tensor, Tensor]]) -> Gather:
        """For rows with `n` things side by side, to sections of some of these."""
        head = torch.arange(self.heads)[:, None]
        found, real = [], []
        for parts, rows, stands in sections:
            part = torch.tensor(parts).view(-1, *[1] * rows.ndim)
            found.append((rows * n + part).unsqueeze(-2) * self.heads + head)
            real.append(stands.unsqueeze(-2 if stands.ndim else 0).expand(found[-1].shape).flatten())
        to_places, is_real = torch.cat([index.flatten() for index in found]), torch.cat(real)
        heads = int(is_real.sum())
        to_rows = torch.zeros(heads + -heads % (n * self.heads * self.multiple), dtype=torch.long)
        to_rows[to_places[is_real]] = is_real.nonzero()[:, 0]
        device = self.mask.device
        # These are held for every class as long as training lasts: four bytes each, not eight.
        to_places, to_rows = (index.to(device, torch.int32) for index in (to_places, to_rows))
        filled = (~is_real).nonzero()[:, 0].to(device)
        return Gather(to_places, to_rows, filled, tuple(index.shape for index in found), n * self.heads, self.dtype)


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
    row, place = is_end.nonzero(as_tuple=True)
    ends[row, owner[row, place] - torch.tensor(bins.starts)[row]] = place
    return ends


class Attention(torch.autograd.Function):
    """Attended rows (R, W) of queries, keys and values side by side (R, 3 W)."""

    @staticmethod
    def forward(ctx, rows: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]
        places = layout.projected.spread(rows)
        (own_queries, own_keys, own_values), (queries,), (keys, values) = layout.projected.views(places)
        attended = places.new_empty(len(layout.attended.to_places), places.shape[1])
        (of_prefix,), (of_tails,) = layout.attended.views(attended)
        own = _attend(own_queries, own_keys, own_values, layout.causal, of_prefix)
        ctx.save_for_backward(places, own, _attend(queries, keys, values, layout.mask, of_tails))
        ctx.layout, ctx.dtype = layout, rows.dtype
        return layout.attended.pack(attended).to(rows.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        layout: Layout = ctx.layout
        places, own, weights = ctx.saved_tensors
        given = layout.attended.spread(grad.contiguous()).index_fill_(0, layout.attended.filled, 0.0)
        (to_prefix,), (to_tails,) = layout.attended.views(given)
        of_prefix, of_tails, seen = layout.projected.views(places)
        grads = torch.empty_like(places)
        grad_prefix, grad_tails, grad_seen = layout.projected.views(grads)
        _attend_backward(to_prefix, own, of_prefix, grad_prefix)
        _attend_backward(to_tails, weights, (*of_tails, *seen), (*grad_tails, *grad_seen))
        for grad_own, grad_copies in zip(grad_prefix[1:], grad_seen, strict=True):
            grad_own += grad_copies[..., : layout.prefix, :].sum(1)
        return layout.projected.pack(grads).to(ctx.dtype), None


class EndAttention(torch.autograd.Function):
    """Attended rows of the end tokens alone (G * C, W), from their queries and everybody's keys and values (R, 2 W)."""

    @staticmethod
    def forward(ctx, rows: Tensor, asked: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]
        places, asking = layout.keys_values.spread(rows), layout.ends.spread(asked)
        _, (keys, values) = layout.keys_values.views(places)
        ((queries,),) = layout.ends.views(asking)
        attended = torch.empty_like(asking)
        ((out,),) = layout.ends.views(attended)
        ctx.save_for_backward(places, asking, _attend(queries, keys, values, layout.end_mask, out))
        ctx.layout, ctx.dtype = layout, rows.dtype
        return layout.ends.pack(attended).to(rows.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        layout: Layout = ctx.layout
        places, asking, weights = ctx.saved_tensors
        _, seen = layout.keys_values.views(places)
        given = layout.ends.spread(grad.contiguous()).index_fill_(0, layout.ends.filled, 0.0)
        grads, grad_asking = torch.empty_like(places), torch.empty_like(asking)
        grad_prefix, grad_seen = layout.keys_values.views(grads)
        queries, (to_ends,), grad_queries = (layout.ends.views(one)[0] for one in (asking, given, grad_asking))
        _attend_backward(to_ends, weights, (*queries, *seen), (*grad_queries, *grad_seen))
        for grad_own, grad_copies in zip(grad_prefix, grad_seen, strict=True):
            torch.sum(grad_copies[..., : layout.prefix, :], 1, out=grad_own)
        back = layout.keys_values.pack(grads), layout.ends.pack(grad_asking)
        return back[0].to(ctx.dtype), back[1].to(ctx.dtype), None


def _attend(
    query: Float[Tensor, "*batch queries depth"],
    key: Float[Tensor, "*batch keys depth"],
    value: Float[Tensor, "*batch keys depth"],
    mask: Float[Tensor, "*some queries keys"],
    out: Float[Tensor, "*batch queries depth"],
) -> Float[Tensor, "*batch queries keys"]:
    """Writes the attended queries; returns the attention weights."""
    weights = torch.add(mask, query @ key.mT, alpha=query.shape[-1] ** -0.5).softmax(dim=-1)
    torch.matmul(weights, value, out=out)
    return weights


def _attend_backward(
    grad: Float[Tensor, "*batch queries depth"],
    weights: Float[Tensor, "*batch queries keys"],
    asked: tuple[Tensor, ...],
    out: tuple[Tensor, ...],
) -> None:
    """Writes the gradients of queries, keys and values (`asked`) to `out`.

    With scores s = scale * q k', weights w = softmax(s), attended o = w v:
    dv = w' do, dw = do v', ds = w * (dw - sum(w * dw)), dq = scale * ds k, dk = scale * ds' q.
    """
    (query, key, value), (grad_query, grad_key, grad_value) = asked, out
    scores = torch._softmax_backward_data(grad @ value.mT, weights, -1, weights.dtype)
    scores *= query.shape[-1] ** -0.5
    torch.matmul(scores, key, out=grad_query)
    torch.matmul(scores.mT, query, out=grad_key)
    torch.matmul(weights.mT, grad, out=grad_value)
