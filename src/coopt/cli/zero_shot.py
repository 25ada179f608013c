"""`coopt zero-shot`: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from coopt.cli.options import (
    CACHE,
    DATA,
    ROOT,
    SPLIT,
    DataReading,
    backbone_options,
    data_reading,
    on_bad_image,
    precision,
)
from coopt.cli.output import Output, command


@command("zero-shot")
@DATA
@ROOT
@click.option(
    "--template",
    "templates",
    multiple=True,
    metavar="TEXT",
    help='Such as "a {}."; `dataset` for DATA\'s own, `ensemble-80` for all of CLIP; repeatable.  [default: "a photo of a {}."]',
)
@click.option("--ensemble", is_flag=True, help="Also the seven templates that CLIP's authors selected.")
@SPLIT
@backbone_options("bundled")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Save it, for `coopt predict`.")
@data_reading
@on_bad_image("fail")
@CACHE
@precision("fp32")
def zero_shot(
    output: Output,
    data: Path,
    root: Path | None,
    templates: tuple[str, ...],
    ensemble: bool,
    split: str,
    backbone: str,
    device: str,
    download: bool,
    out: Path | None,
    reading: DataReading,
    on_bad_image: str,
    cache: bool,
    precision: Literal["auto", "fp32", "bf16"],
) -> None:
    """Measure hand-made prompts on labelled images.

    Nothing is learned. DATA is a folder, a CSV file or a name as for `coopt fit`. Each template is measured alone, and
    several of them also together, with their text features averaged.

    \b
    Examples:
      coopt zero-shot photos
      coopt zero-shot photos --template "a {}." --template "art of a {}."
      coopt zero-shot photos --ensemble --out my-ensemble
      coopt zero-shot oxford_pets --root DATA --ensemble --template dataset
    """
    from coopt.cli.evaluating import run_zero_shot
    from coopt.cli.where import Where

    where = Where(backbone, device, download, precision=precision, value_range=reading.value_range)
    run_zero_shot(data, root, split, templates, ensemble, where, out, on_bad_image, cache, output, reading)
