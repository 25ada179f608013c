"""scikit-learn's conventions for a classifier, kept without importing scikit-learn.

Its import (with scipy.stats and scipy.sparse) takes as long as loading a model and reading an image together, and neither
learning a prompt nor predicting needs it. What only scikit-learn's own tools ask for (tags, the error of an estimator that
is not fitted) is taken from it when it is asked for. The contract's tests run `clone`, `cross_val_score`, `GridSearchCV`
and pipelines on every method.
"""

from __future__ import annotations

from typing import Any

from coopt.parameters import Declared


class Estimator(Declared):
    """Base of classifiers with declared parameters."""

    _estimator_type = "classifier"
    """What scikit-learn before 1.6 asks for; later ones ask for `__sklearn_tags__`."""

    def __sklearn_tags__(self) -> Any:
        from sklearn.base import BaseEstimator, ClassifierMixin

        return type("Classifier", (ClassifierMixin, BaseEstimator), {})().__sklearn_tags__()


def check_fitted(estimator: Any, attribute: str) -> None:
    """Refuses an estimator that has not learned anything yet.

    Raises:
        NotFittedError: scikit-learn's; it lacks the fitted attribute.
    """
    if hasattr(estimator, attribute):
        return
    from sklearn.exceptions import NotFittedError

    raise NotFittedError(f"This {type(estimator).__name__} is not fitted yet. Call fit(images, labels), or load one.")
