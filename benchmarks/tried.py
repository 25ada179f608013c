"""What was tried and not taken, measured again against what was taken.

    python benchmarks/tried.py [--model ViT-B-16] [--classes 100] [--n-ctx 16] [--repeats 10] [--only NAME ...] [--json FILE]

- `compile`: the second half of each block (attention's projection, LayerNorm, the feed-forward layers) through
  `torch.compile`, in a whole training step of CoOp; the first call compiles.
- `attention`: torch's `scaled_dot_product_attention`, for the bins of one layer, forward and backward.
- `packed`: weights laid out beforehand by MKL or oneDNN, for all linear layers of the text tower, forward and backward.
- `trie`: the share of tail tokens that class names have in common with another class from their start, which a tree of
  tokens would compute once.

The ways take turns, in one process. Seconds are the fastest of the repeats, ratios how many times ours they take.
A way that this installation does not offer (no C++ compiler, no such operation) is left out with the reason.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.nn import functional as F

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import precisions_here, say, seconds, spread
from benchmarks.names import class_names, imagenet_names
from benchmarks.report import add_json_option, on_screen, report
from benchmarks.steps import Step, device, random_backbone
from coopt.backbones.text_tower import OpenBlock
from coopt.text.attention import scores_backward, scores_of
from coopt.text.encode import TextEncoder
from coopt.text.fast import FastPass
from coopt.text.feed_forward import QUICK_GELU
from coopt.text.layout import Prompts, context_prompts
from coopt.text.pattern import AttentionPattern
from coopt.training.heap import kept_heap

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

Row = dict[str, Any]
"""A way: its precision, name and seconds, or the reason why it was left out ("skipped")."""


def in_turn(ways: dict[str, Callable[[], Any]], repeats: int) -> dict[str, dict[str, float]]:
    """The spread of every way's seconds; its first call does not count."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    with kept_heap():
        for run in ways.values():
            run()
        for _ in range(repeats):
            for name, run in ways.items():
                times[name].append(seconds(run))
        for name, taken in times.items():
            say(f"{name}: {1e3 * min(taken):.2f} ms")
    return {name: spread(values) for name, values in times.items()}


def rows_of(precision: str, times: dict[str, dict[str, float]]) -> list[Row]:
    """A row for every way; the first is ours."""
    ours = next(iter(times.values()))["fastest"]
    return [
        {"precision": precision, "way": name, **measured, "ratio": measured["fastest"] / ours}
        for name, measured in times.items()
    ]


def second_half(
    x: Tensor,
    attended: Tensor,
    eps: float,
    out: Tensor,
    out_bias: Tensor,
    norm: Tensor,
    norm_bias: Tensor,
    *layers: Tensor,
) -> Tensor:
    """What a compiler is given: the second half of a block as the tower has it.

    All weights are arguments, so that it is compiled once for all blocks.
    """
    fc, fc_bias, proj, proj_bias = layers
    x = x + F.linear(attended, out, out_bias)
    hidden = F.linear(F.layer_norm(x, x.shape[-1:], norm, norm_bias, eps).to(fc.dtype), fc, fc_bias)
    return x + F.linear(hidden * torch.sigmoid(QUICK_GELU * hidden), proj, proj_bias)


def compiled(step: Step, precisions: Sequence[str], repeats: int) -> list[Row]:
    """Steps with the second half of blocks compiled."""
    compiler = os.environ.get("CXX", "g++")
    if device() == "cpu" and not shutil.which(compiler):
        reason = f"there is no C++ compiler ({compiler})"
        return [{"precision": name, "way": "torch.compile", "skipped": reason} for name in precisions]
    rows = []
    for precision in precisions:
        torch.compiler.reset()
        run, compile_half = step.way(precision), torch.compile(second_half, dynamic=False)

        def rest(
            self: FastPass, x: Tensor, attended: Tensor, block: OpenBlock, half: Callable[..., Tensor] = compile_half
        ) -> Tensor:
            layers = block.out_proj, cast(nn.LayerNorm, block.ln_2), block.fc, block.proj
            return half(x, attended, layers[1].eps, *(one for layer in layers for one in (layer.weight, layer.bias)))

        def with_compiled(run: Callable[[], Tensor] = run, rest: Callable[..., Tensor] = rest) -> Tensor:
            with patch.object(FastPass, "_rest", rest):
                return run()

        first = seconds(with_compiled)
        measured_rows = rows_of(precision, in_turn({"ours": run, "torch.compile": with_compiled}, repeats))
        measured_rows[1] |= {"first_s": first, "difference": difference(with_compiled(), run())}
        rows += measured_rows
    return rows


