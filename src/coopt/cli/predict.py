"""`coopt predict`: the options."""

from __future__ import annotations

from pathlib import Path

import click

from coopt.cli.options import CACHE, PROMPT, backbone_options, on_bad_image
from coopt.cli.output import Output, command


@command("predict")
@PROMPT
@click.argument("images", nargs=-1, required=True, metavar="IMAGES...")
@click.option("--topk", type=click.IntRange(min=1), default=1, show_default=True, help="Classes per image.")
@click.option("--csv", is_flag=True, help="Print CSV rows as they come.")
@click.option("--jsonl", is_flag=True, help="Print one JSON object per image as they come.")
@click.option("--classes", metavar="A,B,C", help="Other classes than those the prompt was learned for.")
@click.option("--classes-file", type=click.Path(path_type=Path), metavar="FILE", help="The same, one per line.")
@backbone_options(None)
@on_bad_image("skip")
@CACHE
def predict(
    output: Output,
    prompt: Path,
    images: tuple[str, ...],
    topk: int,
    csv: bool,
    jsonl: bool,
    classes: str | None,
    classes_file: Path | None,
    backbone: str | None,
    device: str,
    download: bool,
    on_bad_image: str,
    cache: bool,
) -> None:
    """Classify images with a learned prompt.

    PROMPT is a folder written by `coopt fit` (or `coopt zero-shot --out`). IMAGES are image files, folders (searched
    with all that is below them) and globs, in any mix.

    \b
    Examples:
      coopt predict coopt-photos new.jpg
      coopt predict coopt-photos holidays/ --topk 3
      coopt predict coopt-photos "scans/**/*.png" --csv > found.csv
      coopt predict coopt-photos new.jpg --classes "red kite,grey heron"
    """
    forms = [name for name, given in (("json", output.json), ("csv", csv), ("jsonl", jsonl)) if given]
    if len(forms) > 1:
        raise click.UsageError(f"--{forms[0]} and --{forms[1]} exclude each other: give one of them.")
    from coopt.cli.loading import Where
    from coopt.cli.predicting import read_class_names, run_predict

    names = read_class_names(classes, classes_file)
    where = Where(backbone, device, download)
    form = "csv" if csv else "jsonl" if jsonl else None
    run_predict(prompt, images, topk, form, names, where, on_bad_image == "skip", cache, output)
