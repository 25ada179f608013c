"""`coopt zero-shot`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from coopt.cli.options import (
    CACHE,
    DATA,
    DESCRIPTIONS,
    ROOT,
    SPLIT,
    backbone_options,
    data_reading,
    on_bad_image,
    precision,
)
from coopt.cli.output import MEASURES, Output, command, measures, say_mistakes
from coopt.wording import counted


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
@DESCRIPTIONS
@SPLIT
@backbone_options("bundled")
@click.option("--out", type=click.Path(path_type=Path), metavar="DIR", help="Save it, for `coopt predict`.")
@data_reading
@on_bad_image("fail")
@CACHE
@precision("fp32")
def zero_shot(output: Output, **options: Any) -> None:
    """Measure hand-made prompts on labelled images.

    Nothing is learned. DATA is a folder, a CSV file or a name as for `coopt fit`. Each template is measured alone, and
    several of them also together, with their text features averaged; descriptions count with all of them together.

    \b
    Examples:
      coopt zero-shot photos
      coopt zero-shot photos --template "a {}." --template "art of a {}."
      coopt zero-shot photos --ensemble --out my-ensemble
      coopt zero-shot oxford_pets --root DATA --ensemble --template dataset
    """
    from coopt.app.evaluating import zero_shot as measure
    from coopt.app.requests import ZeroShotRequest
    from coopt.data.file_names import display_name

    result = measure(ZeroShotRequest.of(**options))
    rows = list(result.templates)
    with_texts = ", with the descriptions" if options["descriptions"] else ""
    if len(rows) > 1 or with_texts:
        rows.append((f"{f'all {len(rows)} together' if len(rows) > 1 else rows[0][0]}{with_texts}", result.together))
    output.say()
    output.table(
        [f"On {counted(result.together.n, 'image')}, %", *MEASURES],
        [[display_name(name), *measures(one)] for name, one in rows],
        right=(1, 2, 3, 4),
    )
    say_mistakes(output, result.together)
    if result.out is not None:
        out = display_name(result.out)
        output.say()
        output.say(f"Saved to '{out}'; use it as `coopt predict {out} IMAGES...`.")
    output.result(result.to_dict())
