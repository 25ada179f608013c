"""Every annotated call of coopt is checked under test: by beartype, with jaxtyping's shapes, once.

jaxtyping's own decorator checks the parameters of a call twice, to say in its message which was wrong, and binds the
call to the signature before. These tests make hundreds of thousands of calls: the contract's took a third less time when
beartype checked parameters and result in one go, as here. What is checked is the same: `tests/test_shapes.py`. With a
jaxtyping that keeps the sizes of axes elsewhere, its own decorator is used.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from types import FunctionType
from typing import Any

import jaxtyping
from beartype import beartype
from jaxtyping import install_import_hook

try:
    from jaxtyping._storage import pop_shape_memo, push_shape_memo
except ImportError:  # it is not public
    pop_shape_memo = push_shape_memo = None

_THEIRS = jaxtyping.jaxtyped


def check_calls(package: str) -> None:
    """Functions and dataclasses of the package are checked in all modules that are imported from now on."""
    if push_shape_memo is not None:
        jaxtyping.jaxtyped = jaxtyped  # what the import hook puts before every function and class
    install_import_hook(package, "beartype.beartype")


def jaxtyped(fn: Any = None, **given: Any) -> Any:
    """In the place of jaxtyping's decorator, which stays for all that beartype does not know alone."""
    if fn is None:
        return functools.partial(jaxtyped, **given)
    annotations = _annotations(fn)
    return _checked(fn, annotations) if annotations else _THEIRS(fn, **given)


def _annotations(fn: Any) -> dict[str, Any] | None:
    """What the annotations of a plain function mean.

    None: they are names that exist for type checkers alone, axes computed of arguments, or a generator's.
    """
    if not isinstance(fn, FunctionType) or inspect.isgeneratorfunction(fn) or inspect.iscoroutinefunction(fn):
        return None
    if any("{" in str(annotation) for annotation in fn.__annotations__.values()):
        return None
    try:
        return inspect.get_annotations(fn, eval_str=True)
    except (NameError, AttributeError, TypeError):
        return None


def _checked(fn: FunctionType, annotations: dict[str, Any]) -> Callable[..., Any]:
    """The function, whose axes have sizes of their own in each call."""
    copy = FunctionType(fn.__code__, fn.__globals__, fn.__name__, fn.__defaults__, fn.__closure__)
    copy.__kwdefaults__, copy.__annotations__ = fn.__kwdefaults__, annotations
    copy.__module__, copy.__qualname__ = fn.__module__, fn.__qualname__
    inner = beartype(copy)

    @functools.wraps(fn)
    def call(*args: Any, **kwargs: Any) -> Any:
        __tracebackhide__ = True
        if jaxtyping.config.jaxtyping_disable:
            return fn(*args, **kwargs)
        push_shape_memo({})
        try:
            return inner(*args, **kwargs)
        finally:
            pop_shape_memo()

    return call
