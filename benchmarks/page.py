"""docs/benchmarks.md, made of the JSON files that the benchmarks wrote.

    python benchmarks/page.py [--results benchmarks/results] > docs/benchmarks.md

A benchmark whose file is not there has no section.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.report import left_out
from benchmarks.sections import Paragraphs, Result, Table

RESULTS = Path(__file__).parent / "results"

PREFACE = (
    "Every table, and every figure in the text, comes from the JSON in [benchmarks/results](../benchmarks/results) that the "
    "command above it wrote (with `--json FILE`); `make benchmarks` makes this page of them. Ways that are compared take turns "
    "in one run, and ratios are of that run. Seconds are the fastest of the repeats where nothing else is said: what else "
    "runs on a machine only ever adds time."
)


class Section(NamedTuple):
    """A heading, the files below it (names without their ending; `*` as in a shell), and what makes paragraphs of one."""

    title: str
    files: str
    render: Callable[[Result], Paragraphs]


SECTIONS = (
    Section("Parity with the reference implementation", "parity", sections.parity),
    Section("One training step", "speed", sections.coop_step),
    Section("One CoCoOp step", "speed-cocoop", sections.cocoop_step),
    Section("One step of other methods", "speed-method-*", sections.method_step),
    Section("Families of backbones", "backbones", sections.backbones),
    Section("Classes and memory", "scale*", sections.scale),
    Section("The memory promise", "memory*", sections.memory),
    Section("A whole run", "whole*", sections.whole),
    Section("Image features", "features-*", sections.features),
    Section("Engines for the image tower", "engines-*", sections.engines),
    Section("From a command's start to its answer", "startup", sections.startup),
    Section("Which method to take", "choose", sections.choosing),
    Section("Beside another busy process", "beside*", sections.beside),
    Section("Recipes on the test parts", "recipe-test", sections.recipe),
    Section("Softmax and sigmoid", "sigmoid", sections.sigmoid),
    Section("Tried and not taken", "tried", sections.tried),
)


def page(folder: Path) -> str:
    """The whole page.

    Raises:
        ValueError: the folder has a JSON file that no section shows.
    """
    results = {file.stem: json.loads(file.read_text()) for file in sorted(folder.glob("*.json"))}
    for name in results:
        if not any(fnmatch(name, section.files) for section in SECTIONS):
            known = ", ".join(section.files for section in SECTIONS)
            raise ValueError(
                f"No section shows {name}.json. Expected {known}: rename it, or add its section to page.py."
            )
    parts = ["# Benchmarks", " ".join([PREFACE, *movement(results)])]
    for section in SECTIONS:
        shown = [result for name, result in results.items() if fnmatch(name, section.files)]
        for i, result in enumerate(shown):
            about, *rest = map(in_markdown, section.render(result))
            parts += [] if i else [f"## {section.title}"]
            parts += [about, *origin(result), *rest]
        if section.files == "recipe-test" and shown and "speed" in results:
            computed = sections.end_to_end(results["speed"], shown[0])
            parts += ["## Fast against paper, end to end", *computed] if computed else []
    return "\n\n".join(map(wrapped, parts)) + "\n"


def in_markdown(part: str | Table) -> str:
    """A paragraph as it stands on the page."""
    return part if isinstance(part, str) else sections.markdown(*part)


def wrapped(part: str) -> str:
    """Prose in lines; tables, headings and commands as they are."""
    return part if part.startswith(("|", "#", " ")) else sections.prose(part)


def movement(results: Mapping[str, Result]) -> Iterator[str]:
    """How much the machine moved while steps were measured."""
    spreads = [one for name in ("speed", "speed-cocoop") if name in results for one in results[name]["spread"].values()]
    if spreads:
        median, slowest = (max(one[name] / one["fastest"] - 1 for one in spreads) for name in ("median", "slowest"))
        yield (
            "How much the machine moves: among the training steps below, a way's median is up to "
            f"{median:.0%} above its fastest repeat, and its slowest up to {slowest:.0%}."
        )


def origin(result: Result) -> Iterator[str]:
    """The command and, where it is known, the machine."""
    yield "    " + result["command"].replace(" --set ", " \\\n        --set ")
    if "machine" in result:
        yield machine(result["machine"])
    if result.get("left_out"):
        yield left_out(result)


def machine(facts: Mapping[str, Any]) -> str:
    """The machine in a sentence."""
    known = f" ({', '.join(facts['instructions'])})" if facts["instructions"] else ""
    memory = f", {facts['memory_gb']} GB" if facts["memory_gb"] else ""
    threads = f"{facts['threads']} thread{'s' * (facts['threads'] > 1)}"
    return f"On {facts['cores']} cores{known}{memory}, {facts['gpu'] or 'no GPU'}; torch {facts['torch']}, {threads}."


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=Path, default=RESULTS, metavar="DIR", help="where the JSON files lie")
    sys.stdout.write(page(parser.parse_args().results))


if __name__ == "__main__":
    main()
