"""`coopt compare`."""

from __future__ import annotations

from typing import Any

import click

from coopt.cli.demo import IntList
from coopt.cli.options import CACHE, DATA, ROOT, backbone_options, data_reading, on_bad_image, precision
from coopt.cli.output import Output, command


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
    help="A method, with parameters such as coop:n_ctx=16; may be given several times.  [default: zero_shot, "
    "linear_probe, coop]",
)
@backbone_options("bundled")
@click.option("--shots", type=click.IntRange(min=1), metavar="N", help="Learn from N images per class.  [default: all]")
@click.option("--seeds", type=IntList(0), default="1", show_default=True, metavar="S,S", help="Of all that is random.")
@click.option(
    "--test-fraction",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Of each class, held out when DATA has no test part.",
)
@data_reading
@on_bad_image("fail")
@CACHE
@precision("fp32")
def compare(output: Output, methods: tuple[Any, ...], **options: Any) -> None:
    """Compare methods on the same images.

    All of them learn from the same images of DATA (as for `coopt fit`) and are measured on the same held-out ones.
    Nothing is saved.

    \b
    Examples:
      coopt compare photos
      coopt compare photos --shots 4 --seeds 1,2,3 --method coop --method coop:n_ctx=16
      coopt compare bundled:animals --method tip_adapter:finetune=true --method kgcoop
    """
    from coopt import app

    request = app.CompareRequest.of(**({"methods": methods} if methods else {}), **options)
    result = app.compare(request)
    headers, rows = result.table()
    output.say()
    output.table(headers, rows, right=(1, 2, 3))
    output.result(result.to_dict())
