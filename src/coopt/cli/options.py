"""Options that several commands share, and options from parameters that are declared as data."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from functools import wraps
from math import isfinite
from pathlib import Path
from typing import Any, ClassVar, TypeVar, cast

import click

from coopt.errors import BadImageError
from coopt.methods.schema import runtime_parameters
from coopt.parameters import Parameter
from coopt.runtime import Runtime

_Function = TypeVar("_Function", bound=Callable[..., Any])
_Decorator = Callable[[_Function], _Function]

_RUNTIME = {one.name: one for one in runtime_parameters()}


def declared_option(one: Parameter, flags: str | None = None, **changes: Any) -> _Decorator:
    """The option for a declared parameter: its type, range, choices, default and help.

    Args:
        one: the parameter.
        flags: what is typed, where that is not its name.
        changes: what click is told otherwise.
    """
    name = f"--{one.name.replace('_', '-')}"
    settings: dict[str, Any] = {"default": one.default, "metavar": one.metavar, "help": one.help}
    if isinstance(one.shown_default, str):
        settings["help"] += f"  [default: {one.shown_default}]"
    else:
        settings["show_default"] = one.shown_default and one.default is not None
    least: Any = one.low if one.above is None else one.above
    most: Any = one.high
    if one.kind in ("int", "number"):
        kind = click.IntRange if one.kind == "int" else click.FloatRange
        settings["type"] = kind(least, most, min_open=one.above is not None)
    elif one.kind == "choice":
        settings["type"] = click.Choice(one.choices)
    elif one.kind == "bool":
        flags = flags or f"{name}/--no-{name[2:]}"
    return click.option(flags or name, one.name, **settings | changes)


def runtime_option(name: str, **changes: Any) -> _Decorator:
    """The option for a parameter of `coopt.Runtime`."""
    return declared_option(_RUNTIME[name], **changes)


PROMPT = click.argument("prompt", type=click.Path(path_type=Path))
DATA = click.argument("data", type=click.Path(path_type=Path))
ROOT = click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="The folder that holds the papers' data sets, for a DATA that `coopt datasets` lists.",
)

CACHE = runtime_option(
    "cache", flags="--cache/--no-cache", show_default=False, help=f"{_RUNTIME['cache'].help}  [default: cache]"
)
SPLIT = click.option(
    "--split",
    type=click.Choice(["test", "val", "train", "all"]),
    default="test",
    show_default=True,
    help="The part of DATA to measure on; a DATA without a test part is used whole.",
)


def on_bad_image(default: str) -> Callable[[_Function], _Function]:
    """`--on-bad-image`, with this default; a command that stops at an image names it."""
    option = click.option(
        "--on-bad-image",
        type=click.Choice(["skip", "fail"]),
        default=default,
        show_default=True,
        help="Leave out images that cannot be read and name them, or stop and name them.",
    )

    def decorate(command: _Function) -> _Function:
        @wraps(command)
        def run(*arguments: Any, **options: Any) -> Any:
            try:
                return command(*arguments, **options)
            except BadImageError as error:
                gap = "\n" if "\n" in str(error) else " "
                raise BadImageError(
                    f"{error}{gap}With --on-bad-image skip such images are left out and named."
                ) from error

        return option(cast(_Function, run))

    return decorate


class _ValueRange(click.ParamType):
    """Two numbers with a comma between them."""

    name = "range"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """The values of black and white."""
        if isinstance(value, tuple):
            return value
        try:
            black, white = (
                int(part) if part.strip().lstrip("-").isdecimal() else float(part) for part in value.split(",")
            )
        except ValueError:
            self.fail(f"{value!r} is not two numbers such as 0,4095.", param, ctx)
        if not (isfinite(black) and isfinite(white) and black != white):
            self.fail(f"{value!r} is not two different finite numbers such as 0,4095.", param, ctx)
        return black, white


VALUE_RANGE = click.option(
    "--value-range",
    type=_ValueRange(),
    metavar="LOW,HIGH",
    help="Values of black and white in images of more than 8 bits, such as 0,4095.  [default: 0,65535; floats 0,1]",
)

DESCRIPTIONS = click.option(
    "--descriptions",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Texts about the classes: JSON {class: [text, ...]}, CSV, or lines such as `tench: A large fish.`.",
)

_DATA_READING = (
    click.option(
        "--class-names",
        type=click.Path(path_type=Path),
        metavar="FILE",
        help="Names for classes that are numbers or codes: JSON, CSV or lines such as `n01440764 tench`.",
    ),
    click.option(
        "--class-from",
        type=click.Choice(["top", "parent", "path"]),
        help="The class of animals/cats/1.jpg: animals, cats, or `animals cats`.  [default: top]",
    ),
    click.option("--path-column", metavar="NAME", help="Of a CSV: the column of paths, if not `path`."),
    click.option("--label-column", metavar="NAME", help="Of a CSV: the column of labels, if not `label`."),
    click.option("--split-column", metavar="NAME", help="Of a CSV: the column of parts, if not `split`."),
    VALUE_RANGE,
)


def data_reading(command: _Function) -> _Function:
    """The options that say how DATA is read."""
    decorated: Any = command
    for option in reversed(_DATA_READING):
        decorated = option(decorated)
    return decorated


def precision(default: str | None) -> Callable[[_Function], _Function]:
    """`--precision`; without a default it is the one that the prompt was learned with, where that is not slow."""
    return runtime_option("precision", default=default, show_default=True if default else "the prompt's")


class Threads(click.ParamType):
    """A number of threads, or "auto"."""

    name = "threads"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """As `coopt.Runtime` takes it."""
        if value == "auto":
            return value
        try:
            return Runtime(threads=int(value)).threads
        except ValueError:
            self.fail(f"{value!r} is neither 'auto' nor a number from 1.", param, ctx)


class Duration(click.ParamType):
    """A time such as 60s, 5m or 1h, or a number of seconds; the command gets seconds."""

    name = "time"

    _SECONDS: ClassVar = {"s": 1, "m": 60, "h": 3600}

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """To seconds."""
        text = str(value).strip()
        number, unit = (text[:-1], text[-1]) if text[-1:] in self._SECONDS else (text, "s")
        try:
            seconds = float(number) * self._SECONDS[unit]
        except ValueError:
            seconds = 0.0
        if not (isfinite(seconds) and seconds > 0):  # "inf" and "nan" are floats too
            self.fail(f"{value!r} is not a time above zero such as 60s, 5m or 1h, or a number of seconds.", param, ctx)
        return seconds


def threads(command: _Function) -> _Function:
    """`--threads`, which holds while the command runs."""
    option = runtime_option("threads", type=Threads())

    @wraps(command)
    def run(*arguments: Any, threads: Any, **options: Any) -> Any:
        with nullcontext() if threads is None else Runtime(threads=threads):
            return command(*arguments, **options)

    return cast(_Function, option(run))


def backbone_options(default: str | None) -> Callable[[_Function], _Function]:
    """`--backbone`, `--device`, `--download` and `--threads`, which holds while the command runs; without a default the
    backbone is the one that the prompt names."""
    help_text = (
        "The frozen model; `coopt backbones` lists names."
        if default
        else "Where the prompt's model is, if not under the name that the prompt was saved with."
    )

    def decorate(function: _Function) -> _Function:
        @wraps(function)
        def run(*arguments: Any, **options: Any) -> Any:
            _check_backbone(options["backbone"], options["device"], options["download"])
            return function(*arguments, **options)

        decorated = click.option("--download", is_flag=True, help="Fetch weights from the network if needed.")(
            threads(run)
        )
        decorated = runtime_option("device")(decorated)
        decorated = click.option(
            "--backbone", default=default, show_default=default is not None, metavar="NAME", help=help_text
        )(decorated)
        return cast(_Function, decorated)

    return decorate


def _check_backbone(backbone: str | None, device: str, download: bool) -> None:
    """Refuses a wrong name before anything is scanned or loaded."""
    from coopt.backbones import check_backbone_name

    if backbone is not None:
        check_backbone_name(backbone, download)
    if device not in ("auto", "cpu"):
        from coopt.backbones.loading import resolve_device

        resolve_device(device)
