"""scikit-learn's conventions for a classifier, kept without importing scikit-learn.

Its import (with scipy.stats and scipy.sparse) takes as long as loading a model and reading an image together, and neither
learning a prompt nor predicting needs it. What only scikit-learn's own tools ask for (tags, the error of an estimator that
is not fitted) is taken from it when it is asked for. The contract's tests run `clone`, `cross_val_score`, `GridSearchCV`
and pipelines on every method.
"""

from __future__ import annotations

import inspect
from functools import lru_cache
from typing import Any

from coopt.errors import ParameterError


class Estimator:
    """Base of classifiers whose constructor keeps its parameters under their own names, and does nothing else."""

    _estimator_type = "classifier"
    """What scikit-learn before 1.6 asks for; later ones ask for `__sklearn_tags__`."""

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """The constructor's parameters by name; none of them is an estimator itself, so `deep` changes nothing."""
        return {name: getattr(self, name) for name in sorted(_defaults(type(self)))}

    def set_params(self, **params: Any) -> Any:
        """Changes parameters, which take effect when `fit` is called; returns the estimator.

        Raises:
            ParameterError: there is no such parameter.
        """
        known = _defaults(type(self))
        for name, value in params.items():
            if name not in known:
                raise ParameterError(
                    f"{type(self).__name__} has no parameter {name!r}. Its parameters are {', '.join(sorted(known))}."
                )
            setattr(self, name, value)
        return self

    def __sklearn_tags__(self) -> Any:
        from sklearn.base import BaseEstimator, ClassifierMixin

        return type("Classifier", (ClassifierMixin, BaseEstimator), {})().__sklearn_tags__()

    def __repr__(self) -> str:
        """The call that makes it: parameters that are not as usual."""
        changed = [
            f"{name}={getattr(self, name)!r}"
            for name, usual in _defaults(type(self)).items()
            if repr(getattr(self, name)) != repr(usual)
        ]
        return f"{type(self).__name__}({', '.join(changed)})"


def check_fitted(estimator: Estimator, attribute: str) -> None:
    """Refuses an estimator that has not learned anything yet.

    Raises:
        NotFittedError: scikit-learn's; it lacks the fitted attribute.
    """
    if hasattr(estimator, attribute):
        return
    from sklearn.exceptions import NotFittedError

    raise NotFittedError(f"This {type(estimator).__name__} is not fitted yet. Call fit(images, labels), or load one.")


@lru_cache
def _defaults(cls: type) -> dict[str, Any]:
    """The constructor's parameters and what they are when not given."""
    parameters = inspect.signature(cls).parameters
    return {name: parameter.default for name, parameter in parameters.items()}