def difference(a: Tensor, b: Tensor) -> float:
    """Relative to the second."""
    return float((a.float() - b.float()).norm() / b.float().norm())


def attention(prompts: Prompts, heads: int, depth: int, precisions: Sequence[str], repeats: int) -> list[Row]:
    """Tails that attend to the prefix and themselves, one layer, forward and backward.

    Args:
        prompts: whose bins are used.
        heads: H.
        depth: of a head.
        precisions: names of `DTYPES`.
        repeats: measured calls.
    """
    tails = (prompts.lengths - prompts.shared).sort().values
    where = torch.device(device())
    generator = torch.Generator().manual_seed(0)
    rows = []
    for precision in precisions:
        dtype = DTYPES[precision]
        pattern = AttentionPattern.of(tails, prompts.shared, 1, heads, where, dtype)
        bins, length, _ = pattern.bins.shape
        sizes = (length, *[prompts.shared + length] * 2, length)
        query, key, value, grad = (
            torch.randn(bins, heads, n, depth, generator=generator).to(where, dtype) for n in sizes
        )

        def ours(
            q: Tensor = query, k: Tensor = key, v: Tensor = value, g: Tensor = grad, mask: Tensor = pattern.mask
        ) -> Tensor:
            scores = scores_of(q, k, mask).requires_grad_()
            weights = scores.softmax(-1)
            out, grads = weights.detach() @ v, (torch.empty_like(q), torch.empty_like(k))
            (of_scores,) = torch.autograd.grad(weights, scores, g @ v.mT)
            scores_backward(of_scores, q, k, *grads)
            return torch.cat([one.flatten() for one in (out, *grads, weights.detach().mT @ g)])

        def theirs(
            q: Tensor = query, k: Tensor = key, v: Tensor = value, g: Tensor = grad, mask: Tensor = pattern.mask
        ) -> Tensor:
            leaves = [one.detach().requires_grad_() for one in (q, k, v)]
            out = F.scaled_dot_product_attention(*leaves, attn_mask=mask)
            gradients = torch.autograd.grad(out, leaves, g)
            return torch.cat([one.flatten() for one in (out.detach(), *gradients)])

        measured_rows = rows_of(precision, in_turn({"ours": ours, "scaled_dot_product_attention": theirs}, repeats))
        measured_rows[1]["difference"] = difference(theirs(), ours())
        rows += measured_rows
    return rows


Product = Callable[[Tensor], Tensor]


def packed(encoder: TextEncoder, dtype: torch.dtype, rows: int, repeats: int) -> list[Row]:
    """All linear layers of the text tower, as large as in a step: x W' + b forward and g W backward.

    Args:
        encoder: whose weights, in its precision.
        dtype: that precision.
        rows: tokens of a text pass.
        repeats: measured calls.
    """
    precision = next(name for name, one in DTYPES.items() if one is dtype)
    if device() != "cpu":
        return [{"precision": precision, "way": "packed weights", "skipped": "they are for CPUs"}]
    layers = []
    for block in encoder._pass.blocks:
        layers.append((block.qkv_weight, block.qkv_bias))
        layers += [(layer.weight, layer.bias) for layer in (block.out_proj, block.fc, block.proj)]
    weights = [(weight.detach(), None if bias is None else bias.detach()) for weight, bias in layers]
    weights += [(weight.T.contiguous(), None) for weight, _ in weights]  # backward, as layers of their own
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(rows, weight.shape[1], generator=generator).to(dtype) for weight, _ in weights]
    # Ours needs no transposed copy: a product takes either.
    n = len(layers)
    plain: list[Product] = [lambda x, w=w, b=b: F.linear(x, w, b) for w, b in weights[:n]]
    plain += [lambda x, w=w: x @ w for w, _ in weights[:n]]
    makers = {"MKL, packed": _mkl_packed, "oneDNN, packed": _dnn_packed}
    ways, extra, skipped = {"ours": plain}, {}, []
    for name, make in makers.items():
        try:
            made = [make(weight, bias, rows) for weight, bias in weights]
            made[0](inputs[0])
        except (AttributeError, NotImplementedError, RuntimeError) as error:
            reason = str(error).splitlines()[0]
            skipped.append({"precision": precision, "way": name, "skipped": reason})
            continue
        # MKL's product wants the plain weight too, so backward its transposed copies stay.
        copies = weights if name.startswith("oneDNN") else [*weights, *weights[n:]]
        ways[name], extra[name] = made, sum(weight.nbytes for weight, _ in copies)

    def run(products: list[Product]) -> None:
        for product, x in zip(products, inputs, strict=True):
            product(x)

    with torch.inference_mode():
        times = in_turn({name: lambda products=products: run(products) for name, products in ways.items()}, repeats)
    measured_rows = rows_of(precision, times)
    for row in measured_rows[1:]:
        row["extra_mb"] = extra[row["way"]] / 1e6
    return measured_rows + skipped


