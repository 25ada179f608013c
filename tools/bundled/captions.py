"""What is said about a scene: short, varied, never everything; and which captions are true of which scenes.

A caption states one to three facts of its scene. Because the facts are known, training needs no guess about false
negatives: a caption counts as a match for every scene in the batch of which all its facts are true.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from tools.bundled.world import FAMILIES, N_FACTS, OFFSET

SOT, EOT = 49406, 49407
PER_SCENE = 2  # captions

# What one fact is called. {} is the value; both "red background" and "the background is red" are common in people's
# writing.
PHRASES: dict[str, tuple[str, ...]] = {
    "any_thing": ("{}", "a {}", "one {}", "there is a {}", "showing a {}", "with a {} in it", "the {}"),
    "big_thing": (
        "a large {}",
        "a big {}",
        "the larger one is a {}",
        "mainly a {}",
        "the main thing is a {}",
        "in the middle a {}",
    ),
    "small_thing": (
        "a small {} in the corner",
        "a little {}",
        "in the corner a {}",
        "the smaller one is a {}",
        "the small thing is a {}",
    ),
    "left_thing": ("on the left a {}", "a {} on the left side", "the left one is a {}", "left a {}", "first a {}"),
    "right_thing": (
        "on the right a {}",
        "a {} on the right side",
        "the right one is a {}",
        "right a {}",
        "next to it a {}",
    ),
    "group": ("a kind of {}", "some {}", "a type of {}", "it is a {}", "{}"),
    "object_colour": (
        "a {} one",
        "a {} thing",
        "the object is {}",
        "painted {}",
        "a thing in {}",
        "its color is {}",
        "colored {}",
    ),
    "background_colour": (
        "on a {} background",
        "{} background",
        "the background is {}",
        "behind it {}",
        "on {}",
        "a backdrop in {}",
    ),
    "frame_colour": (
        "in a {} frame",
        "{} frame",
        "the frame is {}",
        "framed in {}",
        "with a {} border",
        "the edge is {}",
    ),
    "badge_colour": ("a {} badge", "with a {} mark", "the badge is {}", "a small shape in {}", "the mark is {}"),
    "any_colour": ("{}", "some {}", "a bit of {}", "something {}", "{} in it", "the color {}"),
    "object_pattern": ("a {} thing", "a {} object", "the object is {}", "a thing that is {}"),
    "background_pattern": (
        "on a {} background",
        "{} background",
        "the background is {}",
        "behind it {}",
        "a backdrop that is {}",
    ),
    "any_pattern": ("{}", "something {}", "{} in it"),
    "frame_width": ("a {} frame", "a {} border", "the frame is {}"),
    "size": ("a {} one", "the object is {}", "{} in size", "{}", "a {} picture of it", "the size is {}"),
    "count": ("{} of them", "{} things", "{}", "there are {}", "{} in number", "the number is {}"),
    "position": (
        "at the {}",
        "to the {}",
        "the object is at the {}",
        "placed {}",
        "the place is {}",
        "it sits on the {}",
    ),
    "any_side": ("{}", "something {}", "{} side"),
    "orientation": ("{}", "the object is {}", "turned {}", "it stands {}", "an object {}"),
    "badge_shape": ("with a {}", "a small {}", "marked by a {}", "a {} badge", "{}", "a {} in the corner"),
    "art": ("{}", "as a {} picture", "made in {}", "the style is {}", "{} style", "drawn as {}"),
    "quality": ("{}", "a {} picture", "the picture is {}", "it looks {}", "{} quality", "a {} photo"),
}

# Two facts in one breath: the adjective before its thing.
PAIRS: dict[tuple[str, str], tuple[str, ...]] = {
    ("object_colour", "any_thing"): ("a {} {}", "the {} {}", "{} {}"),
    ("object_pattern", "any_thing"): ("a {} {}", "{} {}"),
    ("size", "any_thing"): ("a {} {}", "the {} {}"),
    ("count", "any_thing"): ("{} times a {}", "{} pictures of a {}", "{} {} pictures"),
    ("orientation", "any_thing"): ("an {} {}", "{} a {}"),
    ("quality", "any_thing"): ("a {} photo of a {}", "a {} picture of a {}"),
    ("art", "any_thing"): ("a {} of a {}", "a {} picture of a {}"),
    ("any_thing", "background_colour"): ("a {} on a {} background", "a {} on {}"),
    ("any_thing", "frame_colour"): ("a {} in a {} frame", "a {} with a {} frame"),
    ("any_thing", "position"): ("a {} at the {}", "a {} placed {}"),
    ("any_thing", "group"): ("a {} , a type of {}", "a {} , a kind of {}"),
    ("big_thing", "small_thing"): ("a large {} with a small {}", "a {} with a little {} in the corner"),
    ("left_thing", "right_thing"): ("a {} next to a {}", "on the left a {} , on the right a {}", "a {} beside a {}"),
    ("background_pattern", "background_colour"): ("on a {} {} background", "{} {} backdrop"),
    ("badge_colour", "badge_shape"): ("with a {} {}", "a small {} {}"),
    ("frame_width", "frame_colour"): ("a {} {} frame", "a {} {} border"),
}

OPENERS = (
    "a photo of",
    "a picture of",
    "an image of",
    "a drawing of",
    "this is",
    "this shows",
    "here is",
    "look at",
    "we see",
    "a photo",
)
FILLERS = (
    "as you can see", "in this one", "from my album", "made yesterday", "for the children", "found on the web",
    "i like it", "please look", "what a day", "another one", "for you", "from the old book", "sent by a friend",
    "number nine", "not for sale",
)  # fmt: skip
_LOOSE = """time year people way day man world life hand part place week case point home water room area money story month lot
study word business issue head far service friend father power hour game line end member law city team minute idea body
school parent others level office health person war history party result change morning reason research girl guy
moment air teacher force never always often again still very just maybe really quite soon later now today then here
also only even much many most other new old good great high long own same early young important few public bad able
best better sure free full special easy hard strong true whole real simple late open nice say get make go know take
think come give use find tell ask work seem feel try leave call keep let begin help
talk turn start might play run move live believe hold bring happen must write provide sit lose pay meet
include continue set learn"""
LOOSE = tuple(_LOOSE.split())

# How often a family is spoken of, given that there is something to say. Things are the hardest to learn
# and come up most.
WEIGHTS: dict[str, float] = dict.fromkeys(FAMILIES, 1.0) | {
    "any_thing": 7.0,
    "big_thing": 4.0,
    "small_thing": 4.0,
    "left_thing": 4.0,
    "right_thing": 4.0,
    "group": 1.5,
    "count": 1.5,
    "size": 1.5,
    "quality": 1.2,
    "art": 2.0,
    "frame_colour": 1.5,
    "position": 1.5,
    "orientation": 2.0,
    "badge_shape": 2.0,
}
# "one", "plain", "clear" and "upright" go without saying, mostly.
DULL = {
    ("count", "one"): 0.3,
    ("object_pattern", "plain"): 0.1,
    ("quality", "clear"): 0.25,
    ("orientation", "upright"): 0.35,
}
COLUMNS: list[tuple[str, str]] = [(family, value) for family, values in FAMILIES.items() for value in values]


@dataclass
class Captions:
    """tokens: (captions, length) int64 with start and end tokens, zero-padded; stated: (captions, facts) bool."""

    tokens: Tensor
    stated: Tensor

    def truth(self, facts: Tensor) -> Tensor:
        """(scenes, captions) bool: is all that the caption says true of the scene? facts: (scenes, facts)."""
        stated = self.stated.to(facts.device).float()
        return facts.float() @ stated.T > stated.sum(1) - 0.5


class Writer:
    """Writes captions, two of every scene, with CLIP's byte-pair encoding kept per phrase: phrases are few and come up again and again."""

    def __init__(self, longest: int = 30) -> None:
        from open_clip.tokenizer import SimpleTokenizer

        self.longest = longest
        self.encode = lru_cache(maxsize=None)(SimpleTokenizer().encode)

    def __call__(self, facts: Tensor, seed: int) -> Captions:
        """facts: (scenes, facts) bool."""
        rng = random.Random(seed)
        # The text tower costs little beside the image tower: a second caption teaches more from the same picture.
        stated = torch.zeros(PER_SCENE * len(facts), N_FACTS, dtype=torch.bool)
        sequences = []
        for row in range(len(stated)):
            columns = torch.nonzero(facts[row % len(facts)])[:, 0].tolist()
            phrases, used = self._state(columns, rng)
            stated[row, used] = True
            sequences.append(self._dress(phrases, rng))
        length = max(map(len, sequences))
        tokens = torch.zeros(len(stated), length, dtype=torch.long)
        for row, sequence in enumerate(sequences):
            tokens[row, : len(sequence)] = torch.tensor(sequence)
        return Captions(tokens, stated)

    def _state(self, columns: list[int], rng: random.Random) -> tuple[list[str], list[int]]:
        """Pick facts and say them: the phrases, and the columns they state."""
        wanted = rng.choices((1, 2, 3), (0.5, 0.35, 0.15))[0]
        by_family: dict[str, list[int]] = {}
        for column in columns:
            by_family.setdefault(COLUMNS[column][0], []).append(column)
        phrases: list[str] = []
        used: list[int] = []
        while len(used) < wanted and by_family:
            families = list(by_family)
            family = rng.choices(families, [self._weight(by_family[f][0]) for f in families])[0]
            column = rng.choice(by_family.pop(family))
            partners = [
                p for p in PAIRS if family in p and len(used) + 1 < wanted and (set(p) - {family}) & set(by_family)
            ]
            if partners and rng.random() < 0.6:
                pair = rng.choice(partners)
                other = rng.choice(by_family.pop(next(iter(set(pair) - {family}))))
                both = (column, other) if pair[0] == family else (other, column)
                phrases.append(rng.choice(PAIRS[pair]).format(COLUMNS[both[0]][1], COLUMNS[both[1]][1]))
                used += both
            else:
                phrases.append(rng.choice(PHRASES[family]).format(COLUMNS[column][1]))
                used.append(column)
        return phrases, used

    @staticmethod
    def _weight(column: int) -> float:
        return WEIGHTS[COLUMNS[column][0]] * DULL.get(COLUMNS[column], 1.0)

    def _dress(self, phrases: list[str], rng: random.Random) -> list[int]:
        """Phrases to tokens: openers, fillers and loose words around them, so that place and length say nothing."""
        parts: list[str] = []
        if rng.random() < 0.3:
            parts.append(" ".join(rng.choices(LOOSE, k=rng.randint(1, 14))))
        if rng.random() < 0.15:
            parts.append(rng.choice(FILLERS) + " ,")
        if rng.random() < 0.65:
            parts.append(rng.choice(OPENERS))
        for k, phrase in enumerate(phrases):
            if k:
                parts.append(rng.choice((",", "and", "with", ",")))
            parts.append(phrase)
        if rng.random() < 0.15:
            parts.append(", " + rng.choice(FILLERS))
        if rng.random() < 0.5:
            parts.append(".")
        tokens = [t for part in parts for t in self.encode(part)]
        # Too long: loose words at the front go first, never what is stated at the end.
        return [SOT, *tokens[-(self.longest - 2) :], EOT]


def vocabulary(writer: Writer) -> list[int]:
    """Every token that a caption can hold, in order: the rows of the embedding table that training can touch."""
    ids = {0, SOT, EOT}
    for text in (*OPENERS, *FILLERS, *LOOSE, ".", ",", "and", "with"):
        ids.update(writer.encode(text))
    for family, values in FAMILIES.items():
        for value in values:
            ids.update(writer.encode(value))
        for template in PHRASES[family]:
            ids.update(writer.encode(template.format("")))
    for templates in PAIRS.values():
        for template in templates:
            ids.update(writer.encode(template.format("", "")))
    return sorted(ids)


assert set(PHRASES) == set(FAMILIES) == set(OFFSET)
