"""`coopt demo`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coopt import events
from coopt.cli.learning_options import recipe_options
from coopt.cli.options import CACHE, threads
from coopt.cli.output import Output, command, percent
from coopt.wording import counted

if TYPE_CHECKING:
    from coopt.app.run_demo import DemoResult
    from coopt.evaluation.metrics import Summary

WORDS_SHOWN = 4
"""Context vectors whose nearest words are printed; `coopt words` shows all."""

FILES = {
    "accuracy.png": "accuracy against shots",
    "accuracy.svg": "the same for print",
    "examples.png": "test pictures with predictions before and after learning",
}


class IntList(click.ParamType):
    """Different whole numbers separated by commas, such as 1,2,4.

    Args:
        low: the least that is allowed.
        high: the most.
    """

    name = "numbers"

    def __init__(self, low: int, high: int = 2**32 - 1) -> None:
        self.low, self.high = low, high

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        """To a tuple, in ascending order."""
        if isinstance(value, tuple):
            return value
        try:
            numbers = sorted(int(part) for part in str(value).split(","))
        except ValueError:
            numbers = []
        if not numbers or len(set(numbers)) < len(numbers) or numbers[0] < self.low or numbers[-1] > self.high:
            self.fail(f"expected different whole numbers >= {self.low} separated by commas. Got {value!r}.", param, ctx)
        return tuple(numbers)


@command("demo", learns=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("coopt-demo"),
    show_default=True,
    metavar="DIR",
    help="Where results, figures and the prompt go; what is there already is not computed again.",
)
@click.option(
    "--data",
    multiple=True,
    metavar="NAME",
    help="A bundled data set, or all of them but the hard ones; may be given several times.  [default: five of different kinds, and a hard one]",
)
@click.option("--list", "listed", is_flag=True, help="List the bundled data sets, and do nothing else.")
@click.option("--shots", type=IntList(1), default="1,2,4,8,16", show_default=True, help="Labelled images per class.")
@click.option("--seeds", type=IntList(0), default="1,2,3", show_default=True, help="Of samples and learning.")
@recipe_options("Another field of the recipe, as recipe.FIELD; may be repeated.")
@click.option(
    "--n-ctx",
    type=IntList(1),
    default=(),
    metavar="M,M",
    help='Context vectors that begin at random, a curve each.  [default: those of "a photo of a"]',
)
@CACHE
@threads
@click.pass_context
def demo(
    ctx: click.Context,
    output: Output,
    listed: bool,
    **options: Any,
) -> None:
    """See the whole of coopt at work on the bundled model and images.

    Compares a naive prompt, a hand-made one, a prompt ensemble, a linear probe and a learned prompt (CoOp) as in the
    paper's few-shot figure, with pictures that the model has not seen; in about a minute and without a network.

    Ctrl-C keeps what was done; the same command goes on from there.

    \b
    Examples:
      coopt demo
      coopt demo --data animals --data frames --shots 1,16
      coopt demo --data all --seeds 1,2,3,4,5 --n-ctx 4,16 --out everything
    """
    if listed:
        _list(output)
        return
    from coopt.app.run_demo import DatasetDone, DemoRequest, run_demo
    from coopt.cli.learning_options import recipe_of
    from coopt.data.file_names import display_name

    def hear(event: events.Event) -> None:
        if isinstance(event, DatasetDone):
            click.echo(str(event), err=True)

    recipe = recipe_of(options)
    request = DemoRequest.of(recipe=recipe.to_dict(), **options)
    typed = shlex.join(["coopt", *(ctx.find_root().obj or ["demo"])])
    with events.listening(hear):
        result = run_demo(request, command=display_name(typed))
    _say_table(result, output)
    _say_words(result, output)
    _say_next(result, output)
    output.result(result.to_dict())


def _list(output: Output) -> None:
    from coopt.data.bundled import bundled_datasets, hard_datasets

    datasets = (*bundled_datasets(), *hard_datasets())
    rows = [[one.name, one.description, str(len(one.class_names)), one.template] for one in datasets]
    output.table(["data set", "what its classes are", "classes", "hand-made prompt"], rows, right=(2,))
    keys = ("name", "description", "class_names", "template")
    output.result({"datasets": [{key: getattr(one, key) for key in keys} for one in datasets]})


def _say_table(result: DemoResult, output: Output) -> None:
    """Accuracy by data set, method and shots; the average first."""
    from coopt.report.demo_figures import dataset_title
    from coopt.suites.suite import AVERAGE

    table = result.table
    headers = ["Accuracy on test pictures, %", *table.columns]
    titles = {AVERAGE: f"mean of {len(result.datasets)} data sets"}
    titles |= {one.name: dataset_title(one) for one in result.datasets}
    rows: list[list[str]] = []
    for section in table.sections:
        rows += [[]] * bool(rows) + [[titles[section.at.get("dataset", section.title)]]]
        for row in section.rows:
            rows.append([f"  {row.method}", *("" if cell.ours is None else _cell(cell.ours) for cell in row.cells)])
    width = len(headers)
    output.say()
    output.table(headers, [row + [""] * (width - len(row)) for row in rows], right=range(1, width))
    if result.hard is not None:
        output.say()
        output.say(f"Not in the mean: {result.hard}.")


def _cell(ours: Summary) -> str:
    return percent(ours.mean) if ours.n == 1 else f"{percent(ours.mean)} ±{percent(ours.std):>4}"


def _say_words(result: DemoResult, output: Output) -> None:
    """The words nearest to the learned vectors, and how little that says."""
    words, scale = result.words, result.scale
    output.say()
    rows = [
        [f"{i + 1}", ", ".join(f"{word.word} ({word.distance:.2f})" for word in near)]
        for i, near in enumerate(words[:WORDS_SHOWN])
    ]
    more = f", {WORDS_SHOWN} of {counted(len(words), 'vector')}" if len(words) > WORDS_SHOWN else ""
    output.table([f"Prompt for {result.shown.dataset}{more}", "nearest words (distance)"], rows)
    mean = sum(near[0].distance for near in words) / len(words)
    reads = (
        "farther than random ones, so do not read them as words"
        if mean >= scale["random_to_word"]
        else "nearer than random ones; even so, they seldom mean the words they are near"
    )
    output.say(
        f"For scale: words are {scale['word_to_word']:.2f} from the next word, random vectors "
        f"{scale['random_to_word']:.2f}, and the learned ones {mean:.2f} on average: {reads}."
    )


def _say_next(result: DemoResult, output: Output) -> None:
    """Where things lie, and what to type next."""
    output.say()
    output.say(f"Done in {counted(round(result.seconds), 'second')}. In '{result.out}':")
    lines = [(path.name, FILES[path.name]) for path in result.figures]
    lines += [
        ("prompt", f"the prompt learned for {result.shown.dataset}"),
        ("results.json", "all numbers and how to redo them"),
    ]
    for name, what in lines:
        output.say(f"  {name:13} {what}")
    output.say()
    output.say("Now on your own images, a folder with one sub-folder per class:")
    output.command("coopt fit path/to/folder --out my-prompt")
    output.command("coopt predict my-prompt path/to/new/images")
