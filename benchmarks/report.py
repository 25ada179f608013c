"""What every benchmark ends with: its table on the screen and, where `--json FILE` is given, its numbers in a file."""

from __future__ import annotations

import argparse
import os
import re
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.sections import Table, listed, prose
from coopt.files import write_json

ROOT = Path(__file__).parents[1]

INSTRUCTION_SETS = {"AVX2": "avx2", "AVX-512": "avx512f", "AMX bf16": "amx_bf16"}
"""Those that matrix products gain from, by their flags in /proc/cpuinfo."""


def add_json_option(parser: argparse.ArgumentParser) -> None:
    """`--json FILE`, the same for every benchmark."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers to this file as well")


def report(result: dict[str, Any], table: str, arguments: argparse.Namespace) -> None:
    """Prints the table and, where `--json FILE` was given, writes the numbers.

    Args:
        result: the numbers; the command and the machine are put before them.
        table: the same for people.
        arguments: of the command line, parsed.

    Raises:
        SavedFileError: the file cannot be written.
    """
    print(table)
    if result.get("left_out"):
        print(f"\n{left_out(result)}")
    if arguments.json:
        write_json(arguments.json, {"command": command(sys.argv), "machine": machine(), **result})


def left_out(result: Mapping[str, Any]) -> str:
    """What this machine was not asked for, in a sentence."""
    return f"Left out: {listed(result['left_out'])}."


def command(argv: Sequence[str]) -> str:
    """The command as one would type it in the repository: no `--json`, and of a path elsewhere its name alone."""
    words, skipped = [], False
    for word in argv:
        if skipped or word == "--json" or word.startswith("--json="):
            skipped = word == "--json"
            continue
        option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
        path = Path(value)
        if path.is_absolute():
            value = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        words.append(option + equals + value)
    return shlex.join(["python", *words])


def machine() -> dict[str, Any]:
    """What this process runs on, in general terms; sizes in units of 10^9 bytes."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    pages = {"SC_PAGE_SIZE", "SC_PHYS_PAGES"} <= set(getattr(os, "sysconf_names", ()))
    return {
        "cores": cores,
        "instructions": instruction_sets(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9) if pages else None,
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def instruction_sets() -> list[str]:
    """Those of `INSTRUCTION_SETS` that this processor has; none where there is no /proc/cpuinfo."""
    try:
        flags = re.search(r"^flags\s*:(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        return []
    return [name for name, flag in INSTRUCTION_SETS.items() if flags and flag in flags[1].split()]


def on_screen(parts: Sequence[str | Table]) -> str:
    """A section of `benchmarks.sections` for a terminal."""
    return "\n\n".join(prose(part) if isinstance(part, str) else aligned([part.header, *part.rows]) for part in parts)


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as lines: the first column to the left, the others to the right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(n) for cell, n in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)
