"""`coopt fit`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from coopt import events
from coopt.cli.config import config_option
from coopt.cli.learning_options import method_parameters, methods_options, recipe_options, seed_option
from coopt.cli.options import (
    CACHE,
    DATA,
    DESCRIPTIONS,
    ROOT,
    backbone_options,
    data_reading,
    on_bad_image,
    precision,
    runtime_option,
)
from coopt.cli.output import Output, command
from coopt.data.file_names import display_name


@command("fit", learns=True)
@DATA
@ROOT
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Where to save.  [default: coopt-NAME]")
@backbone_options("bundled")
@click.option("--shots", type=click.IntRange(min=1), metavar="N", help="Learn from N images per class.  [default: all]")
@methods_options
@recipe_options("Another parameter of the method, or recipe.FIELD; may be repeated.")
@seed_option
@DESCRIPTIONS
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
@runtime_option("text_path")
@runtime_option("memory")
@click.option("--overwrite", is_flag=True, help="Replace a prompt of another run in DIR.")
@click.pass_context
def fit(ctx: click.Context, output: Output, **options: Any) -> None:
    """Learn a prompt from labelled images.

    DATA is a folder with one sub-folder of images per class (optionally train/ val/ test/ above them), a ZIP archive of
    it, a CSV file with the columns path,label (optionally split), or the name of a data set that `coopt datasets` lists.
    Without a test part some images are held out to measure accuracy.

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
