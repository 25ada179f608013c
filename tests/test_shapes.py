"""What the checks of annotated calls find: all that jaxtyping's own decorator finds, at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import jaxtyping
import pytest
import torch
from beartype import beartype
from beartype.roar import BeartypeCallHintViolation
from jaxtyping import Float, TypeCheckError
from torch import Tensor

from coopt.inference import heads
from tests import shapes

if TYPE_CHECKING:
    from decimal import Decimal

BOTH = [shapes.jaxtyped, shapes._THEIRS]


def add(a: Float[Tensor, "n d"], b: Float[Tensor, "n d"], *, times: int = 1) -> Float[Tensor, "n d"]:
    return a + times * b


def turn(a: Float[Tensor, "n d"]) -> Float[Tensor, "d n"]:
    return a


def nested(a: Float[Tensor, "n d"]) -> Float[Tensor, "n d"]:
    return add(a[:, :1], a[:, :1]) + a


def pad(a: Float[Tensor, " n"], more: int) -> Float[Tensor, " n+{more}"]:
    return torch.cat([a, torch.zeros(2)])


def rows(a: Float[Tensor, "n d"]) -> Iterator[Tensor]:
    yield from a


def only_for_type_checkers(a: Float[Tensor, " n"]) -> Decimal | None:
    return None


@pytest.mark.parametrize("decorator", BOTH)
@pytest.mark.parametrize(
    ("fn", "arguments"),
    [
        (add, (torch.zeros(2, 3), torch.zeros(3, 2))),
        (add, (torch.zeros(2, 3), torch.zeros(2, 3, dtype=torch.long))),
        (add, (torch.zeros(2, 3), [[0.0]])),
        (add, (torch.zeros(6), torch.zeros(6))),
        (turn, (torch.zeros(2, 3),)),
        (pad, (torch.zeros(3), 1)),
        (rows, (torch.zeros(3),)),
    ],
)
def test_wrong_shapes_kinds_and_results_are_found(decorator: Any, fn: Any, arguments: tuple[Any, ...]) -> None:
    with pytest.raises((BeartypeCallHintViolation, TypeCheckError)):
        decorator(fn, typechecker=beartype)(*arguments)


@pytest.mark.parametrize("decorator", BOTH)
def test_keywords_are_checked_and_right_calls_pass(decorator: Any) -> None:
    checked: Callable[..., Any] = decorator(typechecker=beartype)(add)
    with pytest.raises((BeartypeCallHintViolation, TypeCheckError)):
        checked(torch.zeros(2, 3), b=torch.zeros(2, 3), times="two")
    assert checked(torch.zeros(2, 3), b=torch.ones(2, 3), times=2).sum() == 12
    assert checked(torch.zeros(4, 1), torch.ones(4, 1)).sum() == 4  # sizes hold for one call
    assert decorator(nested, typechecker=beartype)(torch.ones(2, 3)).sum() == 18
    assert len(list(decorator(rows, typechecker=beartype)(torch.ones(2, 3)))) == 2
    assert decorator(pad, typechecker=beartype)(torch.ones(3), 2).sum() == 3


@pytest.mark.parametrize(
    ("fn", "by_beartype_alone"),
    [(add, True), (turn, True), (pad, False), (rows, False), (only_for_type_checkers, False), (list.append, False)],
)
def test_what_beartype_does_not_know_alone_is_left_to_jaxtyping(fn: Any, by_beartype_alone: bool) -> None:
    assert bool(shapes._annotations(fn)) == by_beartype_alone


def test_this_package_is_checked() -> None:
    assert jaxtyping.jaxtyped is shapes.jaxtyped
    with pytest.raises(BeartypeCallHintViolation):
        heads.LinearHead(weight=torch.zeros(3), bias=torch.zeros(3, 3))


@pytest.mark.usefixtures("unchecked")
def test_checks_can_be_put_off() -> None:
    assert shapes.jaxtyped(add, typechecker=beartype)(1, 2) == 3
