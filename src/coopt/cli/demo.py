"""`coopt demo`: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coopt.cli.learning_options import recipe_options
from coopt.cli.options import CACHE, threads
from coopt.cli.output import Output, command


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
    help="A bundled data set, or all; may be given several times.  [default: five of different kinds]",
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
    recipe: str,
    epochs: int | None,
    lr: float | None,
    set: tuple[str, ...],
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
    from coopt.cli.demonstration import DemoSettings, run_demo
    from coopt.cli.learning_options import recipe_of

    typed = ctx.find_root().obj
    run_demo(
        DemoSettings(recipe=recipe_of(recipe, epochs, lr, set), **options), output, ["coopt", *(typed or ["demo"])]
    )


def _list(output: Output) -> None:
    from coopt.data.bundled import bundled_datasets

    found = bundled_datasets()
    rows = [[one.name, one.description, str(len(one.class_names)), one.template] for one in found]
    output.table(["data set", "what its classes are", "classes", "hand-made prompt"], rows, right=(2,))
    keys = ("name", "description", "class_names", "template")
    output.result({"datasets": [{key: getattr(one, key) for key in keys} for one in found]})
