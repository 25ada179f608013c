"""Tables of suites as text: for terminals and in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from coopt.suites.suite import Suite
from coopt.suites.tables import Cell, Row, Section, Table
from coopt.suites.words import WordTable

MISSING, NONE = "missing", "–"
WIDEST = 7
"""Columns beyond which a table is turned."""


def grid(table: Table, section: Section) -> tuple[list[str], list[list[str]]]:
    """Headers and rows of a section: a method's numbers, then the published ones and the differences.

    A method is a line; where that makes lines too wide to read, it is a column.
    """
    lines = [line for row in section.rows for line in _lines(row)]
    if len(table.columns) <= WIDEST:
        return ["", *table.columns], lines
    turned = [list(cells) for cells in zip(*lines, strict=True)]
    headers, *rows = turned
    return ["", *(name.strip() for name in headers)], [
        [column, *cells] for column, cells in zip(table.columns, rows, strict=True)
    ]


LEGEND = (
    "Accuracy in percent: mean ± standard deviation over the seeds (divided by n) [half of the 95% interval of the mean: as the "
    "papers have it, 1.96 std / sqrt(n); t: Student's, which holds for few seeds, too]."
)


def said_of_words(words: WordTable) -> str:
    """What distances mean."""
    if not words.scale:
        return "Nothing of ours is there yet."
    return (
        f"Distances are Euclidean. For scale: a word is {words.scale['word_to_word']:.3f} from the next one, a random "
        f"vector as training starts from {words.scale['random_to_word']:.3f} from its nearest word, and the learned "
        f"vectors {words.scale['learned_to_word']:.3f} on average. Nearest words are neighbours, not a meaning."
    )


def markdown(suite: Suite, table: Table, words: Sequence[WordTable] = ()) -> str:
    """A chapter with everything that is known of a suite."""
    lines = [f"## {suite.title} (`{suite.name}`)", "", f"{suite.paper}.", ""]
    lines += [f"{table.measured} of {table.planned} runs are there. {LEGEND}", ""]
    for section in table.sections:
        lines += [f"**{section.title}**", ""] if section.title else []
        lines += [*_grid(*grid(table, section), right=True), ""]
    for one in words:
        lines += [f"**{one.method}: nearest word (distance) of each context vector**", ""]
        lines += _grid(["#", *one.columns], [[str(i), *row] for i, row in enumerate(one.rows, start=1)], right=False)
        lines += ["", said_of_words(one), ""]
    lines += [line for note in (*table.notes, *table.made) for line in (note, "")]
    return "\n".join(lines)


def _lines(row: Row) -> list[list[str]]:
    lines = [[row.method, *(_ours(cell) for cell in row.cells)]]
    if any(cell.published is not None for cell in row.cells):
        lines.append(["  published", *("" if c.published is None else f"{c.published:.2f}" for c in row.cells)])
    if any(cell.difference is not None for cell in row.cells):
        lines.append(["  difference", *("" if c.difference is None else f"{c.difference:+.2f}" for c in row.cells)])
    return lines


def _ours(cell: Cell) -> str:
    if cell.ours is None:
        return MISSING if cell.state == "missing" else NONE
    ours = cell.ours
    text = f"{ours.mean:.2f}"
    if ours.t_interval is not None:
        text += f" ±{ours.std:.2f} [{ours.interval:.2f}; t {ours.t_interval:.2f}]"
    return text if ours.n == cell.planned else f"{text} ({ours.n}/{cell.planned} seeds)"


def _grid(headers: Sequence[str], rows: Sequence[Sequence[str]], right: bool) -> list[str]:
    def line(cells: Sequence[str]) -> str:
        escaped = (cell.replace("|", "\\|").replace("  ", "&nbsp;&nbsp;") for cell in cells)
        return f"| {' | '.join(escaped)} |"

    rule = ["---", *(("--:" if right else "---") for _ in headers[1:])]
    return [line(headers), line(rule), *(line(row) for row in rows)]
