"""What `coopt fit` says: of the data, of what came of it, and what to do next or to change."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path

import click

from coopt import events
from coopt.app.automatic import Compared
from coopt.app.fit_result import FitResult, Measured
from coopt.app.fitting import DataRead
from coopt.app.requests import FitRequest
from coopt.backbones import local_backbones
from coopt.cli.comparison import say_comparison
from coopt.cli.output import MEASURES, Output, measures, percent
from coopt.data import display_name
from coopt.data.bundled import PREFIX
from coopt.methods.linear_probe import LinearProbe
from coopt.prompts.templates import DEFAULT_TEMPLATE
from coopt.wording import counted, setting, size_of

FETCHED = "openclip:ViT-B-32/laion2b_s34b_b79k"
"""What to fetch where no published model is at hand: small, fast on a CPU, under a licence that allows all uses."""
FETCHED_SIZE = "0.6 GB"
GOOD = 50.0
"""The least published accuracy on ImageNet, in percent, of a model that is called better than the bundled one."""
HANDY_BYTES = 2 * 10**9
"""A model of more bytes takes many seconds for an image on a CPU: of those that are known, a smaller one is named first."""

# Options that say what is learned from, and with; neither how, nor where it goes.
_OF_DATA = (
    *("backbone", "cache", "device", "download", "on_bad_image", "seed", "shots", "test_fraction", "value_range"),
)


class FitReport:
    """Tells people of one run; machines get the result.

    Args:
        output: where to speak.
        request: what was asked for.
        typed: the command line.
    """

    def __init__(self, output: Output, request: FitRequest, typed: Sequence[str]) -> None:
        self.output, self.request, self.typed = output, request, typed

    def hear(self, event: events.Event) -> None:
        """What there is to learn from and with, what was decided about it, and which method is taken."""
        if isinstance(event, Compared):
            say_comparison(self.output, event.result)
        if not isinstance(event, DataRead):
            return
        for line in str(event).splitlines():
            self.output.say(line)
        if self._toy:
            sentence, command = _better(self.typed)
            self.output.say(
                f"The bundled model is small and knows emoji and icons: for photographs it is a toy. {sentence}"
            )
            self.output.command(command)

    def tell(self, result: FitResult) -> None:
        """What came of it and what to do next."""
        measured, out, say = result.measured, result.out, self.output.say
        if measured is not None:
            self._say_accuracy(measured, result.title)
        files = sum(file.stat().st_size for file in out.iterdir() if file.name.startswith("prompt."))
        saved = f"Saved to '{display_name(out)}' ({size_of(files)}) after {result.seconds['total']:.1f} seconds."
        say()
        if result.epochs:
            say(_learned_sentence(result))
        if measured is not None and measured.at_chance:
            say(_chance_sentence(measured))
            say(f"{saved} Before it is of use, change:")
            self._say_what_to_change(measured)
        else:
            if measured is not None:
                self._say_comparison(measured, result.title)
            say(f"{saved} Next:")
            self._say_next(out, bool(result.n_ctx))
        if measured is not None and measured.probe_is_better:
            say("The linear probe is clearly better here:")
            self.output.command(self._probe_command(out.with_name(f"{out.name}-probe")))
        self.output.result({**result.to_dict(), "out": display_name(out)})

    @property
    def _toy(self) -> bool:
        """Whether the small bundled model is used on somebody's own data, which it was not made for."""
        return self.request.backbone == "bundled" and not str(self.request.data).startswith(PREFIX)

    def _say_next(self, folder: Path, has_words: bool) -> None:
        name = shlex.quote(display_name(folder))
        self.output.command(f"coopt predict {name} IMAGES...")
        self.output.command(f"coopt eval {name} {self._data_typed}")
        self.output.command(f"coopt report {name}")
        if has_words:
            self.output.command(f"coopt words {name}")

    def _say_accuracy(self, measured: Measured, title: str) -> None:
        zero_shot, learned, probe = measured.zero_shot, measured.learned, measured.probe
        rows = [(f'zero-shot, "{DEFAULT_TEMPLATE}"', zero_shot), (title, learned)]
        rows += [] if probe is None else [("linear probe (same features)", probe)]
        self.output.say()
        self.output.table(
            ["On held-out images, %", *MEASURES],
            [[name, *measures(one)] for name, one in rows],
            right=(1, 2, 3, 4),
        )
        before = {one.name: one.accuracy for one in zero_shot.classes}
        worst = [one for one in learned.worst_classes() if one.accuracy < 100]
        if worst:
            self.output.say()
            self.output.table(
                ["Weakest classes, %", "images", "zero-shot", title],
                [[display_name(c.name), str(c.n), percent(before[c.name]), percent(c.accuracy)] for c in worst],
                right=(1, 2, 3),
            )

    def _say_comparison(self, measured: Measured, title: str) -> None:
        zero_shot, learned = measured.zero_shot, measured.learned
        if learned.accuracy == zero_shot.accuracy == 100:
            self.output.say("Both are without a mistake on these images; they are too easy to tell which is better.")
        elif learned.accuracy <= zero_shot.accuracy:
            limit = (
                "The bundled model is what limits it; see above." if self._toy else "More images per class help most."
            )
            self.output.say(f"The {title} is no better than the hand-made prompt here. {limit}")

    def _say_what_to_change(self, measured: Measured) -> None:
        """What to try where accuracy is at chance level, the likeliest first."""
        say = self.output.say
        if self._toy:
            sentence, command = _better([*self.typed, *(["--overwrite"] if "--overwrite" not in self.typed else [])])
            say(f"  - The backbone. {sentence}")
            self.output.command(command, indent=4)
        if measured.learned.accuracy > measured.chance:
            say("  - The number of held-out images, which are too few to tell: --test-fraction 0.5 holds out half.")
        if measured.probe is not None and measured.probe.interval[0] > measured.chance:
            say(
                "  - The class names: the features tell the classes apart, as the linear probe shows, and the names do not. "
                "Are they words for what the images show? --class-names FILE gives others."
            )
        else:
            say(
                "  - The labels: look at some images of each class. Are they labelled right, and can you tell them apart?"
            )

    def _probe_command(self, out: Path) -> str:
        """The command that fits a linear probe from the same data into `out`."""
        words = [f"coopt fit {self._data_typed}", setting("method", LinearProbe.method), setting("out", out)]
        options = click.get_current_context().command.params
        usual = {str(one.name): one.to_info_dict()["default"] for one in options if isinstance(one, click.Option)}
        for name in _OF_DATA:
            value = getattr(self.request, name)
            if value is not None and value != usual[name]:
                words.append(setting(name, value))
        return display_name(" ".join(words))

    @property
    def _data_typed(self) -> str:
        """The data as words of a command line (a prompt keeps the range of values itself)."""
        given = {"root": self.request.root, **self.request.reading}
        words = [str(self.request.data)]
        for name, value in given.items():
            words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
        return shlex.join(map(display_name, words))


