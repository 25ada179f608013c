"""The group of commands: imported on demand, and the one place where errors become messages and exit codes.

Exit codes: 0 fine, 1 an error that was said in one message, 2 wrong usage, 130 Ctrl-C, 143 SIGTERM, 129 SIGHUP.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Any

import click

from coopt.errors import CooptError, Interrupted


class _Stopped(Exception):  # noqa: N818 - nothing went wrong
    """`Interrupted` on its way through click, which would drop what it says."""


class Group(click.Group):
    """As click's, but an unknown name is answered with the close ones."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """See click."""
        known = self.list_commands(ctx)
        if args and args[0] not in known and not args[0].startswith("-"):
            from difflib import get_close_matches

            close = get_close_matches(args[0], known, n=2, cutoff=0.5)
            hint = f"Did you mean {' or '.join(close)}?" if close else f"The commands are {', '.join(known)}."
            raise click.UsageError(f"There is no command {args[0]!r}. {hint}", ctx)
        return super().resolve_command(ctx, args)


class LazyGroup(Group):
    """A group whose commands live in modules that are imported when one is called, or its help is asked for.

    Args:
        commands_at: name to (module, one line of help); the module's command is found by its name.
    """

    def __init__(self, *args: Any, commands_at: dict[str, tuple[str, str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.commands_at = commands_at

    def list_commands(self, ctx: click.Context) -> list[str]:
        """All names, in the order in which a newcomer needs them."""
        return list(self.commands_at)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Imports the command's module; None for an unknown name."""
        if cmd_name not in self.commands_at:
            return None
        module = self.commands_at[cmd_name][0]
        return getattr(import_module(module), module.rpartition(".")[2])

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """The list of commands, without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl([(name, summary) for name, (_, summary) in self.commands_at.items()])

    def invoke(self, ctx: click.Context) -> Any:
        """See click."""
        try:
            return super().invoke(ctx)
        except Interrupted as interrupted:
            raise _Stopped(str(interrupted)) from interrupted

    def main(  # type: ignore[override]
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Runs a command and exits; every error ends in one message."""
        given = list(sys.argv[1:] if args is None else args)
        if not standalone_mode:
            return super().main(given, prog_name, standalone_mode=False, **extra)
        as_json = "--json" in given
        debug = "--debug" in given or os.environ.get("COOPT_DEBUG", "") not in ("", "0")
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):  # a terminal that knows ASCII only is no reason to fail
                stream.reconfigure(errors="backslashreplace")
        with _stopped_by_signals() as stopped_by:
            try:
                # `obj`: what was typed, so that a command can say how to do it again.
                result = super().main(
                    given or ["--help"], prog_name or "coopt", standalone_mode=False, obj=given, **extra
                )
                sys.stdout.flush()
                code = result if isinstance(result, int) else 0
            except BrokenPipeError:  # the reader (`head`) has seen enough
                _silence_stdout()
                code = 1
            except (Exception, KeyboardInterrupt) as error:
                code = 1
                with contextlib.suppress(OSError):  # the terminal may be gone: that is what SIGHUP says
                    code = _report(error, as_json, debug)
            if stopped_by:
                code = 128 + stopped_by[0]
        sys.exit(code)


@contextlib.contextmanager
def _stopped_by_signals() -> Iterator[list[int]]:
    """Within this context SIGTERM and SIGHUP stop a command as Ctrl-C does; gives a list of the one that came."""
    came: list[int] = []
    before: dict[int, Any] = {}

    def stop(number: int, frame: Any) -> None:
        if not came:  # another one must not stop the saving
            came.append(number)
            raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):
            if number is not None and signal.getsignal(number) is signal.SIG_DFL:  # under nohup SIGHUP is ignored
                before[number] = signal.signal(number, stop)
    try:
        yield came
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _report(error: BaseException, as_json: bool, debug: bool) -> int:
    """One message on standard error, for machines an object on standard output too; returns the exit code."""
    if debug and not isinstance(error, click.UsageError):
        traceback.print_exception(type(error), error, error.__traceback__)
    if isinstance(error, click.UsageError):
        error.show()
        kind, message, code = "UsageError", error.format_message(), error.exit_code
    elif isinstance(error, (_Stopped, click.Abort, KeyboardInterrupt)):
        kind, code = "Interrupted", 130
        message = (
            str(error)
            if isinstance(error, _Stopped)
            else (
                "Interrupted. Image features computed so far are kept in the cache: the same command goes on from there."
            )
        )
        click.echo(message, err=True)
    else:
        kind, message = _explained(error)
        click.echo(f"Error: {message}", err=True)
        code = 1
    if as_json:
        click.echo(json.dumps({"error": {"type": kind, "message": message}}))
    return code


def _explained(error: BaseException) -> tuple[str, str]:
    """The kind of an error and a message that says what to do."""
    kind = type(error).__name__
    text = " ".join(str(error).split())
    if isinstance(error, (CooptError, click.ClickException)):
        return kind, error.format_message() if isinstance(error, click.ClickException) else str(error)
    if isinstance(error, MemoryError) or kind == "OutOfMemoryError" or "can't allocate memory" in text:
        return "OutOfMemory", (
            "Out of memory. Close other programs, choose a smaller --backbone, or add --device cpu when a GPU is full."
            + (f" ({text[:200]})" if text else "")
        )
    if isinstance(error, OSError):
        where = f" ({error.filename})" if error.filename else ""
        return kind, f"The system refused: {error.strerror or text}{where}. Check the disk and the permissions."
    return kind, (
        f"Something went wrong that coopt did not expect: {kind}: {text[:500]}. "
        "Add --debug to see where, and please report it."
    )


def _silence_stdout() -> None:
    # Otherwise Python complains when it flushes at exit.
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
