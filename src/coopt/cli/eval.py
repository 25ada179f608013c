"""`coopt eval`: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from coopt.cli.options import (
    CACHE,
    DATA,
    PROMPT,
    ROOT,
    SPLIT,
    DataReading,
    backbone_options,
    data_reading,
    on_bad_image,
    precision,
)
from coopt.cli.output import Output, command


@command("eval")
@PROMPT
@DATA
@ROOT
@SPLIT
@backbone_options(None)
@click.option(
    "--position", type=click.Choice(["end", "middle", "front"]), help="Of the class name in a reference checkpoint."
)
@click.option(
    "--preprocess",
    type=click.Choice(["standard", "reference-2021-09"]),
    help="How images are prepared; the second is CoOp's way before October 2021.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the mistakes (CSV) and the confusion matrix (CSV and PNG) into DIR.",
)
@data_reading
@on_bad_image("fail")
@CACHE
@precision(None)
def eval(
    output: Output,
    prompt: Path,
    data: Path,
    root: Path | None,
    split: str,
    backbone: str | None,
    device: str,
    download: bool,
    position: str | None,
    preprocess: str | None,
    out: Path | None,
    reading: DataReading,
    on_bad_image: str,
    cache: bool,
    precision: Literal["auto", "fp32", "bf16"] | None,
) -> None:
    """Measure a learned prompt on labelled images.

    PROMPT is a folder written by `coopt fit`, or a checkpoint of CoOp's reference implementation (then --backbone is
    needed, and the classes are those of DATA). DATA is a folder, a CSV file or a name as for `coopt fit`.

    When DATA has classes that the prompt does not know, the prompt is applied to the classes of DATA instead.

    \b
    Examples:
      coopt eval coopt-photos photos
      coopt eval coopt-photos other-photos --split all --out mistakes
      coopt eval output/prompt_learner imagenet_a --root DATA --backbone openai:RN50.pt
    """
    from coopt.cli.evaluating import run_eval
    from coopt.cli.where import Where

    where = Where(backbone, device, download, position, precision, reading.value_range)
    run_eval(prompt, data, root, split, where, preprocess, out, on_bad_image, cache, output, reading)
