"""How good predictions are."""

from coopt.evaluation.metrics import ClassAccuracy, Confusion, Evaluation, Summary, compare, evaluate, summarize

__all__ = ["ClassAccuracy", "Confusion", "Evaluation", "Summary", "compare", "evaluate", "summarize"]
