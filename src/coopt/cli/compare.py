"""`coopt compare`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from coopt.app.requests import CANDIDATES
from coopt.cli.learning_options import seed_option
from coopt.cli.options import (
    CACHE,
    DATA,
    DESCRIPTIONS,
    ROOT,
    Duration,
    backbone_options,
    data_reading,
    on_bad_image,
    precision,
)
from coopt.cli.output import Output, command
from coopt.data.file_names import display_name

BUDGET = "Learn for at most so long, such as 2m, counted from when the image features are there; what is not done then is left out."


class MethodWithParameters(click.ParamType):
    """NAME, or NAME:PARAMETER=VALUE,PARAMETER=VALUE."""

    name = "method"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The name and the parameters."""
        if isinstance(value, tuple):
            return value
        from coopt.app.assignments import value_of

        name, colon, rest = value.partition(":")
        parameters = {}
        for text in rest.split(",") if colon else ():
            key, equals, typed = text.partition("=")
            if not (key.strip() and equals and typed.strip()):
                self.fail(f"{value!r} is not NAME or NAME:PARAMETER=VALUE,..., such as coop:n_ctx=16.", param, ctx)
            parameters[key.strip().replace("-", "_")] = value_of(typed)
        return name.replace("-", "_"), parameters


@command("compare", learns=True)
@DATA
@ROOT
@click.option(
    "--method",
    "methods",
    type=MethodWithParameters(),
    multiple=True,
    metavar="NAME[:P=V,...]",
    help=f"A method, with parameters such as coop:n_ctx=16; may be given several times.  [default: {', '.join(CANDIDATES)}]",
)
@click.option(
    "--folds",
    type=click.IntRange(min=2),
    default=3,
    show_default=True,
    metavar="K",
    help="Deal the images to K parts; each is predicted by what was learned from the others.",
)
@click.option("--budget", type=Duration(), metavar="TIME", help=BUDGET)
@backbone_options("bundled")
@click.option("--shots", type=click.IntRange(min=1), metavar="N", help="Use N images per class.  [default: all]")
@seed_option
@DESCRIPTIONS
@click.option(
    "--out", type=click.Path(path_type=Path), metavar="DIR", help="Save table, figure and JSON, and go on from there."
)
@click.option("--overwrite", is_flag=True, help="Replace another comparison in DIR.")
@data_reading
@on_bad_image("fail")
@CACHE
@precision("fp32")
@click.pass_context
def compare(ctx: click.Context, output: Output, methods: tuple[Any, ...], **options: Any) -> None:
    """Compare methods on your images, and say which to take.

    Images are held out in turn: each is predicted once, by what was learned from others. Those that look alike are held out
    together, so that remembering does not pass for recognising. A test part of DATA is not touched. `coopt fit DATA --method auto`
    compares in the same way and learns with the method taken.

    \b
    Examples:
      coopt compare photos
      coopt compare photos --budget 2m --out compared
      coopt compare photos --method coop --method coop:n_ctx=16 --method gda
      coopt compare bundled:animals --shots 4
    """
    from coopt import app
    from coopt.cli.comparison import say_comparison

    typed = ["coopt", *(ctx.find_root().obj or ["compare"])]
    request = app.CompareRequest.of(**({"methods": methods} if methods else {}), **options)
    result = app.compare(request, command=display_name(shlex.join(typed)))
    say_comparison(output, result)
    if result.out is not None:
        output.say(f"Saved to '{display_name(result.out)}'.")
    output.result(result.to_dict())
