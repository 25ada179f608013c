"""Attention of prefix and tails, whose rows `pattern.py` lays out.

What comes before the softmax and what comes behind it has a gradient written out by hand: autograd would make a matrix of
zeros for every slice and a copy for every join, which for this few rows costs as much as the arithmetic. Both halves write
into one matrix of gradients: the half behind the softmax makes it and fills in what belongs to values, the half before it
fills in queries and keys.

With scores s = scale * q k', weights w = softmax(s), attended o = w v:
dv = w' do, dw = do v', ds = w * (dw - sum(w * dw)), dq = scale * ds k, dk = scale * ds' q.
"""

from __future__ import annotations

from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.text.pattern import AttentionPattern


def attention(rows: Float[Tensor, "rows qkv"], pattern: AttentionPattern) -> Float[Tensor, "rows width"]:
    """Attended rows of queries, keys and values side by side (R, 3 W)."""
    among_prefix, of_tails, batch = cast(tuple[Tensor, ...], _Scores.apply(rows, pattern))
    return cast(Tensor, _Attended.apply(among_prefix.softmax(-1), of_tails.softmax(-1), batch, rows.dtype, pattern))


def end_attention(
    rows: Float[Tensor, "rows keys_values"], asked: Float[Tensor, "ends width"], pattern: AttentionPattern
) -> Float[Tensor, "ends width"]:
    """Attended rows of the end tokens alone (G * C), from their queries and everybody's keys and values (R, 2 W)."""
    scores, batch = cast(tuple[Tensor, ...], _EndScores.apply(rows, asked, pattern))
    return cast(Tensor, _EndAttended.apply(scores.softmax(-1), batch, rows.dtype, pattern))


class _Scores(torch.autograd.Function):
    """Scores of the prefix and of the tails, and the batch whose values they will weigh."""

    @staticmethod
    def forward(ctx, rows: Tensor, pattern: AttentionPattern) -> tuple[Tensor, ...]:  # type: ignore[override]
        batch = pattern.projected.spread(rows)
        (prefix_queries, prefix_keys, _), (queries,), (keys, _) = pattern.projected.views(batch)
        ctx.save_for_backward(batch)
        ctx.pattern, ctx.dtype = pattern, rows.dtype
        among_prefix = scores_of(prefix_queries, prefix_keys, pattern.causal)
        return among_prefix, scores_of(queries, keys, pattern.mask), batch

    @staticmethod
    def backward(  # type: ignore[override]
        ctx, grad_among_prefix: Tensor, grad_of_tails: Tensor, grads: Tensor
    ) -> tuple[Tensor, None]:
        pattern: AttentionPattern = ctx.pattern
        (batch,) = ctx.saved_tensors
        of_prefix, (queries,), (keys, _) = pattern.projected.views(batch)
        grad_prefix, (grad_queries,), grad_seen = pattern.projected.views(grads)
        scores_backward(grad_among_prefix, of_prefix[0], of_prefix[1], grad_prefix[0], grad_prefix[1])
        scores_backward(grad_of_tails, queries, keys, grad_queries, grad_seen[0])
        for grad_once, grad_copies in zip(grad_prefix[1:], grad_seen, strict=True):
            grad_once += grad_copies[..., : pattern.prefix, :].sum(1)
        return pattern.projected.pack(grads).to(ctx.dtype), None


