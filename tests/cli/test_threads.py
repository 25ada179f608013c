"""`--threads`."""

from __future__ import annotations

import click
import pytest
import torch
from click.testing import CliRunner

from coopt.cli.options import threads


@click.command()
@threads
def shown() -> None:
    click.echo(torch.get_num_threads())


def test_the_option_holds_while_the_command_runs() -> None:
    before = torch.get_num_threads()
    assert CliRunner().invoke(shown, ["--threads", "3"]).output == "3\n"
    assert CliRunner().invoke(shown, []).output == f"{before}\n"
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("value", ["0", "-2", "many", "1.5", ""])
def test_what_is_no_number_of_threads(value: str) -> None:
    result = CliRunner().invoke(shown, [f"--threads={value}"])
    assert result.exit_code == 2 and f"{value!r} is neither 'auto' nor a number from 1." in result.output
