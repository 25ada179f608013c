"""Whether the memory promise is kept: what a step was allowed to hold, and what the process did hold.

    python benchmarks/memory.py [--classes 1000] [--memory 250M,500M,1G,2G,auto] [--precisions fp32] [--json FILE]
    python benchmarks/memory.py --method cocoop --classes 100

Every promise has a process of its own, as in `scale.py`, on a model with random weights. With a number, the step may hold
that much above the model; "auto" bounds the activations of a chunk, and what is promised is the estimate that is made before
the first step. `times_unbounded` is the price of cutting the classes into chunks: the step's time as a multiple of that of a
step that keeps everything. Exits with 1 when a process held more than was promised.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import sections
from benchmarks.measuring import precisions_here
from benchmarks.report import add_json_option, on_screen, report
from benchmarks.scale import add_options, in_own_process
from benchmarks.steps import UNBOUNDED
from coopt.text.memory import bytes_of


def measure(arguments: argparse.Namespace, precisions: Sequence[str]) -> list[dict[str, Any]]:
    """A row for every precision and promise, each behind a step without a bound."""
    rows = []
    for precision in precisions:
        unbounded = None
        for memory in (UNBOUNDED, *arguments.memory.split(",")):
            given = argparse.Namespace(**{**vars(arguments), "memory": memory})
            row = in_own_process(arguments.classes, precision, given)
            unbounded = unbounded or row["step_s"]
            rows.append({"memory": memory, **judged(row, memory), "times_unbounded": row["step_s"] / unbounded})
    return rows


def judged(row: dict[str, Any], memory: str) -> dict[str, Any]:
    """A row of `scale.py` with the promise, and whether it was kept; without a bound nothing is promised but the estimate."""
    allowed = None if memory == UNBOUNDED else bytes_of(memory)
    promised = row["estimate_mb"] if allowed is None else allowed / 1e6
    return {**row, "promised_mb": promised, "kept": row["above_model_mb"] <= promised}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_json_option(parser)
    add_options(parser)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--memory", default="250M,500M,1G,2G,auto", help="promises")
    parser.add_argument("--precisions", default="fp32")
    parser.add_argument("--repeats", type=int, default=2, help="measured steps")
    arguments = parser.parse_args()
    precisions, left_out = precisions_here(arguments.precisions.split(","))
    rows = measure(arguments, precisions)
    what = {"method": arguments.method, "model": arguments.model, "classes": arguments.classes}
    result = {**what, "left_out": left_out, "rows": rows}
    report(result, on_screen(sections.memory(result)), arguments)
    return 0 if all(row["kept"] for row in rows) else 1


if __name__ == "__main__":
    raise SystemExit(main())
