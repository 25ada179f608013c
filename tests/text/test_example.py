"""The example drawn in the head of `text/fast.py` is what the code makes."""

from __future__ import annotations

import re

import torch

from coopt.backbones import Backbone
from coopt.text import fast
from coopt.text.layout import context_prompts
from coopt.text.plan import ChunkPlan, make_plan

NAMES = ["cat", "dog", "red cat"]
N_CTX = 2


def plan_of(backbone: Backbone) -> ChunkPlan:
    prompts = context_prompts(backbone, NAMES, N_CTX)
    order = torch.argsort(prompts.lengths, stable=True)
    return make_plan(prompts, order, 1, backbone.text, torch.float32, {})


def drawn(backbone: Backbone) -> str:
    """One line for each row of the matrix: its number, what it holds, and which rows it sees."""
    plan, framing = plan_of(backbone), backbone.tokenizer.framing
    words = {framing.start: "start", framing.end: "end"}

    def token(number: int, index: int) -> str:
        return f"V{index + 1}" if index >= 0 else words.get(number) or backbone.tokenizer.decode([number])

    pairs = [(plan.prefix_ids, plan.prefix_context), (plan.tail_ids, plan.tail_context)]
    held = [token(*pair) for ids, index in pairs for pair in zip(ids.tolist(), index.tolist(), strict=True)]
    pattern, n_prefix, n_rows = plan.pattern, len(plan.prefix_ids), len(held)
    sees = torch.zeros(n_rows, n_rows, dtype=torch.bool)
    sees[:n_prefix, :n_prefix] = pattern.causal == 0
    assert pattern.bins.shape[:2] == (1, n_rows - n_prefix)  # so few tails share one bin
    sees[n_prefix:] = pattern.mask[0, 0] == 0
    ends = set(plan.end_rows.tolist())
    lines = [f"row  holds  sees rows 0 to {n_rows - 1}"]
    for row, what in enumerate(held):
        marks = "".join("x" if seen else "." for seen in sees[row].tolist())
        spread = " ".join((marks[:n_prefix], *_by_class(marks[n_prefix:], plan)))
        lines.append(f"{row:3}  {what:5}  {spread}{'  read out' if row in ends else ''}")
    return "\n".join(lines)


def _by_class(marks: str, plan: ChunkPlan) -> list[str]:
    counts = torch.bincount(plan.tail_class).tolist()
    starts = [sum(counts[:i]) for i in range(len(counts))]
    return [marks[start : start + count] for start, count in zip(starts, counts, strict=True)]


def test_the_drawing_is_the_matrix(backbone: Backbone) -> None:
    head = re.sub(r"(?m)^    ", "", fast.__doc__ or "")
    assert drawn(backbone) in head, f"draw this in text/fast.py:\n\n{drawn(backbone)}"


def test_rows_of_the_drawing(backbone: Backbone) -> None:
    """Three classes of two and three tokens behind a shared prefix of three: 13 rows instead of 3 x 77."""
    plan = plan_of(backbone)
    assert len(plan.prefix_ids) == 1 + N_CTX and len(plan.tail_ids) == 3 + 3 + 4
    assert plan.end_rows.tolist() == [5, 8, 12]
