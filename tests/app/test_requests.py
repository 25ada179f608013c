"""Requests: strict inside, lenient at the door, the same after JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coopt import app
from coopt.app.assignments import assignment, value_of
from coopt.app.requests import Request
from coopt.errors import ParameterError
from coopt.training.recipe import Recipe

REQUESTS: list[Request] = [
    app.FitRequest.of(data="photos", out="x", n_ctx=4, recipe={"epochs": 3}, value_range=[0, 4095], root="DATA"),
    app.PredictRequest.of(prompt="p", images=[Path("a"), "b/*.png"], class_names=["a", "b"], copy_to="sorted"),
    app.EvaluateRequest.of(prompt="p", data="photos", split="all", class_names="names.json"),
    app.ZeroShotRequest.of(data="photos", templates="a {}.", ensemble=True),
    app.CompareRequest.of(data="photos", methods=["coop", ("coop", {"n_ctx": 4})], folds=2, budget=9.5),
]


@pytest.mark.parametrize("request_", REQUESTS, ids=lambda one: type(one).__name__)
def test_a_request_is_the_same_after_json(request_: Request) -> None:
    again = type(request_).of(json.loads(json.dumps(request_.to_dict())))
    assert again == request_


def test_what_people_write_becomes_strict() -> None:
    request = app.FitRequest.of(data="photos", out="x", n_ctx=4, parameters={"csc": True}, recipe=Recipe(epochs=2))
    assert (request.data, request.out) == (Path("photos"), Path("x"))
    assert request.parameters == {"csc": True, "n_ctx": 4, "recipe": Recipe(epochs=2)}
    assert request.to_dict()["parameters"]["recipe"]["epochs"] == 2
    assert app.FitRequest.of(request, n_ctx=8).parameters["n_ctx"] == 8
    assert request.parameters["n_ctx"] == 4
    assert app.PredictRequest.of(prompt="p", images="one.png").images == ("one.png",)


def test_a_field_that_there_is_not_is_refused() -> None:
    with pytest.raises(ParameterError, match="PredictRequest has no field 'top_k'. Did you mean topk?"):
        app.PredictRequest.of(prompt="p", top_k=3)
    with pytest.raises(ParameterError, match="FitRequest has no field 'lost'. Its fields are "):
        app.FitRequest.of({"data": "photos", "lost": 1})


def test_asking_imports_nothing_heavy() -> None:
    code = (
        "import sys, coopt; coopt.app.FitRequest.of(data='photos'); coopt.app.PredictRequest; "
        "print({'torch', 'numpy'} & {*sys.modules})"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.text(min_size=1)
)


@given(VALUES | st.lists(VALUES, max_size=3))
def test_a_parameter_as_text_is_read_again(value: Any) -> None:
    name, equals, text = assignment("alpha", value).partition("=")
    assert (name, equals) == ("alpha", "=")
    read = value_of(text)
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize(
    ("value", "text"),
    [(True, "true"), (None, "none"), (2.0, "2.0"), ("an {}.", "an {}."), ("3", '"3"'), (["a", 1], '["a", 1]')],
)
def test_texts_are_those_that_people_type(value: Any, text: str) -> None:
    assert assignment("x", value) == f"x={text}"
