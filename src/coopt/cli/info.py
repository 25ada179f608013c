"""`coopt info`: what a learned prompt says of itself."""

from __future__ import annotations

from pathlib import Path

from coopt.cli.options import PROMPT
from coopt.cli.output import Output, command


@command("info")
@PROMPT
def info(output: Output, prompt: Path) -> None:
    """Show what a learned prompt says of itself.

    Its backbone need not be on this machine.

    \b
    Example:
      coopt info coopt-photos
    """
    from coopt.cli.describing import run_info

    run_info(prompt, output)
