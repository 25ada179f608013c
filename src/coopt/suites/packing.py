"""Which suites' runs are packed or unpacked, by name or all."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from coopt.errors import SavedFileError
from coopt.evaluation.packing import Packing
from coopt.evaluation.run_files import has_runs
from coopt.suites.known import find_suite


def for_suites(action: Callable[[Path], Packing], out: Path, name: str | None) -> dict[str, Packing]:
    """Packs or unpacks the runs of one suite, or of all in a folder of results.

    Args:
        action: `coopt.evaluation.packing.pack` or `unpack`.
        out: the folder of results.
        name: of a suite; None: all that have results there, whether this coopt knows them or not.

    Raises:
        ParameterError: there is no such suite.
        SavedFileError: there are no results, or `action` cannot do its work.
    """
    names = sorted({path.name.removesuffix(".jsonl") for path in out.glob("*") if not path.name.startswith(".")})
    if name is not None:
        names = [name if name in names else find_suite(name).name]
    folders = [out / one for one in names if has_runs(out / one)]
    if not folders:
        what = f"of {name} " if name is not None else ""
        raise SavedFileError(f"There are no results {what}in '{out}'. Run a suite first, or choose another --out.")
    return {folder.name: action(folder) for folder in folders}
