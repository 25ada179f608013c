"""Which of several methods to take, judged on the same held-out images: what is noise, and what is not.

Two questions are asked with two tests. Whether accuracies differ: McNemar's test, on which images each method recognises. Whether
what was learned is worth more than hand-made prompts at all: a paired t-test on the probabilities of the true classes, which tell
more of few images than whether the most probable class is the right one. Their mean is the accuracy of guesses that are drawn
from the probabilities; it is 1 / C for every method where labels are random, however sure of itself the method is.

Notation: n images, C classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from scipy.stats import binomtest, ttest_rel

from coopt.wording import counted

SIGNIFICANT = 0.05
"""A difference is more than noise where methods that are equally good would differ as much less often than this."""

CLEAR = 0.01
"""The same, where a method that learns from image features alone is to take the place of one that learns words."""

ONE_THING = 0.4
"""The share of images (see `coopt.evaluation.folds.share_of_one_thing`) from which on classes count as pictures of one thing each."""


@dataclass(frozen=True)
class Candidate:
    """A method that may be taken.

    Attributes:
        title: what sentences call it.
        hits: which images it recognised.
        probabilities: that it gave to the true class of each.
        cost: of learning; of two that are equally good the cheaper is taken.
        text: it leaves image features as they are, and learns words.
        near: what it learns is held near hand-made prompts.
        baseline: the hand-made prompt, which the others have to beat.
    """

    title: str
    hits: Bool[np.ndarray, " n"]
    probabilities: Float[np.ndarray, " n"]
    cost: float
    text: bool = False
    near: bool = False
    baseline: bool = False

    @property
    def accuracy(self) -> float:
        """Share of the images that it recognised (percent)."""
        return 100 * float(self.hits.mean())


@dataclass(frozen=True)
class Choice:
    """Which one to take.

    Attributes:
        taken: it.
        runner_up: what would be taken without it; None: there is no other.
        most_accurate: the one with the highest accuracy, whether it is taken or not.
        as_good: those whose accuracy differs from the highest by no more than noise.
        reasons: why, in sentences.
    """

    taken: Candidate
    runner_up: Candidate | None
    most_accurate: Candidate
    as_good: tuple[Candidate, ...]
    reasons: tuple[str, ...]


def accuracies_differ(one: Candidate, other: Candidate, level: float = SIGNIFICANT) -> bool:
    """Whether two accuracies differ by more than noise.

    The exact form of McNemar's test ("Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 1947): were they equally good, each image that one of the two alone recognises would be as likely
    the one's as the other's.

    Args:
        one: a method.
        other: another one, on the same images.
        level: how rarely methods that are equally good may differ as much.
    """
    only_one, only_other = int((one.hits & ~other.hits).sum()), int((other.hits & ~one.hits).sum())
    both = only_one + only_other
    return both > 0 and float(binomtest(only_one, both).pvalue) < level


def is_worth_more(one: Candidate, other: Candidate) -> bool:
    """Whether the probabilities of the true classes are higher, by more than noise, and no fewer images are recognised."""
    if one.hits.sum() < other.hits.sum() or np.allclose(one.probabilities, other.probabilities):
        return False
    test: Any = ttest_rel(one.probabilities, other.probabilities)
    return bool(test.statistic > 0 and test.pvalue < SIGNIFICANT)


def choose(candidates: Sequence[Candidate], one_thing: bool) -> Choice:
    """Which of the methods to take.

    Of those that learn words and the hand-made prompt, the one that gives the true classes the highest probability, on the mean.
    A method that learns from image features alone takes its place where it is clearly more accurate, unless the images of a class
    show one thing: such methods then remember that thing, and are the first to fail on others of its kind. In that case the method
    is taken that stays near hand-made prompts. What is not worth more than the hand-made prompt makes way for it.

    Args:
        candidates: one of them the hand-made prompt.
        one_thing: whether the images of most classes look like pictures of one thing each.
    """
    taken, reasons = _taken(candidates, one_thing)
    rest = [one for one in candidates if one is not taken]
    runner_up = _taken(rest, one_thing)[0] if any(one.baseline for one in rest) else _best(rest) if rest else None
    most = max(candidates, key=lambda one: (one.hits.sum(), one is taken, -one.cost))
    as_good = tuple(one for one in candidates if one is not most and not accuracies_differ(one, most))
    return Choice(taken, runner_up, most, as_good, (_accuracies(most, as_good), *reasons))


def _taken(candidates: Sequence[Candidate], one_thing: bool) -> tuple[Candidate, list[str]]:
    baseline = _best([one for one in candidates if one.baseline])
    words = [one for one in candidates if one.text]
    near = [one for one in words if one.near]
    reasons: list[str] = []
    best = _best([baseline, *words])
    others = [one for one in candidates if not (one.text or one.baseline)]
    rival = max(others, key=lambda one: (one.hits.sum(), one.probabilities.mean()), default=None)
    if one_thing:
        reasons.append(
            "The images of a class look like pictures of one thing, so these accuracies are about the things shown, and say little "
            "of others of their kind. (Where only these are to be recognised, take the most accurate method.)"
        )
        best = _best(near or words or [baseline])
    elif rival is not None and rival.accuracy > best.accuracy and accuracies_differ(rival, best, CLEAR):
        reasons.append(f"{_start(rival.title)} is clearly better than {best.title}.")
        best = rival
    if best is baseline or not is_worth_more(best, baseline):
        reasons.append(
            f"Nothing to take is better than {baseline.title} by more than noise, and that needs no learning."
        )
        best = baseline
    elif one_thing and best.near:
        reasons.append(f"{_start(best.title)} stays near hand-made prompts, which know other things of the kind.")
    elif best.text:
        reasons.append(
            f"{_start(best.title)} gives the true classes the highest probability of all that learn words: "
            f"{100 * best.probabilities.mean():.1f} % on the mean, {baseline.title} {100 * baseline.probabilities.mean():.1f} %."
        )
    return best, reasons


def _best(candidates: Sequence[Candidate]) -> Candidate:
    """By the mean probability of the true class; of equals the cheaper."""
    return max(candidates, key=lambda one: (round(float(one.probabilities.mean()), 4), -one.cost))


def _accuracies(most: Candidate, as_good: Sequence[Candidate]) -> str:
    said = f"{_start(most.title)} recognises most: {most.accuracy:.1f} %."
    if not as_good:
        return f"{said} All others are worse by more than noise."
    titles = [one.title for one in as_good]
    named = titles[0] if len(titles) == 1 else f"{', '.join(titles[:-1])} and {titles[-1]}"
    return f"{said} On {counted(len(most.hits), 'image')} that cannot be told from {named}."


def _start(title: str) -> str:
    """A title as the first words of a sentence."""
    return title[:1].upper() + title[1:]
