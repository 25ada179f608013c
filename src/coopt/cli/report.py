"""`coopt report`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coopt.cli.options import CACHE, PROMPT, ROOT, SPLIT, backbone_options, data_reading, on_bad_image, precision
from coopt.cli.output import Output, command
from coopt.data.file_names import display_name


@command("report")
@PROMPT
@click.argument("data", type=click.Path(path_type=Path), required=False)
@ROOT
@SPLIT
@backbone_options(None)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="The page.  [default: PROMPT/report.html]")
@click.option(
    "--folds",
    type=click.IntRange(min=0),
    default=3,
    show_default=True,
    metavar="K",
    help="Learn K times more, from parts of the training images, to find doubtful labels; 0: leave it out.",
)
@data_reading
@on_bad_image("fail")
@CACHE
@precision(None)
def report(output: Output, **options: Any) -> None:
    """Make a page about a learned prompt.

    Accuracy beside a hand-made prompt, class by class; what is taken for what; the surest mistakes as pictures; doubtful labels;
    whether its probabilities can be trusted; how it was made. One file that needs nothing beside it, to be looked at and sent.

    PROMPT is a folder written by `coopt fit`. DATA is a folder, a CSV file or a name as for `coopt fit`; left out, it is what the
    prompt was learned from.

    \b
    Examples:
      coopt report coopt-photos
      coopt report coopt-photos other-photos --out other.html
    """
    from coopt.app.reporting import report as make
    from coopt.app.requests import ReportRequest

    result = make(ReportRequest.of(**options))
    output.say(f"Written: '{display_name(result.page)}', and the same as JSON beside it.")
    output.result(result.to_dict())
