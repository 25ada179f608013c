"""`--config FILE`: the options of a command as YAML. What is typed on the command line wins."""

from __future__ import annotations

import re
import warnings
from difflib import get_close_matches
from functools import wraps
from pathlib import Path
from typing import Any

import click
import yaml
from click.core import ParameterSource

from coopt.cli.options import Duration
from coopt.cli.reference_config import is_reference_config, options_of
from coopt.data.file_names import display_name
from coopt.errors import CooptWarning, ParameterError

_NOTES = "coopt.cli.config"
_NOT_IN_FILES = {"config", "json", "debug", "help"}


def config_option(command: str) -> Any:
    """`--config`; `command` is named in messages."""

    def read(ctx: click.Context, parameter: click.Parameter, value: Path | None) -> None:
        if value is not None and not ctx.resilient_parsing:
            ctx.default_map, ctx.meta[_NOTES] = defaults_from(value, ctx.command, command)

    option = click.option(
        "--config",
        type=click.Path(path_type=Path),
        is_eager=True,  # before the options whose defaults it gives
        expose_value=False,
        callback=read,
        metavar="YAML",
        help="Read options from a file such as `n-ctx: 4`, or from one for CoOp's reference implementation; those given "
        "here win.",
    )

    def decorate(function: Any) -> Any:
        @wraps(function)
        def run(*arguments: Any, **given: Any) -> Any:
            ctx = click.get_current_context()
            notes = ctx.meta.get(_NOTES)
            if notes is not None:
                given = _typed_context_wins(ctx, given)
            for note in notes or ():
                warnings.warn(note, CooptWarning, stacklevel=2)
            return function(*arguments, **given)

        return option(run)

    return decorate


def _typed_context_wins(ctx: click.Context, given: dict[str, Any]) -> dict[str, Any]:
    """Of `--n-ctx` and `--init`, the one in a reference file, which names one always, makes way for the typed one."""
    for typed, other in (("n_ctx", "init"), ("init", "n_ctx")):
        sources = [ctx.get_parameter_source(name) for name in (typed, other)]
        if sources == [ParameterSource.COMMANDLINE, ParameterSource.DEFAULT_MAP]:
            given[other] = None
    return given


def defaults_from(file: Path, command: click.Command, name: str) -> tuple[dict[str, Any], list[str] | None]:
    """The content of a configuration file as defaults of a command's parameters. Of one for the reference implementation
    also what is to be said about it, otherwise None.

    Raises:
        ParameterError: the file cannot be read, or an entry is unknown or of the wrong kind.
    """
    shown = display_name(file)
    known = _keys(command)
    defaults: dict[str, Any] = {}
    content, notes = _read(file, shown), None
    if is_reference_config(content):
        content, notes = options_of(content, shown)
    for key, value in content.items():
        entry = known.get(str(key).replace("-", "_"))
        if entry is None:
            close = get_close_matches(str(key).replace("_", "-"), [k.replace("_", "-") for k in known], n=1)
            options = ", ".join(sorted({k.replace("_", "-") for k in known}))
            hint = f"Did you mean {close[0]!r}?" if close else f"The options are {options}."
            raise ParameterError(f"'{shown}' has an entry {str(key)!r}, which `coopt {name}` does not know. {hint}")
        parameter, negated = entry
        if value is None:
            continue
        checked = _checked(parameter, value, f"The entry {str(key)!r} in '{shown}'")
        defaults[str(parameter.name)] = not checked if negated else checked
    return defaults, notes


def _keys(command: click.Command) -> dict[str, tuple[click.Parameter, bool]]:
    """Names of entries (with underscores): to the parameter, and whether the name means its opposite."""
    keys: dict[str, tuple[click.Parameter, bool]] = {}
    for parameter in command.params:
        for options, negated in ((parameter.opts, False), (parameter.secondary_opts, True)):
            for option in options:
                if option.startswith("--") or isinstance(parameter, click.Argument):
                    keys[option.lstrip("-").replace("-", "_")] = (parameter, negated)
    return {key: value for key, value in keys.items() if key not in _NOT_IN_FILES}


def _read(file: Path, shown: str) -> dict[Any, Any]:
    try:
        content = read_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParameterError(f"The configuration '{shown}' cannot be read: {error.strerror}.") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        reason = " ".join(str(error).split())
        raise ParameterError(f"The configuration '{shown}' is not YAML: {reason}") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise ParameterError(
            f"The configuration '{shown}' holds a {type(content).__name__}. Expected lines such as `n-ctx: 4`."
        )
    return content


def _checked(parameter: click.Parameter, value: Any, what: str) -> Any:
    """The value as click takes it. YAML guesses types, click converts quietly: 4.7 must not become 4, or `no` False."""
    if isinstance(value, dict) and parameter.name == "recipe":
        return value
    if getattr(parameter, "multiple", False):
        if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
            raise ParameterError(f"{what} must be a list of texts. Got {value!r} instead.")
        return value
    if getattr(parameter, "is_flag", False):
        if not isinstance(value, bool):
            raise ParameterError(f"{what} must be true or false. Got {value!r} instead.")
        return value
    if isinstance(parameter.type, Duration) and isinstance(value, str):
        return value
    if isinstance(parameter.type, (click.types.IntParamType, click.types.FloatParamType, Duration)):
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ParameterError(f"{what} must be a number. Got {value!r} instead.")
        return str(value)
    if not isinstance(value, str):
        raise ParameterError(f"{what} must be text. Got {value!r} instead; put quotes around it.")
    return value


class _Loader(yaml.SafeLoader):
    """Nothing but plain values, and 1e-2 is a number (YAML 1.1, which PyYAML reads, asks for 1.0e-2)."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?(\d+\.?\d*|\.\d+)[eE][-+]?\d+$"), list("-+.0123456789")
)


def read_yaml(text: str) -> Any:
    """The values in a YAML text.

    Raises:
        yaml.YAMLError: it is not YAML, or asks for more than plain values.
    """
    return yaml.load(text, Loader=_Loader)