class _Attended(torch.autograd.Function):
    """Rows of weighed values."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, among_prefix: Tensor, of_tails: Tensor, batch: Tensor, dtype: torch.dtype, pattern: AttentionPattern
    ) -> Tensor:
        of_prefix, _, (_, values) = pattern.projected.views(batch)
        attended = batch.new_empty(len(pattern.attended.to_batch), batch.shape[1])
        (to_prefix,), (to_tails,) = pattern.attended.views(attended)
        torch.matmul(among_prefix, of_prefix[2], out=to_prefix)
        torch.matmul(of_tails, values, out=to_tails)
        ctx.save_for_backward(among_prefix, of_tails, batch)
        ctx.pattern = pattern
        return pattern.attended.pack(attended).to(dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        pattern: AttentionPattern = ctx.pattern
        among_prefix, of_tails, batch = ctx.saved_tensors
        given = pattern.attended.spread(grad.contiguous()).index_fill_(0, pattern.attended.fillers, 0.0)
        (to_prefix,), (to_tails,) = pattern.attended.views(given)
        of_prefix, _, (_, values) = pattern.projected.views(batch)
        grads = _to_be_filled(batch)
        grad_prefix, _, (_, grad_values) = pattern.projected.views(grads)
        torch.matmul(among_prefix.mT, to_prefix, out=grad_prefix[2])
        torch.matmul(of_tails.mT, to_tails, out=grad_values)
        return to_prefix @ of_prefix[2].mT, to_tails @ values.mT, grads, None, None


class _EndScores(torch.autograd.Function):
    """Scores of the end tokens, and the batch whose values they will weigh."""

    @staticmethod
    def forward(ctx, rows: Tensor, asked: Tensor, pattern: AttentionPattern) -> tuple[Tensor, ...]:  # type: ignore[override]
        batch, asking = pattern.keys_values.spread(rows), pattern.ends.spread(asked)
        _, (keys, _) = pattern.keys_values.views(batch)
        ((queries,),) = pattern.ends.views(asking)
        ctx.save_for_backward(batch, asking)
        ctx.pattern, ctx.dtype = pattern, rows.dtype
        return scores_of(queries, keys, pattern.end_mask), batch

    @staticmethod
    def backward(ctx, grad: Tensor, grads: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        pattern: AttentionPattern = ctx.pattern
        batch, asking = ctx.saved_tensors
        grad_asking = torch.empty_like(asking)
        _, (keys, _) = pattern.keys_values.views(batch)
        grad_prefix, grad_seen = pattern.keys_values.views(grads)
        (queries,), (grad_queries,) = (pattern.ends.views(one)[0] for one in (asking, grad_asking))
        scores_backward(grad, queries, keys, grad_queries, grad_seen[0])
        for grad_once, grad_copies in zip(grad_prefix, grad_seen, strict=True):
            torch.sum(grad_copies[..., : pattern.prefix, :], 1, out=grad_once)
        back = pattern.keys_values.pack(grads), pattern.ends.pack(grad_asking)
        return back[0].to(ctx.dtype), back[1].to(ctx.dtype), None


class _EndAttended(torch.autograd.Function):
    """Rows of weighed values of the end tokens."""

    @staticmethod
    def forward(  # type: ignore[override]
        ctx, weights: Tensor, batch: Tensor, dtype: torch.dtype, pattern: AttentionPattern
    ) -> Tensor:
        _, (_, values) = pattern.keys_values.views(batch)
        attended = batch.new_empty(len(pattern.ends.to_batch), batch.shape[1])
        ((out,),) = pattern.ends.views(attended)
        torch.matmul(weights, values, out=out)
        ctx.save_for_backward(weights, batch)
        ctx.pattern = pattern
        return pattern.ends.pack(attended).to(dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        pattern: AttentionPattern = ctx.pattern
        weights, batch = ctx.saved_tensors
        given = pattern.ends.spread(grad.contiguous()).index_fill_(0, pattern.ends.fillers, 0.0)
        ((to_ends,),) = pattern.ends.views(given)
        _, (_, values) = pattern.keys_values.views(batch)
        grads = _to_be_filled(batch)
        _, (_, grad_values) = pattern.keys_values.views(grads)
        torch.matmul(weights.mT, to_ends, out=grad_values)
        return to_ends @ values.mT, grads, None, None


def _to_be_filled(batch: Tensor) -> Tensor:
    """Memory for the gradient of a batch: what is not written here is, before anybody reads it, by the scores' half."""
    return torch.zeros_like(batch) if torch.is_anomaly_enabled() else torch.empty_like(batch)


def scores_of(
    query: Float[Tensor, "*batch queries depth"],
    key: Float[Tensor, "*batch keys depth"],
    mask: Float[Tensor, "*some queries keys"],
) -> Float[Tensor, "*batch queries keys"]:
    """What the softmax is given."""
    return torch.add(mask, query @ key.mT, alpha=query.shape[-1] ** -0.5)


def scores_backward(grad: Tensor, query: Tensor, key: Tensor, grad_query: Tensor, grad_key: Tensor) -> None:
    """Writes the gradients of queries and keys, given that of their scores, which is scaled in place."""
    grad *= query.shape[-1] ** -0.5
    torch.matmul(grad, key, out=grad_query)
    torch.matmul(grad.mT, query, out=grad_key)
