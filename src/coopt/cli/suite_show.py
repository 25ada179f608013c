"""`coopt suite show`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from coopt.cli.output import Output, command
from coopt.cli.suite_options import ALL, NAME, ONLY, OUT, one_or_all
from coopt.data.file_names import display_name

if TYPE_CHECKING:
    from coopt.app.show_suite import ShownSuite


@command("show")
@NAME
@ALL
@OUT
@ONLY
@click.option("--markdown", is_flag=True, help="Print Markdown.")
@click.option(
    "--figures",
    type=click.Path(path_type=Path, file_okay=False),
    metavar="DIR",
    help="Write figures (PNG and SVG) into this folder.",
)
def show(output: Output, name: str | None, everything: bool, out: Path, markdown: bool, **options: Any) -> None:
    """Show a suite's results beside the published numbers.

    NAME is a suite (`coopt suite list`), or a Python file that defines one.

    Of several seeds it shows the mean, the standard deviation (divided by n) and half of the 95% interval of the mean, as
    the papers compute it and after Student; what was not run is said to be missing.

    \b
    Examples:
      coopt suite show coop-domain
      coopt suite show mini-few-shot --figures figures
      coopt suite show --all --markdown > results.md
    """
    from coopt.app.show_suite import show_suites
    from coopt.report.suite_tables import markdown as chapter

    result = show_suites(one_or_all(name, everything), out, **options)
    if markdown and name is None and not output.json:
        output.line(f"# Results\n\nMade by `coopt suite show --all --markdown --out {display_name(out)}`.\n")
    for one in () if output.json else result.suites:
        if markdown:
            output.line(chapter(one.suite, one.table, one.words))
        else:
            _say(one, output)
    if not markdown:
        for file in result.figures:
            output.say(f"Written: {display_name(file)}")
    output.result(result.to_dict())


def _say(shown: ShownSuite, output: Output) -> None:
    from coopt.report.suite_tables import LEGEND, grid, said_of_words

    suite, table = shown.suite, shown.table
    output.say(f"{suite.name}: {suite.title} ({suite.paper})")
    output.say(f"{table.measured} of {table.planned} runs are there. {LEGEND}")
    for section in table.sections:
        output.say()
        headers, rows = grid(table, section)
        output.table([section.title, *headers[1:]], rows, right=range(1, len(headers)))
    for words in shown.words:
        output.say()
        rows = [[str(i), *row] for i, row in enumerate(words.rows, start=1)]
        output.table([words.method, *words.columns], rows)
        output.say(said_of_words(words))
    for note in (*table.notes, *table.made):
        output.say()
        output.say(note)
    output.say()
