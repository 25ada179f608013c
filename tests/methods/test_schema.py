"""`schema.json` is what the classes say, and is read without importing them."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from coopt.methods import schema
from coopt.methods.registry import METHODS
from coopt.methods.schema import MethodSchema, builtin_methods, made, schema_of, schema_text
from tools.methods_page import PAGE, with_tables


def test_it_is_current() -> None:
    written = schema.FILE.read_text(encoding="utf-8")
    known = json.loads(written)["$defs"]["methods"]
    assert written == schema_text(made(known)), "run `make schema`"


def test_the_tables_of_the_page_are_current() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == with_tables(page), "run `make schema`"
    assert all(f"| `{name}` | `{one.title}` |" in page for name, one in builtin_methods().items())


def test_a_method_that_is_not_listed_yet_comes_last() -> None:
    known = [name for name in METHODS if name != "kgcoop"]
    assert [*made(dict.fromkeys(known))["$defs"]["methods"]] == [*known, "kgcoop"]


@pytest.mark.parametrize("method", list(METHODS))
def test_what_is_read_is_what_the_class_says(method: str) -> None:
    cls, read = METHODS.get(method), builtin_methods()[method]
    assert read == schema_of(cls) and cls.method == method and read.title == cls.__name__
    assert MethodSchema.from_schema(method, json.loads(json.dumps(read.to_schema()))) == read
    assert read.paper and (read.published or method == "prompt_ensemble") and read.summary.endswith(".")
    assert {one.name for one in read.parameters} | set(schema.OF_CALLERS) == set(cls().get_params(deep=False))
    assert all(one.help for one in read.parameters)


def test_options_of_a_configuration_file() -> None:
    document = made(builtin_methods())
    options = document["properties"]
    assert options["n-ctx"]["minimum"] == 1 and options["position"]["enum"] == ["end", "middle", "front"]
    assert options["csc"]["description"].startswith("Vectors of its own") and "guide-weight" not in options
    assert "zero_shot" not in options["method"]["enum"] and options["epochs"]["type"] == ["integer", "null"]


def test_reading_imports_nothing_heavy() -> None:
    code = "import sys, coopt.methods.registry; print({'torch', 'numpy', 'coopt.methods.base'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
