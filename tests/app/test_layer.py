"""The layer keeps what it promises: it prints nothing, ends nothing, and knows of no command line."""

from __future__ import annotations

import ast
import dataclasses
import inspect
from pathlib import Path

import pytest

from coopt import app
from coopt.app import requests
from coopt.app.requests import Request

FILES = sorted((Path(__file__).parents[2] / "src" / "coopt" / "app").glob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_it_prints_nothing_and_ends_nothing(file: Path) -> None:
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] + [getattr(node, "module", None) or ""]
            assert not {"click", "rich"} & {name.split(".")[0] for name in names}, file
        if isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            assert called not in ("print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write"), file


def test_every_field_of_a_request_is_described() -> None:
    for cls in (one for _, one in inspect.getmembers(requests, inspect.isclass) if issubclass(one, Request)):
        lines = "\n".join(base.__doc__ or "" for base in cls.__mro__).splitlines()
        described = {name for line in lines if ":" in line for name in line.split(":")[0].replace(" ", "").split(",")}
        assert {field.name for field in dataclasses.fields(cls)} <= described, cls


def test_the_options_of_the_commands_are_fields(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever can be typed can be asked for in Python, by the same name."""
    from coopt.cli.compare import compare
    from coopt.cli.eval import eval
    from coopt.cli.fit import fit
    from coopt.cli.predict import predict
    from coopt.cli.zero_shot import zero_shot

    spelled_otherwise = {
        fit: {"n_ctx", "csc", "position", "init", "recipe", "epochs", "lr", "steps", "seconds", "set"},  # of the method
        predict: {"classes", "classes_file", "csv", "jsonl"},  # class_names and form
    }
    for command, request in (
        (fit, app.FitRequest),
        (predict, app.PredictRequest),
        (eval, app.EvaluateRequest),
        (zero_shot, app.ZeroShotRequest),
        (compare, app.CompareRequest),
    ):
        of_command_line = {"config", "json", "as_json", "debug", "threads"}
        options = {str(one.name) for one in command.params} - of_command_line - spelled_otherwise.get(command, set())
        assert options <= {field.name for field in dataclasses.fields(request)}, command.name
