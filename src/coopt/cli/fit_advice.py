"""What `coopt fit` advises: another backbone for a toy, and what to change where nothing was learned."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from coopt.backbones import local_backbones
from coopt.cli.output import Output, percent
from coopt.cli.settings import FitSettings
from coopt.data import display_name
from coopt.evaluation import Evaluation
from coopt.wording import counted

FETCHED = "openclip:ViT-B-32/laion2b_s34b_b79k"
"""What to fetch where no published model is at hand: small, fast on a CPU, under a licence that allows all uses."""
FETCHED_SIZE = "0.6 GB"


@dataclass(frozen=True)
class Measured:
    """What was measured on the held-out images.

    Attributes:
        zero_shot: a hand-made prompt.
        learned: what was learned.
        probe: a linear probe on the same features; None where it was not fitted.
        chance: the accuracy of guessing, in percent.
    """

    zero_shot: Evaluation
    learned: Evaluation
    probe: Evaluation | None
    chance: float

    @property
    def at_chance(self) -> bool:
        """Whether what was learned cannot be told from guessing."""
        return self.learned.interval[0] <= self.chance

    @property
    def probe_is_better(self) -> bool:
        """Whether the probe is better by more than so few images may err: each accuracy is outside the other's interval."""
        if self.probe is None:
            return False
        return self.probe.accuracy > self.learned.interval[1] and self.learned.accuracy < self.probe.interval[0]


def say_toy(output: Output, typed: Sequence[str]) -> None:
    """Says to people who learn from their own images with the bundled model what it is; `typed`: the command."""
    sentence, command = _better(typed)
    output.say(f"The bundled model is small and knows emoji and icons: for photographs it is a toy. {sentence}")
    output.command(command)


def _better(typed: Sequence[str]) -> tuple[str, str]:
    """A sentence about a better backbone, and what was typed with that backbone."""
    local = local_backbones()
    more = ["--backbone", local[0].name] if local else ["--backbone", FETCHED, "--download"]
    found = "A better one is on this machine" if local else f"This fetches a better one ({FETCHED_SIZE}, once)"
    return f"{found}:", display_name(shlex.join([*typed, *more]))


def chance_sentence(measured: Measured) -> str:
    """Says that nothing was learned, as far as can be told."""
    low, high = measured.learned.interval
    return (
        f"At chance level: {percent(measured.learned.accuracy)} % of {counted(measured.learned.n, 'held-out image')} "
        f"(95% interval {percent(low)} to {percent(high)}), where guessing gets {percent(measured.chance)} %."
    )


def say_what_to_change(output: Output, settings: FitSettings, measured: Measured, typed: Sequence[str]) -> None:
    """What to try where accuracy is at chance level, the likeliest first."""
    if settings.toy:
        sentence, command = _better([*typed, "--overwrite"])
        output.say(f"  - The backbone. {sentence}")
        output.command(command, indent=4)
    if measured.learned.accuracy > measured.chance:
        output.say("  - The number of held-out images, which are too few to tell: --test-fraction 0.5 holds out half.")
    if measured.probe is not None and measured.probe.interval[0] > measured.chance:
        output.say(
            "  - The class names: the features tell the classes apart, as the linear probe shows, and the names do not. "
            "Are they words for what the images show? --class-names FILE gives others."
        )
    else:
        output.say(
            "  - The labels: look at some images of each class. Are they labelled right, and can you tell them apart?"
        )


def say_probe(output: Output, settings: FitSettings, folder: Path) -> None:
    """How to have the linear probe instead."""
    other = folder.with_name(f"{folder.name}-probe")
    output.say("The linear probe is clearly better here:")
    output.command(settings.probe_command(other))
