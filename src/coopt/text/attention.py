"""Attention of prefix and tails: each tail sees the whole prefix and, causally, itself.

Tails lie packed, one after the other in order of length. Those of similar length attend together in a *bucket*, where the
shorter ones are filled up at their end; a filled place comes after all that is real, so no real token ever sees it. The
prefix is a bucket too: one class, with nothing before it.

The gradient is written out by hand: autograd would make a matrix of zeros for every slice and a copy for every join, which
for this few rows costs as much as the arithmetic.

To attend, rows are laid out anew, head by head ("places"): one gather there and one back, for all buckets together.

Notation: G groups, H heads, C classes, P prefix tokens, S places of a tail in its bucket, K = P + S.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

BUCKET_COST = 100
"""What one more bucket costs, in filled places: a few dozen small operations against a few rows of memory traffic."""


@dataclass(frozen=True, eq=False)
class Bucket:
    """Some classes whose tails attend together.

    Attributes:
        lengths: of the C tails, ascending.
        causal: what is added to the scores of every token: zero, or minus infinity for what it must not see.
        causal_end: the same for the end tokens alone.
    """

    lengths: Int[Tensor, " classes"]
    causal: Float[Tensor, "length keys"]
    causal_end: Float[Tensor, "classes 1 keys"]

    @property
    def shape(self) -> tuple[int, int]:
        """C and S."""
        return len(self.lengths), len(self.causal)


def make_bucket(lengths: Int[Tensor, " classes"], prefix: int, device: torch.device) -> Bucket:
    """One bucket for tails of these lengths behind a prefix."""
    place = torch.arange(int(lengths.max()))
    minus_infinity = torch.tensor(float("-inf"))
    causal = torch.where(place <= place[:, None], 0.0, minus_infinity)
    causal_end = torch.where(place < lengths[:, None], 0.0, minus_infinity)[:, None]
    return Bucket(lengths, F.pad(causal, (prefix, 0)).to(device), F.pad(causal_end, (prefix, 0)).to(device))


def bucket_bounds(lengths: Int[Tensor, " classes"]) -> list[tuple[int, int]]:
    """Which tails (from, to; lengths in ascending order) share a bucket: fewest filled places and buckets in all."""
    sizes, counts = (found.tolist() for found in torch.unique_consecutive(lengths, return_counts=True))
    best: list[tuple[float, int]] = [(0.0, 0)]  # for the first i sizes: the cost, and where the last bucket begins
    for i in range(1, len(sizes) + 1):
        best.append(min((best[j][0] + BUCKET_COST + sizes[i - 1] * sum(counts[j:i]), j) for j in range(i)))
    starts = [0, *torch.tensor(counts).cumsum(0).tolist()]
    bounds, i = [], len(sizes)
    while i:
        j = best[i][1]
        bounds.append((starts[j], starts[i]))
        i = j
    return bounds[::-1]


@dataclass(frozen=True, eq=False)
class Gather:
    """Rows with n things side by side (queries, keys, values), to places and back.

    Attributes:
        spread: for every place (bucket by bucket: n, G, H, C, S) the head of a row that stands there.
        pack: for every head of every row (R, n, H) its place.
        filled: the places that no row stands at.
    """

    spread: Int[Tensor, " places"]
    pack: Int[Tensor, " heads"]
    filled: Int[Tensor, " filled"]


@dataclass(frozen=True, eq=False)
class Layout:
    """How rows map to groups, prefix and tails.

    Rows come in the order: the prefix for each group, then for each group the tails, bucket by bucket.

    Attributes:
        groups: G.
        heads: H.
        prefix: P.
        buckets: the prefix as a bucket of its own (unless P is zero), then the tails.
        device: where the indices live.
        dtype: what attention computes in.
    """

    groups: int
    heads: int
    prefix: int
    buckets: tuple[Bucket, ...]
    device: torch.device
    dtype: torch.dtype
    _gathers: dict[int, Gather] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        lengths: Int[Tensor, " classes"],
        prefix: int,
        groups: int,
        heads: int,
        device: torch.device,
        dtype: torch.dtype,
    ) -> Layout:
        """The layout for tails of these (ascending) lengths."""
        first = (make_bucket(torch.tensor([prefix]), 0, device),) if prefix else ()
        tails = (make_bucket(lengths[start:stop], prefix, device) for start, stop in bucket_bounds(lengths))
        return cls(groups, heads, prefix, (*first, *tails), device, dtype)

    def gather(self, n: int) -> Gather:
        """The indices for rows with `n` things side by side."""
        if n not in self._gathers:
            self._gathers[n] = self._make_gather(n)
        return self._gathers[n]

    def _make_gather(self, n: int) -> Gather:
        spread, real = [], []
        tails = self.buckets[1:] if self.prefix else self.buckets
        per_group = sum(int(bucket.lengths.sum()) for bucket in tails)
        part = torch.arange(n)[:, None, None, None, None]
        head = torch.arange(self.heads)[:, None, None]
        group = torch.arange(self.groups)[:, None, None]
        start = self.groups * self.prefix
        for bucket in self.buckets:
            place = torch.arange(bucket.shape[1])
            stands = place < bucket.lengths[:, None]
            first = (bucket.lengths.cumsum(0) - bucket.lengths)[:, None]
            if self.prefix and bucket is self.buckets[0]:
                row = group * self.prefix + place
            else:
                row = start + group * per_group + first + place
                start += int(bucket.lengths.sum())
            row = torch.where(stands, row, 0)  # which row a filled place shows does not matter: nobody sees it
            spread.append(((row[None, :, None] * n + part) * self.heads + head).flatten())
            real.append(stands.expand(n, self.groups, self.heads, -1, -1).flatten())
        to_places, is_real = torch.cat(spread), torch.cat(real)
        back = torch.empty(int(is_real.sum()), dtype=torch.long)
        back[to_places[is_real]] = is_real.nonzero()[:, 0]
        filled = (~is_real).nonzero()[:, 0]
        # These are held for every class as long as training lasts: four bytes each, not eight.
        to_places, back = (index.to(self.device, torch.int32) for index in (to_places, back))
        return Gather(to_places, back, filled.to(self.device))

    def spread(self, rows: Float[Tensor, "rows features"], n: int) -> Float[Tensor, "places depth"]:
        """Rows at their places."""
        depth = rows.shape[1] // (n * self.heads)
        return rows.to(self.dtype).view(-1, depth).index_select(0, self.gather(n).spread)

    def pack(self, places: Float[Tensor, "places depth"], n: int) -> Float[Tensor, "rows features"]:
        """Places back to rows."""
        return places.index_select(0, self.gather(n).pack).view(-1, n * self.heads * places.shape[1])

    def views(self, places: Float[Tensor, "places depth"], n: int) -> list[Tensor]:
        """Each bucket's places: (n, G, H, C, S, depth)."""
        shapes = [(n, self.groups, self.heads, *bucket.shape) for bucket in self.buckets]
        parts = places.split([math.prod(shape) for shape in shapes])
        return [part.view(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]

    def by_bucket(self, ends: Float[Tensor, "ends width"]) -> list[Float[Tensor, "groups classes width"]]:
        """Rows of end tokens (G * C, W), by bucket of tails (views)."""
        tails = self.buckets[1:] if self.prefix else self.buckets
        return list(ends.view(self.groups, -1, ends.shape[1]).split([bucket.shape[0] for bucket in tails], dim=1))


class Attention(torch.autograd.Function):
    """Attended rows (R, W) of queries, keys and values side by side (R, 3 W)."""

    @staticmethod
    def forward(ctx, rows: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]
        places = layout.spread(rows, 3)
        attended = places.new_empty(len(places) // 3, places.shape[1])
        before, saved = None, []
        for i, (bucket, own, out) in enumerate(
            zip(layout.buckets, layout.views(places, 3), layout.views(attended, 1), strict=True)
        ):
            saved.append(_attend(own[0], own[1:], before, bucket.causal, out[0]))
            if i == 0 and layout.prefix:
                before = own[1:, :, :, 0]
        ctx.save_for_backward(places, *saved)
        ctx.layout, ctx.dtype = layout, rows.dtype
        return layout.pack(attended, 1).to(rows.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        layout: Layout = ctx.layout
        places, *weights = ctx.saved_tensors
        given = layout.spread(grad.contiguous(), 1).index_fill_(0, layout.gather(1).filled, 0.0)
        grads = torch.empty_like(places)
        before = grad_before = None
        parts = zip(layout.views(places, 3), layout.views(given, 1), layout.views(grads, 3), weights, strict=True)
        for i, (own, asked, out, weight) in enumerate(parts):
            _attend_backward(asked[0], own[0], own[1:], weight, before, grad_before, out[0], out[1:])
            if i == 0 and layout.prefix:
                before, grad_before = own[1:, :, :, 0], out[1:, :, :, 0]
        return layout.pack(grads, 3).to(ctx.dtype), None


class EndAttention(torch.autograd.Function):
    """Attended rows of the end tokens alone (G * C, W), from their queries and everybody's keys and values (R, 2 W)."""

    @staticmethod
    def forward(ctx, rows: Tensor, queries: Tensor, layout: Layout) -> Tensor:  # type: ignore[override]
        places = layout.spread(rows, 2)
        views = layout.views(places, 2)
        before = views.pop(0)[:, :, :, 0] if layout.prefix else None
        attended, saved = torch.empty_like(queries), []
        tails = layout.buckets[len(layout.buckets) - len(views) :]
        for bucket, own, asked, out in zip(
            tails, views, layout.by_bucket(queries), layout.by_bucket(attended), strict=True
        ):
            query = _ends_to_heads(asked, layout)
            result = torch.empty_like(query)
            saved += [query, _attend(query, own, before, bucket.causal_end, result)]
            out.copy_(_ends_to_rows(result))
        ctx.save_for_backward(places, *saved)
        ctx.layout, ctx.dtype = layout, rows.dtype
        return attended

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        layout: Layout = ctx.layout
        places, *saved = ctx.saved_tensors
        grads, grad_queries, grad = torch.empty_like(places), torch.empty_like(grad), grad.contiguous()
        views, grad_views = layout.views(places, 2), layout.views(grads, 2)
        before = grad_before = None
        if layout.prefix:
            before, grad_before = views.pop(0)[:, :, :, 0], grad_views.pop(0).zero_()[:, :, :, 0]
        parts = zip(views, grad_views, layout.by_bucket(grad), layout.by_bucket(grad_queries), strict=True)
        for i, (own, grad_own, asked, out) in enumerate(parts):
            query, weights = saved[2 * i : 2 * i + 2]
            grad_query = torch.empty_like(query)
            given = _ends_to_heads(asked, layout)
            _attend_backward(given, query, own, weights, before, grad_before, grad_query, grad_own)
            out.copy_(_ends_to_rows(grad_query))
        return layout.pack(grads, 2).to(ctx.dtype), grad_queries, None


def _attend(
    query: Float[Tensor, "groups heads classes queries depth"],
    own: Float[Tensor, "2 groups heads classes tokens depth"],
    before: Float[Tensor, "2 groups heads prefix depth"] | None,
    mask: Float[Tensor, "*classes queries keys"],
    out: Float[Tensor, "groups heads classes queries depth"],
) -> Float[Tensor, "groups heads classes queries keys"]:
    """Writes the attended queries; returns the attention weights.

    Args:
        query: who asks.
        own: keys and values of each class.
        before: the prefix's keys and values. Their scores are one matrix product for all classes: they are never repeated.
        mask: what is added to the scores.
        out: where the result goes.
    """
    scores = query @ own[0].transpose(-1, -2)
    if before is not None:
        scores = torch.cat([_per_class(_flat(query) @ before[0].transpose(-1, -2), query), scores], dim=-1)
    weights = torch.add(mask, scores, alpha=query.shape[-1] ** -0.5).softmax(dim=-1).to(own.dtype)
    prefix = weights.shape[-1] - own.shape[-2]
    torch.matmul(weights[..., prefix:], own[1], out=out)
    if before is not None:
        out += _per_class(_flat(weights[..., :prefix]) @ before[1], query)
    return weights


def _attend_backward(
    grad: Float[Tensor, "groups heads classes queries depth"],
    query: Float[Tensor, "groups heads classes queries depth"],
    own: Float[Tensor, "2 groups heads classes tokens depth"],
    weights: Float[Tensor, "groups heads classes queries keys"],
    before: Float[Tensor, "2 groups heads prefix depth"] | None,
    grad_before: Float[Tensor, "2 groups heads prefix depth"] | None,
    grad_query: Float[Tensor, "groups heads classes queries depth"],
    grad_own: Float[Tensor, "2 groups heads classes tokens depth"],
) -> None:
    """Writes the gradients of the query and of its own keys and values; adds those of `before` to `grad_before`.

    With scores s = scale * q k', weights w = softmax(s), attended o = w v:
    dv = w' do, dw = do v', ds = w * (dw - sum(w * dw)), dq = scale * ds k, dk = scale * ds' q.
    """
    prefix = weights.shape[-1] - own.shape[-2]
    grad_weights = grad @ own[1].transpose(-1, -2)
    if before is not None:
        to_prefix = _per_class(_flat(grad) @ before[1].transpose(-1, -2), grad)
        grad_weights = torch.cat([to_prefix, grad_weights], dim=-1)
    scores = torch._softmax_backward_data(grad_weights, weights, -1, weights.dtype)
    scores *= query.shape[-1] ** -0.5
    torch.matmul(scores[..., prefix:], own[0], out=grad_query)
    torch.matmul(scores[..., prefix:].transpose(-1, -2), query, out=grad_own[0])
    torch.matmul(weights[..., prefix:].transpose(-1, -2), grad, out=grad_own[1])
    if before is not None and grad_before is not None:
        to_prefix = _flat(scores[..., :prefix])
        grad_query += _per_class(to_prefix @ before[0], query)
        grad_before[0] += to_prefix.transpose(-1, -2) @ _flat(query)
        grad_before[1] += _flat(weights[..., :prefix]).transpose(-1, -2) @ _flat(grad)


def _flat(x: Float[Tensor, "groups heads classes queries last"]) -> Float[Tensor, "groups heads rows last"]:
    return x.flatten(2, 3)


def _per_class(x: Float[Tensor, "groups heads rows last"], like: Tensor) -> Tensor:
    return x.unflatten(2, like.shape[2:4])


def _ends_to_heads(ends: Float[Tensor, "groups classes width"], layout: Layout) -> Tensor:
    split = ends.unflatten(2, (layout.heads, -1)).transpose(1, 2)
    return split.to(layout.dtype).contiguous()[:, :, :, None]


def _ends_to_rows(ends: Float[Tensor, "groups heads classes 1 depth"]) -> Tensor:
    return ends[:, :, :, 0].transpose(1, 2).flatten(2)
