"""Suites and what came of them: tables beside the published numbers, nearest words, figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from coopt import events
from coopt.data import display_name
from coopt.errors import SavedFileError
from coopt.evaluation.store import Store
from coopt.suites.datasets import datasets_of
from coopt.suites.grid import grid_of
from coopt.suites.known import find_suite, known_suites
from coopt.suites.scores import Scores
from coopt.suites.suite import Suite
from coopt.suites.tables import Table, table_of
from coopt.suites.words import WordTable, word_tables


@dataclass(frozen=True)
class ShownSuite:
    """A suite with what there is of it."""

    suite: Suite
    table: Table
    words: tuple[WordTable, ...]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"suite": self.suite.name, **self.table.to_dict(), "words": [one.to_dict() for one in self.words]}


@dataclass(frozen=True)
class ShownSuites:
    """Suites with what there is of them.

    Attributes:
        suites: each with its table.
        figures: files that were written.
        warnings: what was warned of.
    """

    suites: tuple[ShownSuite, ...]
    figures: tuple[Path, ...]
    warnings: tuple[events.Warned, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {
            "suites": [one.to_dict() for one in self.suites],
            "figures": [display_name(file) for file in self.figures],
            "warnings": [one.to_record() for one in self.warnings],
        }


def show_suites(
    name: str | None = None, out: Path | str = "results", only: Sequence[str] = (), figures: Path | str | None = None
) -> ShownSuites:
    """One suite beside the published numbers, or all that have results.

    Args:
        name: of the suite, or a file that defines one; None: all that have results.
        out: the folder of results.
        only: backbones, data sets and methods of the suite.
        figures: a folder to draw figures into (PNG and SVG); None: none are drawn.

    Raises:
        ParameterError: there is no such suite, or it has nothing of a name in `only`.
        SavedFileError: there are no results, or figures cannot be written.
    """
    out = Path(out)
    suites = [find_suite(name)] if name is not None else [one for one in known_suites() if _has_results(one, out)]
    if not suites or not any(_has_results(one, out) or one.published or one.published_words for one in suites):
        what = f"of {name} " if name is not None else ""
        raise SavedFileError(
            f"There are no results {what}in '{display_name(out)}'. "
            f"Run `coopt suite run {name or 'NAME'} --out {display_name(out)}`."
        )
    with events.warnings_collected() as warned:
        shown = ShownSuites(tuple(_shown(suite, out, only) for suite in suites), ())
        if figures is not None:
            shown = replace(shown, figures=tuple(_draw(shown.suites, Path(figures))))
        return replace(shown, warnings=tuple(warned))


def _store(suite: Suite, out: Path) -> Store:
    return Store(out / suite.name, suite.name)


def _has_results(suite: Suite, out: Path) -> bool:
    return not _store(suite, out).empty


def _shown(suite: Suite, out: Path, only: Sequence[str]) -> ShownSuite:
    scores = Scores(grid_of(suite, datasets_of(suite), only), _store(suite, out).whole())
    return ShownSuite(suite, table_of(scores), word_tables(scores))


def _draw(shown: Sequence[ShownSuite], folder: Path) -> list[Path]:
    from coopt.report.figures import save_figure
    from coopt.report.suite_plots import suite_figures

    return [
        file
        for one in shown
        for name, figure in suite_figures(one.suite, one.table).items()
        for file in save_figure(figure, folder / f"{one.suite.name}-{name}")
    ]
