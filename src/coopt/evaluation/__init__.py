"""How good predictions are: metrics, and the protocols of the papers."""

from coopt.evaluation.metrics import (
    ClassAccuracy,
    Confusion,
    Evaluation,
    Summary,
    accuracy_interval,
    compare,
    evaluate,
    harmonic_mean,
    means_over,
    scores_among,
    summarize,
)

__all__ = [
    "ClassAccuracy",
    "Confusion",
    "Evaluation",
    "Summary",
    "accuracy_interval",
    "compare",
    "evaluate",
    "harmonic_mean",
    "means_over",
    "scores_among",
    "summarize",
]