def _mkl_packed(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    if weight.dtype is not torch.float32:
        raise NotImplementedError("MKL packs float32 alone")
    ready = torch.ops.mkl._mkl_reorder_linear_weight(weight, rows)
    return lambda x: torch.ops.mkl._mkl_linear(x, ready, weight, bias, rows)


def _dnn_packed(weight: Tensor, bias: Tensor | None, rows: int) -> Product:
    ready = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, ready, bias, "none", [], "")


def trie(prompts: Prompts, names: str) -> Row:
    """What a tree over the tails would save."""
    tails = [
        tuple(ids[prompts.shared : length])
        for ids, length in zip(prompts.token_ids.tolist(), prompts.lengths.tolist(), strict=True)
    ]
    tokens = sum(map(len, tails))
    nodes = len({tail[:stop] for tail in tails for stop in range(1, len(tail) + 1)})
    return {"names": names, "tail_tokens": tokens, "in_a_tree": nodes, "saved": 1 - nodes / tokens}


def measure(arguments: argparse.Namespace) -> dict[str, Any]:
    """The chosen comparisons."""
    backbone, names = random_backbone(arguments.model), class_names(arguments.classes)
    step, n_ctx, only = Step(backbone, names, arguments.n_ctx, 32), arguments.n_ctx, arguments.only
    precisions, left_out = precisions_here(tuple(DTYPES))
    tower, result = backbone.text, {"left_out": left_out}
    if "compile" in only:
        result["compile"] = compiled(step, precisions, arguments.repeats)
    if "attention" in only:
        depth = tower.width // tower.heads
        result["attention"] = attention(step.prompts, tower.heads, depth, precisions, 10 * arguments.repeats)
    if "packed" in only:
        encoders = {name: TextEncoder(backbone, step.prompts, precision=name) for name in precisions}  # type: ignore[arg-type]
        result["packed"] = [
            row
            for name, encoder in encoders.items()
            for row in packed(encoder, DTYPES[name], encoder.rows, arguments.repeats)
        ]
    if "trie" in only:
        chosen = {
            "100 of Caltech101": class_names(100),
            "100 of ImageNet": imagenet_names(100),
            "1,000 of ImageNet": imagenet_names(1000),
        }
        result["trie"] = [trie(context_prompts(backbone, some, n_ctx), what) for what, some in chosen.items()]
    what = f"{arguments.model}, {arguments.classes} classes, M={n_ctx}, {device()}"
    return {"what": what, **result}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    parser.add_argument("--model", default="ViT-B-16", help="an open_clip architecture")
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--n-ctx", type=int, default=16, help="context vectors")
    parser.add_argument("--repeats", type=int, default=10, help="measured steps (ten times as many of attention alone)")
    alternatives = ("compile", "attention", "packed", "trie")
    parser.add_argument("--only", nargs="+", choices=alternatives, default=alternatives, metavar="NAME")
    arguments = parser.parse_args()
    result = measure(arguments)
    report(result, on_screen(sections.tried(result)), arguments)


if __name__ == "__main__":
    main()
