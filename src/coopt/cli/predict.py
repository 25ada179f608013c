"""`coopt predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from coopt import events
from coopt.cli.options import CACHE, PROMPT, VALUE_RANGE, backbone_options, on_bad_image, precision
from coopt.cli.output import Output, command
from coopt.errors import ParameterError

if TYPE_CHECKING:
    from coopt.cli.prediction_printers import Printer


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
def predict(output: Output, csv: bool, jsonl: bool, **options: Any) -> None:
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
    out, images = options["out"], options.pop("images")
    forms = [name for name, given in (("json", output.json and not out), ("csv", csv), ("jsonl", jsonl)) if given]
    if len(forms) > 1:
        raise click.UsageError(f"--{forms[0]} and --{forms[1]} exclude each other: give one of them.")
    if bool(images) == (options["from_list"] is not None):
        raise click.UsageError("Give either IMAGES... or --from-list FILE.")
    form = "csv" if csv else "jsonl" if jsonl else _form_of(out)
    if options["overwrite"] and out is None:
        raise click.UsageError("--overwrite is for a file: give --out FILE.")
    if options["copy_to"] is not None and options["move_to"] is not None:
        raise click.UsageError("--copy-to and --move-to exclude each other: give one of them.")
    from coopt.app.predicting import predict as run_predict
    from coopt.app.requests import PredictRequest

    names = _class_names(options.pop("classes"), options.pop("classes_file"))
    request = PredictRequest.of(images=images or None, class_names=names, form=form, keep_rows=output.json, **options)
    with events.listening(_Rows(form, output)):
        result = run_predict(request)
    output.result(result.to_dict())


class _Rows:
    """Prints rows as they come."""

    def __init__(self, form: str | None, output: Output) -> None:
        self.form, self.output = form, output
        self.printer: Printer | None = None

    def __call__(self, event: events.Event) -> None:
        from coopt.app.prediction_rows import Predicted, PredictionsBegun
        from coopt.cli.prediction_printers import CsvPrinter, JsonlPrinter, PeoplePrinter

        if isinstance(event, PredictionsBegun) and not self.output.json:
            printers = {"csv": CsvPrinter, "jsonl": JsonlPrinter}
            printer = printers.get(self.form or "", PeoplePrinter)(event.class_names, event.shape, self.output)
            printer.begin()
            self.printer = printer
        elif isinstance(event, Predicted) and self.printer is not None:
            self.printer.row(event.row)


def _form_of(out: Path | None) -> Literal["csv", "jsonl"] | None:
    """How rows are written into a file, by its ending."""
    if out is None:
        return None
    ending = out.suffix.lower()
    if ending not in (".csv", ".jsonl"):
        raise click.UsageError(f"--out ends in {ending or 'nothing'!r}: add --csv or --jsonl to say what to write.")
    return "csv" if ending == ".csv" else "jsonl"


def _class_names(classes: str | None, file: Path | None) -> list[str] | None:
    """Class names of `--classes` or `--classes-file`; None when neither is given.

    Raises:
        ParameterError: both are given, or the file cannot be read.
    """
    from coopt.data.file_names import display_name
    from coopt.data.text_files import decode_text, in_unicode, visible

    if classes is not None and file is not None:
        raise ParameterError("--classes and --classes-file exclude each other: give one of them.")
    if file is not None:
        try:
            lines = in_unicode(decode_text(file.read_bytes())).splitlines()
        except OSError as error:
            raise ParameterError(
                f"The file of class names '{display_name(file)}' cannot be read: {error.strerror or error}."
            ) from error
    elif classes is not None:
        lines = classes.split(",")
    else:
        return None
    names = [name for line in lines if (name := visible(line))]
    if not names:
        where = "--classes" if file is None else f"The file of class names '{display_name(file)}'"
        raise ParameterError(f"{where} names no class. Expected at least two.")
    return names
