"""What `coopt suite pack` and `coopt suite unpack` do."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from coopt.cli.output import Output
from coopt.data import display_name
from coopt.evaluation import packing
from coopt.suites.packing import for_suites
from coopt.wording import counted


def run_pack(what: Literal["pack", "unpack"], name: str | None, out: Path, output: Output) -> None:
    """Packs or unpacks one suite's runs, or those of all (`name` is None).

    Raises:
        ParameterError: there is no such suite.
        SavedFileError: there are no results, or they cannot be packed or unpacked.
    """
    done = for_suites(packing.pack if what == "pack" else packing.unpack, out, name)
    for suite, one in done.items():
        moved, path = counted(one.moved, "run"), display_name(one.path)
        if what == "pack":
            output.say(f"{suite}: {moved} packed into '{path}', which holds {one.total}.")
        else:
            output.say(f"{suite}: {moved} unpacked into '{display_name(one.path.with_suffix(''))}'.")
        for reason in one.left.values():
            output.warn(f"Left as it is: {reason}", "LeftRun")
    output.result(
        {
            "suites": [
                {"suite": suite, "file": display_name(one.path), f"{what}ed": one.moved, "left": one.left}
                for suite, one in done.items()
            ]
        }
    )
