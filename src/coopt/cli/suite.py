"""`coopt suite`: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coopt.cli.demo import IntList
from coopt.cli.group import Group
from coopt.cli.options import CACHE, threads
from coopt.cli.output import Output, command

OUT = click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("results"),
    show_default=True,
    metavar="DIR",
    help="The folder of results; a suite has a folder of its own in it.",
)
ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="The folder that holds the papers' data sets; miniatures need none.  [default: what COOPT_DATA_ROOT names]",
)
ONLY = click.option(
    "--only",
    multiple=True,
    metavar="NAME",
    help="A backbone, data set or method of the suite; may be given several times.",
)
NAME = click.argument("name", required=False)
ALL = click.option("--all", "everything", is_flag=True, help="All suites that have results.")


@click.group("suite", cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
def suite() -> None:
    """Run the papers' tables and figures, and compare.

    A suite is one table or figure of CoOp (IJCV 2022) or CoCoOp (CVPR 2022), or a miniature of one, which needs nothing
    but this package. Every run of it is one file in the folder of results: a suite that was stopped goes on where it
    was, several processes on one folder share the work, and files of several machines are merged by copying.

    Each of these commands has --help, and prints one JSON document with --json.

    \b
    Examples:
      coopt suite list
      coopt suite run mini-few-shot
      coopt suite show mini-few-shot
    """


@command("list")
def list_(output: Output) -> None:
    """List the suites."""
    from coopt.cli.suites_showing import run_list

    run_list(output)


@command("run", learns=True)
@click.argument("name")
@ROOT
@OUT
@ONLY
@click.option("--shots", type=IntList(1), metavar="K,K", help="Labelled images per class.  [default: the paper's]")
@click.option("--seeds", type=IntList(0), metavar="S,S", help="Of samples and learning.  [default: the paper's]")
@click.option("--dry-run", is_flag=True, help="Say what would be done and how long it takes, and do nothing.")
@click.option(
    "--backbone",
    "backbones",
    multiple=True,
    metavar="KEY=NAME",
    help="Another name for a backbone of the suite, such as vit_b16=openai:ViT-B-16.pt.",
)
@click.option(
    "--jobs",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    metavar="N",
    help="Do so many runs at a time, each in a process of its own.",
)
@click.option("--device", default="auto", show_default=True, metavar="NAME", help="auto, cpu, cuda, cuda:1, mps.")
@click.option("--download", is_flag=True, help="Fetch weights from the network if needed.")
@threads
@CACHE
@click.option(
    "--take-over",
    type=click.FloatRange(min=0),
    metavar="HOURS",
    help="Do runs that another machine claimed so long ago and did not finish.  [default: never]",
)
@click.pass_context
def run(ctx: click.Context, output: Output, **options: Any) -> None:
    """Do the runs of a suite that are not there yet.

    Whatever stops it, the same command goes on from there. With --jobs several processes share the work; so they do when
    the command is started several times, also on several machines.

    \b
    Examples:
      coopt suite run mini-base-to-new --jobs 2
      coopt suite run coop-few-shot --root DATA --only vit_b16 --only eurosat --dry-run
      coopt suite run coop-domain --root DATA --backbone vit_b16=openai:ViT-B-16.pt
    """
    from coopt.cli.suites_running import RunSettings, run_suite

    ctx.exit(run_suite(RunSettings(**options), output, ["coopt", *(ctx.find_root().obj or ["suite", "run"])]))


@command("show")
@NAME
@ALL
@OUT
@ONLY
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write figures (PNG and SVG) into this folder.",
)
def show(output: Output, name: str | None, everything: bool, **options: Any) -> None:
    """Show a suite's results beside the published numbers.

    Of several seeds it shows the mean, the standard deviation (divided by n) and half of the 95% interval of the mean, as
    the papers compute it and after Student; what was not run is said to be missing.

    \b
    Examples:
      coopt suite show coop-domain
      coopt suite show mini-few-shot --figures figures
      coopt suite show --all --markdown > results.md
    """
    from coopt.cli.suites_showing import run_show

    run_show(_one_or_all(name, everything), output=output, **options)


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
    from coopt.cli.suites_packing import run_pack

    run_pack("pack", _one_or_all(name, everything), out, output)


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
    from coopt.cli.suites_packing import run_pack

    run_pack("unpack", _one_or_all(name, everything), out, output)


def _one_or_all(name: str | None, everything: bool) -> str | None:
    if everything == (name is not None):
        raise click.UsageError("Give the NAME of a suite (`coopt suite list`), or --all.")
    return name


for _made in (list_, run, show, pack, unpack):
    suite.add_command(_made)
