"""`coopt predict`: the options."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import click

from coopt.cli.options import CACHE, PROMPT, VALUE_RANGE, backbone_options, on_bad_image, precision
from coopt.cli.output import Output, command


@command("predict")
@PROMPT
@click.argument("images", nargs=-1, metavar="[IMAGES...]")
@click.option("--from-list", metavar="FILE", help="Images named in a file, one path per line; '-': standard input.")
@click.option("--topk", type=click.IntRange(min=1), default=1, show_default=True, help="Classes per image.")
@click.option("--csv", is_flag=True, help="Print CSV rows as they come.")
@click.option("--jsonl", is_flag=True, help="Print one JSON object per image as they come.")
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write the rows to FILE (.csv or .jsonl). A run that is stopped goes on when it is started again.",
)
@click.option("--overwrite", is_flag=True, help="Begin FILE anew.")
@click.option(
    "--min-confidence",
    type=click.FloatRange(0, 1, min_open=True),
    metavar="P",
    help="Give no class to images whose most probable one is below P, such as 0.6.",
)
@click.option("--copy-to", type=click.Path(path_type=Path), metavar="DIR", help="Copy images into DIR/CLASS.")
@click.option("--move-to", type=click.Path(path_type=Path), metavar="DIR", help="Move images into DIR/CLASS.")
@click.option(
    "--contact-sheet",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write an HTML page of small pictures by class.",
)
@click.option("--classes", metavar="A,B,C", help="Other classes than those the prompt was learned for.")
@click.option("--classes-file", type=click.Path(path_type=Path), metavar="FILE", help="The same, one per line.")
@backbone_options(None)
@VALUE_RANGE
@on_bad_image("skip")
@CACHE
@precision(None)
def predict(
    output: Output,
    prompt: Path,
    images: tuple[str, ...],
    from_list: str | None,
    topk: int,
    csv: bool,
    jsonl: bool,
    out: Path | None,
    overwrite: bool,
    min_confidence: float | None,
    copy_to: Path | None,
    move_to: Path | None,
    contact_sheet: Path | None,
    classes: str | None,
    classes_file: Path | None,
    backbone: str | None,
    device: str,
    download: bool,
    value_range: tuple[float | int, float | int] | None,
    on_bad_image: str,
    cache: bool,
    precision: Literal["auto", "fp32", "bf16"] | None,
) -> None:
    """Classify images with a learned prompt.

    PROMPT is a folder written by `coopt fit` (or `coopt zero-shot --out`). IMAGES are image files, folders (searched
    with all that is below them) and globs, in any mix.

    --copy-to and --move-to never write over a file: one whose name is taken gets a number. Images below
    --min-confidence go into DIR/_uncertain; those that cannot be read stay where they are.

    \b
    Examples:
      coopt predict coopt-photos new.jpg
      coopt predict coopt-photos holidays/ --topk 3
      coopt predict coopt-photos "scans/**/*.png" --csv > found.csv
      find / -name "*.jpg" | coopt predict coopt-photos --from-list - --out all.csv
      coopt predict coopt-photos new.jpg --classes "red kite,grey heron"
      coopt predict coopt-photos inbox/ --move-to sorted --min-confidence 0.6
    """
    forms = [name for name, given in (("json", output.json and not out), ("csv", csv), ("jsonl", jsonl)) if given]
    if len(forms) > 1:
        raise click.UsageError(f"--{forms[0]} and --{forms[1]} exclude each other: give one of them.")
    if bool(images) == (from_list is not None):
        raise click.UsageError("Give either IMAGES... or --from-list FILE.")
    form = "csv" if csv else "jsonl" if jsonl else _form_of(out)
    if overwrite and out is None:
        raise click.UsageError("--overwrite is for a file: give --out FILE.")
    if copy_to is not None and move_to is not None:
        raise click.UsageError("--copy-to and --move-to exclude each other: give one of them.")
    from coopt.cli.placing import Placement
    from coopt.cli.predicting import run_predict
    from coopt.cli.prediction_request import Request, read_class_names
    from coopt.cli.where import Where

    names = read_class_names(classes, classes_file)
    where = Where(backbone, device, download, precision=precision, value_range=value_range)
    skip = on_bad_image == "skip"
    folder = copy_to or move_to
    placement = None if folder is None else Placement(folder, "copy" if folder == copy_to else "move")
    request = Request(
        prompt,
        images or None,
        from_list,
        topk,
        form,
        names,
        where,
        skip,
        cache,
        out,
        overwrite,
        min_confidence,
        placement,
        contact_sheet,
    )
    run_predict(request, output)


def _form_of(out: Path | None) -> Literal["csv", "jsonl"] | None:
    """How rows are written into a file, by its ending."""
    if out is None:
        return None
    ending = out.suffix.lower()
    if ending not in (".csv", ".jsonl"):
        raise click.UsageError(f"--out ends in {ending or 'nothing'!r}: add --csv or --jsonl to say what to write.")
    return "csv" if ending == ".csv" else "jsonl"
