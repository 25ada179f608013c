"""Help: there for every command, at once, and true."""

from __future__ import annotations

import json
import re
import subprocess
import sys

import click
import pytest

from coopt import __version__
from coopt.cli import COMMANDS, main

from .conftest import run

HEAVY = ("torch", "open_clip", "sklearn", "numpy", "transformers", "matplotlib", "safetensors")
SCRIPT = """
import json, sys
from coopt.cli import COMMANDS, main
for arguments in [["--help"], ["--version"], ["nothing"], *([name, "--help"] for name in COMMANDS)]:
    try:
        main(arguments)
    except SystemExit:
        pass
print("\\n" + json.dumps(sorted(set(sys.modules) & set(%r))))
"""


def command(name: str) -> click.Command:
    found = main.get_command(click.Context(main), name)  # type: ignore[attr-defined]
    assert found is not None
    return found


def test_help_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT % (HEAVY,)], capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout.splitlines()[-1]) == []


def test_help_of_the_group_names_every_command() -> None:
    for arguments in ([], ["--help"], ["-h"]):
        result = run(*arguments)
        assert result.exit_code == 0
        for name, (_, summary) in COMMANDS.items():
            assert re.search(rf"^  {name} +{re.escape(summary)}$", result.stdout, re.MULTILINE)


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_every_command(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0
    assert result.stdout.startswith(f"Usage: coopt {name} ")
    assert "--json" in result.stdout
    assert max(map(len, result.stdout.splitlines())) <= 86  # examples are not wrapped
    found = command(name)
    assert found.name == name
    for parameter in found.params:
        assert not isinstance(parameter, click.Option) or parameter.help, parameter.name


@pytest.mark.parametrize("name", [name for name in COMMANDS if name != "demo"])
def test_the_one_line_in_the_list_is_the_first_of_the_help(name: str) -> None:
    assert (command(name).help or "").split("\n")[0] == COMMANDS[name][1]


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_use_options_that_exist(name: str) -> None:
    known = {option for parameter in command(name).params for option in (*parameter.opts, *parameter.secondary_opts)}
    for line in (command(name).help or "").splitlines():
        if line.strip().startswith(f"coopt {name} "):
            assert set(re.findall(r"--[a-z-]+", line)) <= known, line


def test_version() -> None:
    assert run("--version").stdout == f"coopt {__version__}\n"


def test_unknown_command_names_the_close_one() -> None:
    result = run("predikt")
    assert result.exit_code == 2
    assert "There is no command 'predikt'. Did you mean predict?" in result.stderr
