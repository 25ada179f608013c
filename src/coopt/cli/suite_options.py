"""What the commands of `coopt suite` have in common."""

from __future__ import annotations

from pathlib import Path

import click

OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    metavar="DIR",
    help="The folder of results; a suite has a folder of its own in it.",
)
ONLY = click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="A backbone, data set or method of the suite; may be given several times.",
)
NAME = click.argument("name", required=False)
ALL = click.option("--all", "everything", is_flag=True, help="All suites that have results.")


def one_or_all(name: str | None, everything: bool) -> str | None:
    """The suite that is asked for; None: all."""
    if everything == (name is not None):
        raise click.UsageError("Give the NAME of a suite (`coopt suite list`), or --all.")
    return name
