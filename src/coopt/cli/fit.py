"""`coopt fit`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from coopt import events
from coopt.cli.config import config_option
from coopt.cli.learning_options import method_parameters, recipe_options
from coopt.cli.options import CACHE, DATA, ROOT, backbone_options, data_reading, on_bad_image, precision
from coopt.cli.output import Output, command
from coopt.data.file_names import display_name

METHODS = (
    "coop", "cocoop", "kgcoop", "tip_adapter", "text_bias", "text_transformation", "linear_probe", "image_tuning"
)  # fmt: skip
"""Those of `coopt.methods.saving` that learn from images; named here so that `--help` needs none of them."""


@command("fit", learns=True)
@DATA
@ROOT
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to save.  [default: coopt-NAME]")
@backbone_options("bundled")
@click.option("--shots", type=click.IntRange(min=1), metavar="N", help="Learn from N images per class.  [default: all]")
@click.option(
    "--method",
    type=click.Choice(METHODS),
    default="coop",
    show_default=True,
    metavar="NAME",
    help=f"How to learn: {', '.join(METHODS)}.",
)
@click.option(
    "--n-ctx", type=click.IntRange(min=1), metavar="M", help="Number of context vectors, which then begin at random."
)
@click.option("--csc/--no-csc", default=False, help="Vectors of its own for each class (needs more images).")
@click.option(
    "--position",
    type=click.Choice(["end", "middle", "front"]),
    default="end",
    show_default=True,
    help="Where the class name stands among the vectors.",
)
@click.option(
    "--init",
    metavar="WORDS",
    help='Begin as these words.  [default: "a photo of a", unless --n-ctx is given]',
)
@recipe_options("Another parameter of the method, or recipe.FIELD; may be repeated.")
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), default=1, show_default=True, help="Of all that is random.")
@click.option(
    "--test-fraction",
    type=click.FloatRange(0, 1, max_open=True),
    default=0.2,
    show_default=True,
    help="Of each class, held out when DATA has no test part; 0: none.",
)
@data_reading
@config_option("fit")
@on_bad_image("fail")
@CACHE
@precision("fp32")
@click.option(
    "--text-path",
    type=click.Choice(["auto", "fast", "reference"]),
    default="auto",
    show_default=True,
    help="How prompts are encoded.",
)
@click.option(
    "--memory",
    default="auto",
    show_default=True,
    metavar="SIZE",
    help="What learning may hold above the model, such as 4G.",
)
@click.option("--overwrite", is_flag=True, help="Replace a prompt of another run in DIR.")
@click.pass_context
def fit(ctx: click.Context, output: Output, **options: Any) -> None:
    """Learn a prompt from labelled images.

    DATA is a folder with one sub-folder of images per class (optionally train/ val/ test/ above them), or a CSV file
    with the columns path,label (optionally split), or the name of a data set that `coopt datasets` lists. Without a
    test part some images are held out to measure accuracy.

    Ctrl-C saves what was learned so far; the same command goes on from there.

    \b
    Examples:
      coopt fit photos
      coopt fit photos --shots 4 --n-ctx 16 --out my-prompt
      coopt fit photos --method tip_adapter --set finetune=true
      coopt fit photos --class-names names.json
      coopt fit labels.csv --backbone openclip:ViT-B-16/openai --init "a picture of a"
      coopt fit caltech101 --root DATA --shots 16
      coopt fit --config my-prompt/config.yaml
    """
    from coopt import app
    from coopt.cli.fit_report import FitReport

    typed = ["coopt", *(ctx.find_root().obj or ["fit"])]
    parameters = method_parameters(options["method"], options)
    request = app.FitRequest.of(parameters=parameters, **options)
    report = FitReport(output, request, typed)
    with events.listening(report.hear):
        result = app.fit(request, command=display_name(shlex.join(typed)))
    report.tell(result)
