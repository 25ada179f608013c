"""Parameters as data: what is declared once is the constructor, the check and the schema."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pytest
from sklearn.base import clone

from coopt.errors import ParameterError
from coopt.parameters import Declared, Parameter, declared_in, fitted, parameter
from coopt.wording import spoken


class Shape(Declared):
    """Something with a parameter of each kind."""

    name: str = parameter(default="square", kw_only=False, help="What it is called.")
    sides: int | None = parameter(default=None, low=3, option=True, metavar="N", help="How many sides.")
    scale: float = parameter(default=1.0, low=0, high=2)
    weight: float | None = parameter(default=None, above=0, said="None or a number > 0")
    closed: bool = parameter(default=False)
    fill: Literal["none", "flat", "dots"] = parameter(default="none", choices=("none", "flat", "dots"))
    edge: Literal["thin", "thick"] = parameter(default="thin", choices=("thin", "thick"))
    tags: list[str] | None = parameter(
        default=None, check=lambda value: "bad" not in value, said="a list without 'bad'"
    )
    area_: float = fitted()


class Solid(Shape):
    depth: float = parameter(default=1.0, low=0)
    closed: bool = parameter(default=True, help="Solids are.")


def test_the_constructor_keeps_what_it_is_given_and_does_nothing_else() -> None:
    tags = ["a"]
    shape = Shape("ring", sides=4, tags=tags)
    assert vars(shape) == {"name": "ring", "sides": 4, "scale": 1.0, "weight": None, "closed": False, "fill": "none"} | {
        "edge": "thin", "tags": tags
    }  # fmt: skip
    assert shape.tags is tags and not hasattr(shape, "area_") and not hasattr(Shape, "sides")


def test_the_signature_is_that_of_a_written_constructor() -> None:
    signature = inspect.signature(Solid)
    assert list(signature.parameters)[:4] == ["name", "depth", "closed", "sides"]
    assert signature.parameters["name"].kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
    assert {one.kind for n, one in signature.parameters.items() if n != "name"} == {inspect.Parameter.KEYWORD_ONLY}
    assert signature.parameters["closed"].default is True and signature.parameters["scale"].default == 1.0
    assert signature.parameters["sides"].annotation == "int | None"
    assert inspect.signature(Shape.__init__).parameters["self"]


@pytest.mark.parametrize(
    ("arguments", "given", "message"),
    [
        (("a", 4), {}, "takes 2 positional arguments but 3 were given"),
        ((), {"corners": 4}, "Shape() got an unexpected keyword argument 'corners'"),
        (("a",), {"name": "b"}, "multiple values for argument 'name'"),
    ],
)
def test_wrong_calls_are_errors_as_of_any_function(arguments: tuple, given: dict, message: str) -> None:
    with pytest.raises(TypeError) as caught:
        Shape(*arguments, **given)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"sides": 2}, "The 'sides' parameter of Shape must be an int >= 3. Got 2 instead."),
        ({"sides": 3.0}, "must be an int >= 3. Got 3.0 instead."),
        ({"sides": True}, "must be an int >= 3. Got True instead."),
        ({"scale": 2.5}, "The 'scale' parameter of Shape must be a number >= 0 and <= 2. Got 2.5 instead."),
        ({"scale": None}, "must be a number >= 0 and <= 2. Got None instead."),
        ({"scale": float("nan")}, "must be a number"),
        ({"scale": "1"}, "must be a number"),
        ({"weight": 0}, "must be None or a number > 0. Got 0 instead."),
        ({"weight": float("inf")}, "must be None or a number > 0"),
        ({"closed": 1}, "The 'closed' parameter of Shape must be True or False. Got 1 instead."),
        ({"fill": "full"}, "must be one of none, flat, dots. Got 'full' instead."),
        ({"fill": ["none"]}, "must be one of none, flat, dots."),
        ({"edge": "no"}, "must be 'thin' or 'thick'. Got 'no' instead."),
        ({"name": 3}, "must be text. Got 3 instead."),
        ({"tags": ["bad"]}, "must be a list without 'bad'. Got ['bad'] instead."),
    ],
)
def test_one_check(given: dict, message: str) -> None:
    with pytest.raises(ParameterError) as caught:
        Shape(**given).check_parameters()
    assert message in str(caught.value)


def test_numbers_of_numpy_are_as_good_as_python_s() -> None:
    Shape(sides=np.int64(3), scale=np.float32(0.5), weight=2).check_parameters()  # type: ignore[arg-type]


def test_messages_name_the_option_on_the_command_line() -> None:
    with spoken({"sides": "--sides"}), pytest.raises(ParameterError, match=r"^--sides must be an int >= 3\. Got 0"):
        Shape(sides=0).check_parameters()


def test_what_is_declared_again_replaces_the_base_s() -> None:
    closed = {one.name: one for one in Solid.parameters_declared}["closed"]
    assert (
        closed.default is True and closed.help == "Solids are." and Solid().closed is True and Shape().closed is False
    )
    assert len(Solid.parameters_declared) == len(Shape.parameters_declared) + 1


def test_scikit_learn_s_ways() -> None:
    shape = Shape(sides=5)
    assert list(shape.get_params()) == sorted(one.name for one in Shape.parameters_declared)
    assert clone(shape).get_params() == shape.get_params() and shape.set_params(sides=7) is shape and shape.sides == 7
    with pytest.raises(ParameterError, match=r"Shape has no parameter 'side'\. Its parameters are closed, edge, "):
        shape.set_params(side=1)
    assert repr(shape) == "Shape(sides=7)" and repr(Shape()) == "Shape()"
    for copied in (copy.copy(shape), copy.deepcopy(shape), pickle.loads(pickle.dumps(shape))):
        assert copied.get_params() == shape.get_params()


def test_parameters_that_have_parameters() -> None:
    class Frame(Declared):
        shape: Shape | None = parameter(default=None)

    frame = Frame(shape=Shape(sides=3))
    assert frame.get_params()["shape__sides"] == 3 and set(frame.get_params(deep=False)) == {"shape"}
    assert Frame().get_params() == {"shape": None}


def test_a_constructor_of_one_s_own_is_left_alone() -> None:
    class Written(Shape):
        def __init__(self) -> None:
            super().__init__("written")

    assert Written().name == "written" and str(inspect.signature(Written)) in ("()", "() -> None", "() -> 'None'")


@pytest.mark.parametrize("cls", [Shape, Solid])
def test_the_schema_says_all_but_the_check(cls: type[Declared]) -> None:
    for one in cls.parameters_declared:
        assert Parameter.from_schema(one.name, json.loads(json.dumps(one.to_schema()))) == one
    schema = {one.name: one.to_schema() for one in Shape.parameters_declared}
    assert schema["sides"]["type"] == ["integer", "null"] and schema["sides"]["minimum"] == 3
    assert schema["scale"]["maximum"] == 2 and schema["weight"]["exclusiveMinimum"] == 0
    assert schema["fill"]["enum"] == ["none", "flat", "dots"] and schema["closed"]["type"] == "boolean"


def test_dataclasses_declare_in_the_same_way() -> None:
    @dataclass(frozen=True)
    class Plain:
        name: str = "x"
        rate: float = parameter(default=0.1, low=0, help="How fast.")

    (rate,) = declared_in(Plain)
    assert (
        Plain().rate == 0.1 and rate.kind == "number" and rate.help == "How fast." and rate.expected == "a number >= 0"
    )
