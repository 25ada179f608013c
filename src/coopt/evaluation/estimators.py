"""Methods by the names that jobs and saved prompts use."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from coopt.errors import ParameterError
from coopt.evaluation.job import jsonable
from coopt.methods.base import ClipClassifier
from coopt.methods.registry import METHODS


def estimator_of(method: str, parameters: Mapping[str, Any]) -> ClipClassifier:
    """An estimator that is not fitted yet.

    Raises:
        ParameterError: this coopt has no such method, or it has no such parameter.
    """
    if method not in METHODS:
        raise ParameterError(f"This coopt has no method {method!r}. It has {', '.join(METHODS)}.")
    try:
        return METHODS.get(method).from_parameters(parameters)
    except TypeError as error:
        raise ParameterError(f"The method {method!r} cannot be made with {dict(parameters)!r}: {error}.") from error


def distinguishing(estimator: ClipClassifier) -> dict[str, Any]:
    """The parameters that distinguish an estimator, all of them, ready for JSON; the seed is the protocol's to set."""
    return jsonable({name: value for name, value in estimator.parameters.items() if name != "seed"})
