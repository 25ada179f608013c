"""Which method is taken, and what counts as noise."""

from __future__ import annotations

from math import comb

import numpy as np
import pytest

from coopt.evaluation.choosing import Candidate, accuracies_differ, choose, is_worth_more

HAND_MADE, WORDS, NEAR, FEATURES = "hand-made prompt", "learned prompt", "learned prompt (KgCoOp)", "GDA"


def candidate(title: str, hits: int, of: int, mean: float, cost: float = 1.0, spread: float = 0.02) -> Candidate:
    """One that recognises the first images, with probabilities about `mean` that rise evenly."""
    return Candidate(
        title,
        np.arange(of) < hits,
        mean + spread * np.linspace(-1, 1, of),
        cost,
        text=title in (WORDS, NEAR),
        near=title == NEAR,
        baseline=title == HAND_MADE,
    )


def worth(title: str, hits: int, gain: float, cost: float = 1.0) -> Candidate:
    """One of 40 images, whose probabilities are higher than the hand-made prompt's by `gain`, give or take as much."""
    base = candidate(HAND_MADE, 20, 40, 0.5)
    one = candidate(title, hits, 40, 0.5, cost)
    more = base.probabilities + gain * (1 + np.where(np.arange(40) % 2 == 0, 0.9, -0.9))
    return Candidate(title, one.hits, more, cost, one.text, one.near)


@pytest.mark.parametrize(("only_one", "only_other"), [(0, 0), (5, 0), (6, 0), (9, 2), (10, 2), (12, 3)])
def test_mcnemar_s_test_by_hand(only_one: int, only_other: int) -> None:
    """The exact two-sided sign test on the images that one of the two alone recognises."""
    n = only_one + only_other
    one = np.array([True] * only_one + [False] * only_other + [True] * 7)
    other = np.array([False] * only_one + [True] * only_other + [True] * 7)
    tail = sum(comb(n, k) for k in range(max(only_one, only_other), n + 1)) / 2**n
    expected = n > 0 and min(1.0, 2 * tail) < 0.05
    flat = np.full(len(one), 0.5)
    assert accuracies_differ(Candidate("a", one, flat, 0.0), Candidate("b", other, flat, 0.0)) == expected


def test_more_is_more_than_noise_only_with_enough_of_it() -> None:
    base = candidate(HAND_MADE, 20, 40, 0.5)
    assert is_worth_more(worth(WORDS, 22, 0.05), base)
    assert not is_worth_more(worth(WORDS, 19, 0.05), base)  # fewer images recognised
    assert not is_worth_more(base, base)
    assert not is_worth_more(worth(WORDS, 22, -0.05), base)


def test_the_hand_made_prompt_is_taken_when_nothing_beats_it() -> None:
    base = candidate(HAND_MADE, 20, 40, 0.5, cost=0.0)
    choice = choose([base, worth(WORDS, 21, 0.0), worth(FEATURES, 22, 0.0)], one_thing=False)
    assert choice.taken is base and choice.runner_up is not None and choice.most_accurate.title == FEATURES
    assert "Nothing to take is better than hand-made prompt by more than noise" in choice.reasons[-1]
    assert {one.title for one in choice.as_good} == {HAND_MADE, WORDS}
    alone = choose([base], one_thing=False)
    assert alone.taken is base and alone.runner_up is None and not alone.as_good


def test_words_are_taken_by_the_probability_of_the_true_class_and_of_equals_the_cheaper() -> None:
    base = candidate(HAND_MADE, 20, 40, 0.5, cost=0.0)
    choice = choose([base, worth(NEAR, 30, 0.05), worth(WORDS, 29, 0.1)], one_thing=False)
    assert choice.taken.title == WORDS and choice.runner_up is not None and choice.runner_up.title == NEAR
    dear, cheap = worth(NEAR, 30, 0.1, cost=2.0), worth(WORDS, 30, 0.1, cost=1.0)
    assert choose([base, dear, cheap], one_thing=False).taken is cheap


def test_features_alone_are_taken_where_they_are_clearly_better_and_not_of_one_thing() -> None:
    base = candidate(HAND_MADE, 20, 40, 0.5, cost=0.0)
    words, near = worth(WORDS, 28, 0.05), worth(NEAR, 26, 0.04)
    little, much = worth(FEATURES, 32, 0.1), worth(FEATURES, 38, 0.2)
    assert choose([base, words, near, little], one_thing=False).taken is words  # 4 images more: noise
    choice = choose([base, words, near, much], one_thing=False)
    assert choice.taken is much and choice.runner_up is words
    assert choice.reasons == (
        "GDA recognises most: 95.0 %. All others are worse by more than noise.",
        "GDA is clearly better than learned prompt.",
    )
    of_one_thing = choose([base, words, near, much], one_thing=True)
    assert of_one_thing.taken is near and of_one_thing.most_accurate is much
    assert any("pictures of one thing" in reason for reason in of_one_thing.reasons)
    assert choose([base, words, much], one_thing=True).taken is words


def test_random_labels_leave_the_hand_made_prompt() -> None:
    """Nobody recognises anything, however sure of itself: of two that are learned, one is taken about as
    often as tests at 5 % (on one side) and at 1 % err."""
    rng, taken = np.random.RandomState(0), 0
    for _ in range(300):
        labels = rng.randint(0, 5, 40)

        def guess(title: str, sharpness: float, labels: np.ndarray = labels) -> Candidate:
            scores = np.exp(sharpness * rng.randn(40, 5))
            probabilities = (scores / scores.sum(axis=1, keepdims=True))[np.arange(40), labels]
            return Candidate(
                title, scores.argmax(axis=1) == labels, probabilities, 1.0, title == WORDS, False, title == HAND_MADE
            )

        taken += (
            choose([guess(HAND_MADE, 5.0), guess(WORDS, 1.0), guess(FEATURES, 9.0)], one_thing=False).taken.title
            != HAND_MADE
        )
    assert 0 < taken / 300 < 0.08
