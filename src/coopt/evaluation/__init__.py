"""How good predictions are: metrics, and the protocols of the papers."""

from coopt.evaluation.metrics import (
    ClassAccuracy,
    Confusion,
    Evaluation,
    Summary,
    accuracy_interval,
    compare,
    confusion_counts,
    evaluate,
    harmonic_mean,
    means_over,
    most_mistaken,
    scores_among,
    summarize,
    surest_mistakes,
)

__all__ = [
    "ClassAccuracy",
    "Confusion",
    "Evaluation",
    "Summary",
    "accuracy_interval",
    "compare",
    "confusion_counts",
    "evaluate",
    "harmonic_mean",
    "means_over",
    "most_mistaken",
    "scores_among",
    "summarize",
    "surest_mistakes",
]
