"""What `coopt suite list` and `coopt suite show` do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coopt.cli.output import Output
from coopt.data import display_name
from coopt.errors import SavedFileError
from coopt.evaluation.store import Store
from coopt.suites.datasets import datasets_of
from coopt.suites.grid import grid_of
from coopt.suites.known import find_suite, known_suites
from coopt.suites.papers import IMAGENET_RUN
from coopt.suites.scores import Scores
from coopt.suites.suite import Suite
from coopt.suites.tables import Table, table_of
from coopt.suites.words import WordTable, word_tables


def run_list(output: Output) -> None:
    """Lists the suites."""
    suites = known_suites()
    rows = [[one.name, one.title, "nothing" if one.bundled else "data and weights", one.cost] for one in suites]
    output.table(["suite", "what it measures", "needs", "takes"], rows)
    output.say()
    output.say(IMAGENET_RUN)
    output.result(
        {
            "suites": [
                {
                    "name": one.name,
                    "title": one.title,
                    "paper": one.paper,
                    "offline": one.bundled,
                    "backbones": [model.key for model in one.models],
                    "methods": [entry.name for entry in one.entries],
                    "shots": list(one.shots),
                    "seeds": list(one.seeds),
                    "cost": one.cost,
                }
                for one in suites
            ]
        }
    )


def run_show(
    name: str | None, *, out: Path, only: Sequence[str], markdown: bool, figures: Path | None, output: Output
) -> None:
    """Shows one suite, or all that have results.

    Raises:
        ParameterError: there is no such suite, or it has nothing of a name in `only`.
        SavedFileError: there are no results, or figures cannot be written.
    """
    suites = [find_suite(name)] if name is not None else [one for one in known_suites() if _has_results(out, one)]
    if not suites or not any(_has_results(out, one) or one.published or one.published_words for one in suites):
        what = f"of {name} " if name is not None else ""
        raise SavedFileError(
            f"There are no results {what}in '{display_name(out)}'. "
            f"Run `coopt suite run {name or 'NAME'} --out {display_name(out)}`."
        )
    shown = [_shown(suite, out, only) for suite in suites]
    files = [] if figures is None else _draw(shown, figures)
    if markdown and name is None and not output.json:
        output.line(f"# Results\n\nMade by `coopt suite show --all --markdown --out {display_name(out)}`.\n")
    for suite, table, words in shown:
        _say(suite, table, words, markdown, output)
    if not markdown:
        for file in files:
            output.say(f"Written: {display_name(file)}")
    document = [{"suite": s.name, **t.to_dict(), "words": [one.to_dict() for one in w]} for s, t, w in shown]
    output.result({"suites": document, "figures": [display_name(file) for file in files]})


def _store(suite: Suite, out: Path) -> Store:
    return Store(out / suite.name, suite.name)


def _has_results(out: Path, suite: Suite) -> bool:
    return not _store(suite, out).empty


def _shown(suite: Suite, out: Path, only: Sequence[str]) -> tuple[Suite, Table, tuple[WordTable, ...]]:
    scores = Scores(grid_of(suite, datasets_of(suite), only), _store(suite, out).whole())
    return suite, table_of(scores), word_tables(scores)


def _draw(shown: Sequence[tuple[Suite, Table, Any]], folder: Path) -> list[Path]:
    from coopt.report.figures import save_figure
    from coopt.report.suite_plots import suite_figures

    return [
        file
        for suite, table, _ in shown
        for name, figure in suite_figures(suite, table).items()
        for file in save_figure(figure, folder / f"{suite.name}-{name}")
    ]


def _say(suite: Suite, table: Table, words: Sequence[WordTable], markdown: bool, output: Output) -> None:
    from coopt.report import suite_tables

    if output.json:
        return
    if markdown:
        output.line(suite_tables.markdown(suite, table, words))
        return
    output.say(f"{suite.name}: {suite.title} ({suite.paper})")
    output.say(f"{table.measured} of {table.planned} runs are there. {suite_tables.LEGEND}")
    for section in table.sections:
        output.say()
        headers, rows = suite_tables.grid(table, section)
        output.table([section.title, *headers[1:]], rows, right=range(1, len(headers)))
    for one in words:
        output.say()
        rows = [[str(i), *row] for i, row in enumerate(one.rows, start=1)]
        output.table([one.method, *one.columns], rows)
        output.say(suite_tables.said_of_words(one))
    for note in (*table.notes, *table.made):
        output.say()
        output.say(note)
    output.say()
