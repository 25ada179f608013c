"""`coopt words`: the words nearest to learned context vectors."""

from __future__ import annotations

from pathlib import Path

import click

from coopt.cli.options import PROMPT, backbone_options
from coopt.cli.output import Output, command


@command("words")
@PROMPT
@click.option("--topk", type=click.IntRange(min=1), default=5, show_default=True, help="Words per vector.")
@click.option("--class", "class_name", metavar="NAME", help="Of a class-specific prompt: whose vectors.")
@backbone_options(None)
def words(
    output: Output, prompt: Path, topk: int, class_name: str | None, backbone: str | None, device: str, download: bool
) -> None:
    """Show the words nearest to learned context vectors.

    For each vector the entries of the model's vocabulary that lie closest to it, with their distances. They are
    neighbours and not a translation: the last line says how near is near.

    \b
    Example:
      coopt words coopt-photos --topk 3
    """
    from coopt.cli.describing import run_words
    from coopt.cli.where import Where

    run_words(prompt, topk, class_name, Where(backbone, device, download), output)
