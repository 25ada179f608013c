"""Attention of prefix and tails: each tail sees the whole prefix and, causally, itself.

Tails lie packed, one after the other in order of length. Those of similar length attend together in a *bucket*, where the
shorter ones are filled up at their end; a filled place comes after all that is real, so no real token ever sees it. The
prefix is a bucket too: one class, with nothing before it.

The gradient is written out by hand: autograd would make a matrix of zeros for every slice and a copy for every join, which
for this few rows costs as much as the arithmetic.

Notation: G groups, H heads, C classes, P prefix tokens, S places of a tail in its bucket, K = P + S.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

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
        classes: C.
        length: S.
        rows: how many packed rows the tails have.
        places: where those rows stand among the C * S places; None when they are all there is.
        causal: what is added to the scores of every token: zero, or minus infinity for what it must not see.
        causal_end: the same for the end tokens alone.
    """

    classes: int
    length: int
    rows: int
    places: Int[Tensor, " rows"] | None
    causal: Float[Tensor, "length keys"]
    causal_end: Float[Tensor, "classes 1 keys"]

    def to(self, device: torch.device) -> Bucket:
        """The bucket with its tensors on `device`."""
        return replace(self, **{k: v.to(device) for k, v in vars(self).items() if isinstance(v, Tensor)})


def make_bucket(lengths: Int[Tensor, " classes"], prefix: int) -> Bucket:
    """One bucket for tails of these lengths behind a prefix."""
    classes, length = len(lengths), int(lengths.max())
    place = torch.arange(length)
    real = place < lengths[:, None]
    minus_infinity = torch.tensor(float("-inf"))
    return Bucket(
        classes=classes,
        length=length,
        rows=int(lengths.sum()),
        places=None if bool(real.all()) else real.flatten().nonzero()[:, 0],
        causal=F.pad(torch.where(place <= place[:, None], 0.0, minus_infinity), (prefix, 0)),
        causal_end=F.pad(torch.where(real, 0.0, minus_infinity)[:, None], (prefix, 0)),
    )


def make_buckets(lengths: Int[Tensor, " classes"], prefix: int) -> tuple[Bucket, ...]:
    """Buckets for tails whose lengths are in ascending order, with the fewest filled places and buckets in all."""
    sizes, counts = (found.tolist() for found in torch.unique_consecutive(lengths, return_counts=True))
    best: list[tuple[float, int]] = [(0.0, 0)]  # for the first i sizes: the cost, and where the last bucket begins
    for i in range(1, len(sizes) + 1):
        best.append(min((best[j][0] + BUCKET_COST + sizes[i - 1] * sum(counts[j:i]), j) for j in range(i)))
    starts = [0, *torch.tensor(counts).cumsum(0).tolist()]
    buckets, i = [], len(sizes)
    while i:
        j = best[i][1]
        buckets.append(make_bucket(lengths[starts[j] : starts[i]], prefix))
        i = j
    return tuple(reversed(buckets))


@dataclass(frozen=True)
class Layout:
    """How rows map to groups, prefix and tails.

    Attributes:
        groups, heads: G and H.
        prefix: the prefix as a bucket; None when nothing is shared.
        buckets: the tails.
        dtype: what attention computes in.
    """

    groups: int
    heads: int
    prefix: Bucket | None
    buckets: tuple[Bucket, ...]
    dtype: torch.dtype

    def prefix_of(self, rows: Float[Tensor, "rows features"]) -> Float[Tensor, "groups prefix features"]:
        """The part of the rows that is the prefix (a view)."""
        length = self.prefix.rows if self.prefix else 0
        return rows[: self.groups * length].view(self.groups, length, rows.shape[1])

    def tails_of(self, rows: Float[Tensor, "rows features"]) -> list[Float[Tensor, "groups run features"]]:
        """The parts of the rows that are the buckets' tails (views)."""
        length = self.prefix.rows if self.prefix else 0
        tails = rows[self.groups * length :]
        sizes = [bucket.rows for bucket in self.buckets]
        return list(tails.view(self.groups, sum(sizes), rows.shape[1]).split(sizes, dim=1))

    def to_heads(
        self, rows: Float[Tensor, "groups run features"], bucket: Bucket, parts: int
    ) -> Float[Tensor, "parts groups heads classes length depth"]:
        """`parts` things that lie side by side in packed rows (queries, keys, values), at their places, by head."""
        if bucket.places is not None:
            spread = rows.new_zeros(self.groups, bucket.classes * bucket.length, rows.shape[2])
            rows = spread.index_copy_(1, bucket.places, rows)
        split = rows.reshape(self.groups, bucket.classes, bucket.length, parts, self.heads, -1)
        return split.permute(3, 0, 4, 1, 2, 5).to(self.dtype).contiguous()

    def write_rows(
        self, heads: Float[Tensor, "parts groups heads classes length depth"], bucket: Bucket, rows: Tensor
    ) -> None:
        """The way back: writes into `rows`, a view (G, run, features) of packed rows."""
        joined = heads.permute(1, 3, 4, 0, 2, 5).reshape(self.groups, bucket.classes * bucket.length, rows.shape[2])
        rows.copy_(joined if bucket.places is None else joined.index_select(1, bucket.places))


