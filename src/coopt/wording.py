"""How messages call a setting: by its parameter in Python, by its option on the command line.

A message is written once, where the fault is found, and does not know who reads it. While a command runs, `spoken`
holds that command's own options, taken from the command itself, so there is no second list of names to keep.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

_options: ContextVar[Mapping[str, str] | None] = ContextVar("coopt_options", default=None)

SET = "set"
"""The option of a command that takes parameters which have no option of their own, as NAME=VALUE."""


@contextmanager
def spoken(options: Mapping[str, str]) -> Iterator[None]:
    """Within this context messages speak of command-line options.

    Args:
        options: parameter name to option, such as {"n_ctx": "--n-ctx"}.
    """
    token = _options.set(options)
    try:
        yield
    finally:
        _options.reset(token)


def on_command_line() -> bool:
    """Whether a command is running, so that messages should speak of options."""
    return _options.get() is not None


def subject(name: str, owner: str) -> str:
    """A setting as the subject of a sentence: "The 'n_ctx' parameter of CoOp", or "--n-ctx".

    Args:
        name: the parameter; "recipe.lr" is the field `lr` of the parameter `recipe`.
        owner: the class or function that has it.
    """
    option = _option(name)
    return f"The {name!r} parameter of {owner}" if option is None else option


def setting(name: str, value: Any) -> str:
    """A setting with a value, as it is typed: "download=True", or "--download"; "n_ctx=4", or "--n-ctx 4".

    A tuple is typed as "--value-range 0,4095".
    """
    option = _option(name)
    if option is None:
        return f"{name}={value!r}"
    if option.startswith(f"--{SET} "):
        return f"{option}={value}"
    if isinstance(value, bool):
        return option if value else f"--no-{option.removeprefix('--')}"
    if isinstance(value, tuple):
        value = ",".join(map(str, value))
    return f"{option} {shlex.quote(str(value))}"


def called(name: str) -> str:
    """A setting named within a sentence: "recipe.lr", or "--lr"."""
    return _option(name) or name


def counted(number: int, thing: str) -> str:
    """A number of things: "1 image", "2 images", "3 classes"."""
    plural = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{number} {thing if number == 1 else plural}"


def size_of(n_bytes: int | float) -> str:
    """A number of bytes for people."""
    for unit in ("bytes", "kB", "MB"):
        if n_bytes < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "bytes" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} GB"


def _option(name: str) -> str | None:
    """The running command's option for a parameter; None in Python, or when the command has none."""
    options = _options.get()
    if options is None:
        return None
    field = name.rpartition(".")[2]
    spelled = options.get(name) or (options.get(field) if field != name else None)
    return spelled or (f"--{SET} {name}" if SET in options else None)
