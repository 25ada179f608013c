"""`coopt suite run`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coopt.cli.demo import IntList
from coopt.cli.options import CACHE, threads
from coopt.cli.output import Output, command
from coopt.cli.suite_options import ONLY, OUT
from coopt.data.file_names import display_name
from coopt.wording import counted

if TYPE_CHECKING:
    from coopt.app.run_suite import SuiteResult, SuiteStatus

DOZEN = 12
"""Runs that a dry run names one by one."""

ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DATA",
    help="The folder that holds the papers' data sets; miniatures need none.  [default: what COOPT_DATA_ROOT names]",
)


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
def run(ctx: click.Context, output: Output, dry_run: bool, **options: Any) -> None:
    """Do the runs of a suite that are not there yet.

    NAME is a suite (`coopt suite list`), or a Python file that defines one.

    Whatever stops it, the same command goes on from there. With --jobs several processes share the work; so they do when
    the command is started several times, also on several machines.

    \b
    Examples:
      coopt suite run mini-base-to-new --jobs 2
      coopt suite run ./mine.py --dry-run
      coopt suite run coop-few-shot --root DATA --only vit_b16 --only eurosat --dry-run
      coopt suite run coop-domain --root DATA --backbone vit_b16=openai:ViT-B-16.pt
    """
    from coopt.app.run_suite import SuiteRequest, run_suite, suite_status

    request = SuiteRequest.of(**options)
    if dry_run:
        _say_status(suite_status(request), output)
        return
    typed = shlex.join(["coopt", *(ctx.find_root().obj or ["suite", "run"])])
    result = run_suite(request, command=display_name(typed))
    _say_result(result, request.name, request.out, output)
    ctx.exit(1 if result.outcome.failed else 0)


def _say_result(result: SuiteResult, name: str, out: Path, output: Output) -> None:
    outcome = result.outcome
    done = f"{counted(len(outcome.done), 'run')} done in {duration(result.seconds)}"
    output.say(f"{done}, {counted(len(outcome.complete), 'run')} complete before.")
    if outcome.replaced:
        replaced = counted(outcome.replaced, "result")
        output.say(f"Replaced {replaced} of another model, other data or other parameters.")
    if not outcome.failed and not outcome.elsewhere:
        output.say("Next:")
        output.command(shlex.join(["coopt", "suite", "show", name, "--out", display_name(out)]))
    output.result(result.to_dict())


def _say_status(status: SuiteStatus, output: Output) -> None:
    """What would be done, what is complete, what cannot be done, and how long it takes."""
    n_runs = len(status.to_do) + len(status.complete) + len(status.blocked)
    blocked = f", {len(status.blocked)} that cannot be done here" if status.blocked else ""
    output.say(f"{counted(n_runs, 'run')}: {len(status.complete)} complete, {len(status.to_do)} to do{blocked}.")
    if status.stale:
        output.say(f"To be done again, since model, data or parameters are others now: {status.stale}.")
    if status.damaged:
        output.say(f"To be done again, since the files are damaged: {status.damaged}.")
    for name in status.to_do[:DOZEN]:
        output.say(f"  {name}")
    if len(status.to_do) > DOZEN:
        output.say(f"  ... and {len(status.to_do) - DOZEN} more")
    known = len(status.to_do) - status.unknown
    if known:
        output.say(
            f"Time for {counted(known, 'run')}: about {duration(status.seconds)} in one process, as those that are done "
            "took."
        )
    if status.unknown:
        output.say(
            f"Time for {counted(status.unknown, 'run')}: not known, since no such run is done. The whole suite: "
            f"{status.cost}."
        )
    output.result(status.to_dict())


def duration(seconds: float) -> str:
    """A time for people."""
    if seconds < 100:
        return counted(round(seconds), "second")
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
