"""`coopt suite`: the group, and those of its commands that are short."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from coopt.cli.group import Group
from coopt.cli.output import Output, command
from coopt.cli.suite_options import ALL, NAME, OUT, one_or_all
from coopt.cli.suite_run import run
from coopt.cli.suite_show import show
from coopt.data.file_names import display_name
from coopt.wording import counted


@click.group("suite", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def suite() -> None:
    """Run the papers' tables and figures, and compare.

    A suite is one table or figure of CoOp (IJCV 2022) or CoCoOp (CVPR 2022), or a miniature of one, which needs nothing
    but this package. Every run of it is one file in the folder of results: a suite that was stopped goes on where it
    was, several processes on one folder share the work, and files of several machines are merged by copying.

    A suite of your own is a Python file that defines SUITE; its path stands where a name may stand.

    Each of these commands has --help, and prints one JSON document with --json.

    \b
    Examples:
      coopt suite list
      coopt suite run mini-few-shot
      coopt suite show mini-few-shot
    """


@command("list")
@click.argument("files", nargs=-1, metavar="[FILE]...")
def list_(output: Output, files: tuple[str, ...]) -> None:
    """List the suites, and those that files define."""
    from coopt.suites.known import known_suites
    from coopt.suites.papers import IMAGENET_RUN

    suites = known_suites(files)
    rows = [[one.name, one.title, "nothing" if one.bundled else "data and weights", one.cost] for one in suites]
    output.table(["suite", "what it measures", "needs", "takes"], rows)
    output.say()
    output.say(IMAGENET_RUN)
    output.result(
        {
            "suites": [
                {
                    "name": one.name,
                    "title": one.title,
                    "paper": one.paper,
                    "offline": one.bundled,
                    "backbones": [model.key for model in one.models],
                    "methods": [entry.name for entry in one.entries],
                    "shots": list(one.shots),
                    "seeds": list(one.seeds),
                    "cost": one.cost,
                }
                for one in suites
            ]
        }
    )


@command("pack")
@NAME
@ALL
@OUT
def pack(output: Output, name: str | None, everything: bool, out: Path) -> None:
    """Pack a suite's runs into one file, to be committed or sent.

    They are read from there as from their own files: `suite show` shows them, and `suite run` counts them as done. The
    file is text, DIR/NAME.jsonl, with a line for each run; of a run that is done again, its new file counts.

    \b
    Examples:
      coopt suite pack mini-few-shot
      coopt suite pack --all --out results
    """
    _pack("pack", one_or_all(name, everything), out, output)


@command("unpack")
@NAME
@ALL
@OUT
def unpack(output: Output, name: str | None, everything: bool, out: Path) -> None:
    """Unpack a suite's runs into one file each, as they were before they were packed.

    \b
    Example:
      coopt suite unpack mini-few-shot
    """
    _pack("unpack", one_or_all(name, everything), out, output)


def _pack(what: Literal["pack", "unpack"], name: str | None, out: Path, output: Output) -> None:
    """Packs or unpacks one suite's runs, or those of all (`name` is None)."""
    from coopt.evaluation import packing
    from coopt.suites.packing import for_suites

    done = for_suites(packing.pack if what == "pack" else packing.unpack, out, name)
    for suite, one in done.items():
        moved, path = counted(one.moved, "run"), display_name(one.path)
        if what == "pack":
            output.say(f"{suite}: {moved} packed into '{path}', which holds {one.total}.")
        else:
            output.say(f"{suite}: {moved} unpacked into '{display_name(one.path.with_suffix(''))}'.")
        for reason in one.left.values():
            output.warn(f"Left as it is: {reason}", "LeftRun")
    output.result(
        {
            "suites": [
                {"suite": suite, "file": display_name(one.path), f"{what}ed": one.moved, "left": one.left}
                for suite, one in done.items()
            ]
        }
    )


for _made in (list_, run, show, pack, unpack):
    suite.add_command(_made)