def _better(typed: Sequence[str]) -> tuple[str, str]:
    """A sentence about a better backbone, and what was typed with that backbone."""
    local = local_backbones()
    known = [one for one in local if (one.imagenet or 0.0) >= GOOD]
    handy = [one for one in known if one.bytes <= HANDY_BYTES] or sorted(known, key=lambda one: one.bytes)[:1]
    unknown = [one for one in local if one.imagenet is None]
    if handy:
        name, where = max(handy, key=lambda one: one.imagenet or 0.0).name, "A better one is on this machine"
    elif unknown:
        name, where = unknown[0].name, "Another one is on this machine"
    else:
        name, where = FETCHED, f"This fetches a better one ({FETCHED_SIZE}, once)"
    more = ["--backbone", name, *(["--download"] if not handy and not unknown else [])]
    return f"{where}:", display_name(shlex.join([*typed, *more]))


def _learned_sentence(result: FitResult) -> str:
    """Says what learning took, and why it ended."""
    epochs = counted(result.epochs, "epoch")
    passes = f"{result.text_passes:.0f}" if result.text_passes else ""
    took = f"{passes} text pass{'es' * (passes != '1')} ({epochs})" if passes else epochs
    return f"Learned in {took}{f': {result.stopped}' if result.stopped else ''}."


def _chance_sentence(measured: Measured) -> str:
    """Says that nothing was learned, as far as can be told."""
    low, high = measured.learned.interval
    return (
        f"At chance level: {percent(measured.learned.accuracy)} % of {counted(measured.learned.n, 'held-out image')} "
        f"(95% interval {percent(low)} to {percent(high)}), where guessing gets {percent(measured.chance)} %."
    )
