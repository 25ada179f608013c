"""Methods by name, with parameters as people give them: which method has which, and the sentence for one that it has not."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

from coopt.app.method_options import SEED, method_names
from coopt.app.requests import CompareRequest, FitRequest
from coopt.errors import ParameterError
from coopt.methods.base import ClipClassifier
from coopt.methods.configured import LOCAL_PARAMETERS
from coopt.methods.registry import METHODS
from coopt.runtime import Runtime
from coopt.wording import called

_USUAL = {"precision": "fp32", "text_path": "auto", "memory": "auto"}


def method_class(method: str, learns: bool = True) -> type[ClipClassifier]:
    """The class of a method.

    Args:
        method: its name.
        learns: it must learn from images.

    Raises:
        ParameterError: there is no such method.
    """
    known = method_names(learns)
    if method not in known:
        close = get_close_matches(method, known, n=2)
        hint = f"Did you mean {' or '.join(close)}?" if close else f"The methods are {', '.join(known)}."
        raise ParameterError(f"There is no method {method!r}{' that learns from images' * learns}. {hint}")
    return METHODS.get(method)


def parameters_of(method: str, learns: bool = True) -> tuple[str, ...]:
    """The names of a method's own parameters, those of the machine and of requests left out."""
    known = method_class(method, learns)().get_params(deep=False)
    return tuple(name for name in known if name not in LOCAL_PARAMETERS and name != SEED)


def make_estimator(
    method: str, parameters: Mapping[str, Any], learns: bool = True, **of_request: Any
) -> ClipClassifier:
    """A method with its parameters, which are checked; not fitted yet.

    Args:
        method: its name.
        parameters: its own.
        learns: it must learn from images; what it does not take of `of_request` is an error then.
        of_request: the seed, and what of the machine matters; what the method does not know is left out.

    Raises:
        ParameterError: a parameter that the method does not have, or a value that it does not take.
    """
    known = parameters_of(method, learns)
    for name in parameters:
        if name not in known:
            close = get_close_matches(name, known, n=2)
            hint = f"Did you mean {' or '.join(close)}? " if close else ""
            raise ParameterError(
                f"The method {method!r} has no parameter {name!r}. {hint}Its parameters are {', '.join(known) or 'none'}."
            )
    cls = method_class(method, learns)
    for name, usual in _USUAL.items():
        if learns and name not in cls.runtime_used() and of_request.get(name, usual) != usual:
            raise no_such_option(method, name)
    takes = cls().get_params(deep=False)
    runtime = Runtime(**{name: value for name, value in of_request.items() if name in cls.runtime_used()})
    estimator = cls(**{name: of_request[name] for name in of_request if name in takes}, **parameters, runtime=runtime)
    estimator.check_parameters()
    return estimator


def estimator_for(
    request: FitRequest | CompareRequest, method: str, parameters: Mapping[str, Any], learns: bool = True
) -> ClipClassifier:
    """`make_estimator`, with what a request says of the machine and the seed.

    Raises:
        ParameterError: see `make_estimator`.
    """
    of_request = {name: getattr(request, name) for name in ("precision", "text_path", "memory", SEED)}
    return make_estimator(method, parameters, learns, **of_request)


def no_such_option(method: str, name: str) -> ParameterError:
    """The sentence for an option that a method does not have."""
    return ParameterError(f"The method {method!r} has no {called(name)}. Leave it out, or choose another method.")
