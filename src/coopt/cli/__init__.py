"""The command line: `coopt`.

Modules named after a command hold its options only and import nothing heavy, so that `--help` answers at once; what a
command does is imported when it runs.
"""

from __future__ import annotations

import click

from coopt import __version__
from coopt.cli.group import LazyGroup
from coopt.threads import set_up_threads

set_up_threads()  # torch, which no command has imported yet, reads these settings once

# name: (module that defines a command of that name, what it does)
COMMANDS = {
    "demo": ("coopt.cli.demo", "See the whole of coopt at work on the bundled model and images."),
    "fit": ("coopt.cli.fit", "Learn a prompt from labelled images."),
    "predict": ("coopt.cli.predict", "Classify images with a learned prompt."),
    "eval": ("coopt.cli.eval", "Measure a learned prompt on labelled images."),
    "zero-shot": ("coopt.cli.zero_shot", "Measure hand-made prompts on labelled images."),
    "report": ("coopt.cli.report", "Make a page about a learned prompt."),
    "compare": ("coopt.cli.compare", "Compare methods on your images, and say which to take."),
    "suite": ("coopt.cli.suite", "Run the papers' tables and figures, and compare."),
    "words": ("coopt.cli.words", "Show the words nearest to learned context vectors."),
    "datasets": ("coopt.cli.datasets", "List the data sets that coopt knows, and what a folder has of them."),
    "backbones": ("coopt.cli.backbones", "List the models that prompts can be learned for."),
    "info": ("coopt.cli.info", "Show what a learned prompt says of itself."),
    "cache": ("coopt.cli.cache", "Show or clear the cache of image features."),
}


@click.group(
    "coopt",
    cls=LazyGroup,
    commands_at=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Begin with `coopt demo`, or with your own folder of images: `coopt fit FOLDER`.",
)
@click.version_option(__version__, prog_name="coopt", message="%(prog)s %(version)s")
def main() -> None:
    """Learn the prompt of a CLIP-like model from a few labelled images."""


__all__ = ["COMMANDS", "main"]
