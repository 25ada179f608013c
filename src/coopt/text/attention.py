"""Attention of prefix and tails, whose rows `pattern.py` lays out.

The gradient is written out by hand: autograd would make a matrix of zeros for every slice and a copy for every join, which
for this few rows costs as much as the arithmetic.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.text.pattern import AttentionPattern
from coopt.text.recorded import Recorded, gradients_of, recorded


class Attention(torch.autograd.Function):
    """Attended rows (R, W) of queries, keys and values side by side (R, 3 W)."""

    @staticmethod
    def forward(ctx, rows: Tensor, pattern: AttentionPattern) -> Tensor:  # type: ignore[override]
        batch, learning = pattern.projected.spread(rows), ctx.needs_input_grad[0]
        of_prefix, (queries,), seen = pattern.projected.views(batch)
        attended = batch.new_empty(len(pattern.attended.to_batch), batch.shape[1])
        (to_prefix,), (to_tails,) = pattern.attended.views(attended)
        among_prefix = attend(of_prefix, pattern.causal, to_prefix, learning)
        of_tails = attend((queries, *seen), pattern.mask, to_tails, learning)
        ctx.save_for_backward(batch, *among_prefix, *of_tails)
        ctx.pattern, ctx.dtype = pattern, rows.dtype
        return pattern.attended.pack(attended).to(rows.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        pattern: AttentionPattern = ctx.pattern
        batch, *saved = ctx.saved_tensors
        among_prefix, of_bins = Recorded(*saved[:2]), Recorded(*saved[2:])
        given = pattern.attended.spread(grad.contiguous()).index_fill_(0, pattern.attended.fillers, 0.0)
        (to_prefix,), (to_tails,) = pattern.attended.views(given)
        of_prefix, of_tails, seen = pattern.projected.views(batch)
        grads = torch.empty_like(batch)
        grad_prefix, grad_tails, grad_seen = pattern.projected.views(grads)
        attend_backward(
            (to_prefix, among_prefix, of_prefix, grad_prefix),
            (to_tails, of_bins, (*of_tails, *seen), (*grad_tails, *grad_seen)),
        )
        for grad_once, grad_copies in zip(grad_prefix[1:], grad_seen, strict=True):
            grad_once += grad_copies[..., : pattern.prefix, :].sum(1)
        return pattern.projected.pack(grads).to(ctx.dtype), None


class EndAttention(torch.autograd.Function):
    """Attended rows of the end tokens alone (G * C, W), from their queries and everybody's keys and values (R, 2 W)."""

    @staticmethod
    def forward(ctx, rows: Tensor, asked: Tensor, pattern: AttentionPattern) -> Tensor:  # type: ignore[override]
        batch, asking = pattern.keys_values.spread(rows), pattern.ends.spread(asked)
        _, seen = pattern.keys_values.views(batch)
        ((queries,),) = pattern.ends.views(asking)
        attended = torch.empty_like(asking)
        ((out,),) = pattern.ends.views(attended)
        weights = attend((queries, *seen), pattern.end_mask, out, any(ctx.needs_input_grad))
        ctx.save_for_backward(batch, asking, *weights)
        ctx.pattern, ctx.dtype = pattern, rows.dtype
        return pattern.ends.pack(attended).to(rows.dtype)

    @staticmethod
    def backward(ctx, grad: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        pattern: AttentionPattern = ctx.pattern
        batch, asking, *weights = ctx.saved_tensors
        _, seen = pattern.keys_values.views(batch)
        given = pattern.ends.spread(grad.contiguous()).index_fill_(0, pattern.ends.fillers, 0.0)
        grads, grad_asking = torch.empty_like(batch), torch.empty_like(asking)
        grad_prefix, grad_seen = pattern.keys_values.views(grads)
        queries, (to_ends,), grad_queries = (pattern.ends.views(one)[0] for one in (asking, given, grad_asking))
        attend_backward((to_ends, Recorded(*weights), (*queries, *seen), (*grad_queries, *grad_seen)))
        for grad_once, grad_copies in zip(grad_prefix, grad_seen, strict=True):
            torch.sum(grad_copies[..., : pattern.prefix, :], 1, out=grad_once)
        back = pattern.keys_values.pack(grads), pattern.ends.pack(grad_asking)
        return back[0].to(ctx.dtype), back[1].to(ctx.dtype), None


def attend(
    asked: tuple[Tensor, ...],
    mask: Float[Tensor, "*some queries keys"],
    out: Float[Tensor, "*batch queries depth"],
    learning: bool = True,
) -> Recorded:
    """Writes what is attended; returns the attention weights (*batch, queries, keys).

    Args:
        asked: queries (*batch, queries, depth), keys and values (*batch, keys, depth).
        mask: what is added to the scores.
        out: where the attended queries go.
        learning: whether a gradient will be asked for.
    """
    query, key, value = asked
    # Recorded from the mask on, which is there in any case: the scores need not be kept.
    products = query @ key.mT
    weights = recorded(lambda m: torch.add(m, products, alpha=query.shape[-1] ** -0.5).softmax(dim=-1), mask, learning)
    torch.matmul(weights.result, value, out=out)
    return weights


Asked = tuple[Tensor, Recorded, tuple[Tensor, ...], tuple[Tensor, ...]]


def attend_backward(*attended: Asked) -> None:
    """Writes the gradients of queries, keys and values.

    With scores s = scale * q k', weights w = softmax(s), attended o = w v:
    dv = w' do, dw = do v', ds = w * (dw - sum(w * dw)), dq = scale * ds k, dk = scale * ds' q.

    Args:
        attended: for each `attend` the gradient of what it wrote; the weights that it returned; queries, keys and values;
            where the gradients of these go.
    """
    asked = [(weights.handle, grad @ value.mT) for grad, weights, (_, _, value), _ in attended]
    of_scores = gradients_of(*asked)
    del asked
    for (grad, weights, (query, key, _), (grad_query, grad_key, grad_value)), scores in zip(
        attended, of_scores, strict=True
    ):
        scores *= query.shape[-1] ** -0.5
        torch.matmul(scores, key, out=grad_query)
        torch.matmul(scores.mT, query, out=grad_key)
        torch.matmul(weights.result.mT, grad, out=grad_value)