class Attention(torch.autograd.Function):
    """Attended rows (R, W) of queries, keys and values side by side (R, 3 W).

    With `queries` (G * C, W), those of the end tokens alone, the rows hold keys and values (R, 2 W), and only the end
    tokens' attended rows (G * C, W) are computed.
    """

    @staticmethod
    def forward(ctx, rows: Tensor, queries: Tensor | None, layout: Layout) -> Tensor:  # type: ignore[override]
        parts = 3 if queries is None else 2
        attended = rows.new_empty(len(rows if queries is None else queries), rows.shape[1] // parts)
        before, saved = None, []
        if layout.prefix is not None:
            prefix = layout.to_heads(layout.prefix_of(rows), layout.prefix, parts)
            before = prefix[-2:, :, :, 0]
            saved = [prefix]
            if queries is None:
                result, weights = _attend(prefix[0], prefix[1:], None, layout.prefix.causal)
                layout.write_rows(result[None], layout.prefix, layout.prefix_of(attended))
                saved += [weights]
        outs = layout.tails_of(attended) if queries is None else _by_bucket(attended, layout)
        asked = None if queries is None else _by_bucket(queries, layout)
        for i, (bucket, run) in enumerate(zip(layout.buckets, layout.tails_of(rows), strict=True)):
            tails = layout.to_heads(run, bucket, parts)
            if asked is None:
                result, weights = _attend(tails[0], tails[1:], before, bucket.causal)
                layout.write_rows(result[None], bucket, outs[i])
                saved += [tails, weights]
            else:
                own = _ends_to_heads(asked[i], layout)
                result, weights = _attend(own, tails, before, bucket.causal_end)
                outs[i].copy_(_ends_to_rows(result))
                saved += [tails, weights, own]
        ctx.save_for_backward(*saved)
        ctx.layout, ctx.only_ends, ctx.shape = layout, queries is not None, rows.shape
        return attended

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:  # type: ignore[override]
        layout: Layout = ctx.layout
        saved = iter(ctx.saved_tensors)
        grad = grad.contiguous()
        grad_rows = grad.new_empty(ctx.shape)
        before = grad_before = None
        if layout.prefix is not None:
            prefix = next(saved)
            prefix_weights = None if ctx.only_ends else next(saved)
            before = prefix[-2:, :, :, 0]
            grads = torch.zeros_like(prefix)
            grad_before = grads[-2:, :, :, 0]
            if prefix_weights is not None:
                given = layout.to_heads(layout.prefix_of(grad), layout.prefix, 1)[0]
                _attend_backward(given, prefix[0], prefix[1:], prefix_weights, None, None, grads[0], grads[1:])
        grad_queries = torch.empty_like(grad) if ctx.only_ends else None
        asked = layout.tails_of(grad) if grad_queries is None else _by_bucket(grad, layout)
        for i, (bucket, run) in enumerate(zip(layout.buckets, layout.tails_of(grad_rows), strict=True)):
            tails, weights = next(saved), next(saved)
            own = torch.empty_like(tails)
            if grad_queries is None:
                given = layout.to_heads(asked[i], bucket, 1)[0]
                _attend_backward(given, tails[0], tails[1:], weights, before, grad_before, own[0], own[1:])
            else:
                given, query = _ends_to_heads(asked[i], layout), next(saved)
                grad_query = torch.empty_like(query)
                _attend_backward(given, query, tails, weights, before, grad_before, grad_query, own)
                _by_bucket(grad_queries, layout)[i].copy_(_ends_to_rows(grad_query))
            layout.write_rows(own, bucket, run)
        if layout.prefix is not None:
            layout.write_rows(grads, layout.prefix, layout.prefix_of(grad_rows))
        return grad_rows, grad_queries, None


def _attend(
    query: Float[Tensor, "groups heads classes queries depth"],
    own: Float[Tensor, "2 groups heads classes tokens depth"],
    before: Float[Tensor, "2 groups heads prefix depth"] | None,
    mask: Float[Tensor, "*classes queries keys"],
) -> tuple[Tensor, Tensor]:
    """Attended queries and the attention weights (G, H, C, queries, K).

    Args:
        query: who asks.
        own: keys and values of each class.
        before: the prefix's keys and values. Their scores are one matrix product for all classes: they are never repeated.
        mask: what is added to the scores.
    """
    scores = query @ own[0].transpose(-1, -2)
    if before is not None:
        scores = torch.cat([_per_class(_flat(query) @ before[0].transpose(-1, -2), query), scores], dim=-1)
    weights = torch.add(mask, scores, alpha=query.shape[-1] ** -0.5).softmax(dim=-1).to(own.dtype)
    prefix = weights.shape[-1] - own.shape[-2]
    attended = weights[..., prefix:] @ own[1]
    if before is not None:
        attended += _per_class(_flat(weights[..., :prefix]) @ before[1], query)
    return attended, weights


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


def _by_bucket(ends: Float[Tensor, "ends width"], layout: Layout) -> list[Float[Tensor, "groups classes width"]]:
    """Rows of end tokens (G * C, W), by bucket (views)."""
    return list(ends.view(layout.groups, -1, ends.shape[1]).split([b.classes for b in layout.buckets], dim=1))


def _ends_to_heads(ends: Float[Tensor, "groups classes width"], layout: Layout) -> Tensor:
    split = ends.unflatten(2, (layout.heads, -1)).transpose(1, 2)
    return split.to(layout.dtype).contiguous()[:, :, :, None]


def _ends_to_rows(ends: Float[Tensor, "groups heads classes 1 depth"]) -> Tensor:
    return ends[:, :, :, 0].transpose(1, 2).flatten(2)
