"""Imports run one way only, as docs/architecture.md draws it, and never in a circle, from file to file.

Every import counts: those inside of functions, and those for type checkers alone.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "coopt"

ROOMS = {
    "backbones": set(),
    "data": {"backbones"},
    "training": {"backbones"},
    "text": {"backbones"},
    "prompts": {"backbones", "text"},
    "inference": {"backbones", "text", "prompts", "data"},
    "methods": {"backbones", "text", "prompts", "data", "training", "inference"},
    "evaluation": {"backbones", "text", "prompts", "data", "training", "inference", "methods"},
    "suites": {"backbones", "text", "prompts", "data", "training", "inference", "methods", "evaluation"},
    "report": {"backbones", "text", "prompts", "data", "training", "inference", "methods", "evaluation", "suites"},
}
"""What each room may import from, besides the modules that all use."""
ROOMS["app"] = {*ROOMS}
ROOMS["cli"] = {*ROOMS}

FOR_ALL = {
    "errors", "events", "files", "locks", "parameters", "progress", "registry", "runtime", "safe_pickle", "threads", "wording"
}  # fmt: skip
"""Modules that every room may use; they use each other alone."""

OUTSIDE = {"__init__", "__main__", "testing"}
"""Public faces, which may use everything; of the first only its version is used."""


NAMED = re.compile(r"coopt(\.\w+)+:\w+")
"""A text that names something in a module of coopt, as registries have it: the module is imported later."""


def module_of(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def modules() -> dict[str, Path]:
    return {module_of(file): file for file in sorted(SOURCE.rglob("*.py"))}


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """The files of coopt that a file imports, wherever in it, with the lines; a package's name stands for its `__init__`,
    which imports what its stub says."""
    text = file.read_text(encoding="utf-8")
    if (stub := file.with_suffix(".pyi")).exists():
        text = stub.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ImportFrom):
            assert node.level == (1 if stub.exists() else 0), f"{file}:{node.lineno}: imports are absolute here"
            source = ".".join(filter(None, (module_of(file) if node.level else "", node.module)))
            for alias in node.names:
                whole = f"{source}.{alias.name}"
                yield (whole if whole in modules() else source), node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            yield node.value.partition(":")[0], node.lineno


@cache
def graph() -> dict[str, set[str]]:
    """Module to the modules of coopt that it imports; to ask the package for its version is no import of all its parts."""
    return {
        name: {one for one, _ in imported(file) if one in modules() and one not in ("coopt", name)}
        for name, file in modules().items()
    }


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else "__init__"


def test_every_room_is_known() -> None:
    rooms = {folder.name for folder in SOURCE.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}
    assert rooms <= set(ROOMS) | OUTSIDE
    assert {file.stem for file in SOURCE.glob("*.py")} <= FOR_ALL | OUTSIDE


def test_what_is_imported_exists() -> None:
    for name, file in modules().items():
        for target, line in imported(file):
            if target.split(".")[0] == "coopt":
                assert target in modules(), f"{name}, line {line}: there is no {target}"


@pytest.mark.parametrize("module", sorted(modules()))
def test_imports_run_one_way(module: str) -> None:
    room = room_of(module)
    if room in OUTSIDE:
        return
    allowed = FOR_ALL if room in FOR_ALL else {room} | ROOMS[room] | FOR_ALL
    above = sorted(other for other in graph()[module] if room_of(other) not in allowed)
    assert not above


def test_no_two_files_import_each_other_in_a_circle() -> None:
    try:
        tuple(TopologicalSorter(graph()).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1][::-1]))


def test_a_circle_is_seen() -> None:
    with pytest.raises(CycleError):
        tuple(TopologicalSorter({"a": {"b"}, "b": {"c"}, "c": {"a"}}).static_order())


def test_files_stay_small() -> None:
    """A file that grows past what fits in the head is two files."""
    long = {file.name: n for file in modules().values() if (n := len(file.read_text().splitlines())) > 370}
    assert not long
