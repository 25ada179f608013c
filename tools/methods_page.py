"""Writes the tables of coopt's own methods and their parameters into docs/methods.md, from `methods/schema.json`.

python tools/methods_page.py        # a part of `make schema`
"""

from __future__ import annotations

from pathlib import Path

from coopt.methods.schema import builtin_methods
from coopt.parameters import Parameter

PAGE = Path(__file__).parents[1] / "docs/methods.md"
BEGIN = "<!-- Written by `make schema` from what the methods declare. -->\n"
END = "<!-- end -->\n"


def with_tables(page: str) -> str:
    """The text of the page, with the tables as they are now."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}{tables()}{END}{rest.partition(END)[2]}"


def tables() -> str:
    """A table of methods, and one of their parameters: each once, with the methods that have it."""
    methods = builtin_methods().values()
    rows = ["| name | class | what it does | paper | new classes |", "|---|---|---|---|---|"]
    for one in methods:
        new = "yes" if one.capabilities.new_classes else "no"
        rows.append(f"| `{one.name}` | `{one.title}` | {one.summary} | {one.paper} | {new} |")
    users: dict[str, list[str]] = {}
    for one in methods:
        for parameter in one.parameters:
            users.setdefault(_cells(parameter), []).append(one.title)
    rows += ["", "| parameter | of | value | default | what it is |", "|---|---|---|---|---|"]
    for cells, titles in users.items():
        name, rest = cells.split(" | ", 1)
        others = [one.title for one in methods if one.title not in titles]
        of = f"all but {', '.join(others)}" if len(others) < len(titles) else ", ".join(titles)
        rows.append(f"| {name} | {of} | {rest} |")
    return "\n" + "\n".join(rows) + "\n\n"


def _cells(one: Parameter) -> str:
    value = "" if one.kind == "other" and one.said is None else one.expected
    if one.none and "None" not in value and one.said is None:
        value += ", or None"
    return " | ".join((f"`{one.name}`", value, f"`{one.default!r}`", one.doc or one.help))


def main() -> None:
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
