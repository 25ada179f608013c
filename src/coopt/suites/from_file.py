"""Suites of one's own: a Python file that defines `SUITE`."""

from __future__ import annotations

import importlib.util
import sys
import traceback
from pathlib import Path
from types import ModuleType

from coopt.data.file_names import display_name
from coopt.errors import ParameterError
from coopt.suites.suite import Suite

ENDING = ".py"
NAME = "SUITE"


def is_suite_file(name: str) -> bool:
    """Whether a name is that of a file with a suite, and not of a suite."""
    return name.endswith(ENDING)


def load_suite_file(path: Path) -> Suite:
    """The suite that a file defines.

    The file is run, as `python FILE` would run it: it may also register methods or data sets of its own.

    Raises:
        ParameterError: there is no such file, it cannot be run, or it defines no suite; says where it stopped.
    """
    shown = f"'{display_name(path)}'"
    if not path.is_file():
        raise ParameterError(
            f"There is no file {shown}. Expected a Python file that defines {NAME}; see docs/suites.md."
        )
    suite = getattr(_run(path, shown), NAME, None)
    if suite is None:
        raise ParameterError(
            f"{shown} defines no {NAME}. Expected {NAME} = coopt.suites.Suite(...); see docs/suites.md."
        )
    if not isinstance(suite, Suite):
        raise ParameterError(
            f"The {NAME} of {shown} is a {type(suite).__name__}. Expected a coopt.suites.Suite; see docs/suites.md."
        )
    return suite


def _run(path: Path, shown: str) -> ModuleType:
    name = f"coopt_suite_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None  # the ending is Python's
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # as for any module, before it is run
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        raise ParameterError(f"{shown} is not Python (line {error.lineno}): {error.msg}.") from error
    except Exception as error:  # somebody's own code: whatever it raises
        raise ParameterError(f"{shown} stopped{_line_of(error, path)}: {type(error).__name__}: {error}") from error
    return module


def _line_of(error: Exception, path: Path) -> str:
    """The last line of the file that was being run."""
    lines = [
        frame.lineno
        for frame in traceback.extract_tb(error.__traceback__)
        if Path(frame.filename).resolve() == path.resolve()
    ]
    return f" at line {lines[-1]}" if lines else ""
