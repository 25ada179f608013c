"""Imports run one way only, as docs/architecture.md draws it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "coopt"

ROOT_MODULES = {
    "errors",
    "events",
    "files",
    "locks",
    "parameters",
    "progress",
    "registry",
    "safe_pickle",
    "threads",
    "wording",
}
"""Used by all."""

MAY_IMPORT = {
    "backbones": set(),
    "text": {"backbones"},
    "prompts": {"backbones", "text"},
    "data": {"backbones"},
    "training": {"backbones"},
    "methods": {"backbones", "text", "prompts", "data", "training"},
    "evaluation": {"backbones", "text", "prompts", "data", "training", "methods"},
    "suites": {"backbones", "text", "prompts", "data", "training", "methods", "evaluation"},
    "report": {"backbones", "text", "prompts", "data", "training", "methods", "evaluation", "suites"},
    "cli": {"backbones", "text", "prompts", "data", "training", "methods", "evaluation", "suites", "report"},
}


def imports_of(file: Path) -> Iterator[str]:
    """The rooms of coopt that a file imports from, wherever in the file."""
    for node in ast.walk(ast.parse(file.read_text())):
        names: list[str] = []
        if isinstance(node, ast.ImportFrom) and node.module == "coopt":
            names = [f"coopt.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        for name in names:
            parts = name.split(".")
            if parts[0] == "coopt" and len(parts) > 1:
                yield parts[1]


def test_every_room_is_known() -> None:
    rooms = {folder.name for folder in SOURCE.iterdir() if folder.is_dir() and any(folder.glob("*.py"))}
    assert rooms == set(MAY_IMPORT)


@pytest.mark.parametrize("room", MAY_IMPORT)
def test_imports_run_one_way(room: str) -> None:
    public = {"__version__"}
    for file in (SOURCE / room).rglob("*.py"):
        above = set(imports_of(file)) - {room} - MAY_IMPORT[room] - ROOT_MODULES - public
        assert not above, f"{file.relative_to(SOURCE)} imports from {sorted(above)}"


def test_root_modules_import_no_room() -> None:
    for name in ROOT_MODULES:
        assert set(imports_of(SOURCE / f"{name}.py")) <= ROOT_MODULES


def test_files_stay_small() -> None:
    """A file that grows past what fits in the head is two files."""
    long = {f.name: n for f in SOURCE.rglob("*.py") if (n := len(f.read_text().splitlines())) > 370}
    assert not long
