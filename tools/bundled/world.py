"""The world: what a scene is made of, how scenes are drawn by chance, and which facts are true of them.

A scene is a row of choices (`Scenes`), a fact is a column: "the background is red", "the small thing is a tiger". Facts
of the `any_*` families are true if *any* part of the picture fits; they are what a bare word ("red") says. That is why
prompts matter here: a class name alone leaves open which part it speaks of.

Axes: `scenes` is the batch, `facts` are the columns, FAMILIES in their order.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from tools.bundled.artwork import SHAPES, Artwork
from tools.bundled.concepts import CONCEPTS, GROUPS

COLOURS = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "brown", "black", "white")
TINTS = COLOURS[:8]  # black and white things would lose their drawing
PATTERNS = ("plain", "striped", "dotted", "checkered")
LAYOUTS = ("single", "corner", "pair", "several")
SIZES = ("small", "medium", "large")
POSITIONS = ("left", "right", "top", "bottom", "center")
SIDES = POSITIONS[:4]
ORIENTATIONS = ("upright", "upside down", "tipped to the left", "tipped to the right")
COUNTS = ("one", "two", "three", "four", "five")
WIDTHS = ("thin", "thick")
ARTS = ("line drawing", "pixel art", "black and white", "sepia", "negative", "relief")
COLOURFUL_ARTS = (ARTS.index("pixel art"),)  # in all others the colours can no longer be told
QUALITIES = ("clear", "blurry", "noisy", "dark", "faded")
SINGLE, CORNER, PAIR, SEVERAL = range(4)

_THINGS = tuple(c.name for c in CONCEPTS)
FAMILIES: dict[str, tuple[str, ...]] = {
    "any_thing": _THINGS,
    "big_thing": _THINGS,
    "small_thing": _THINGS,
    "left_thing": _THINGS,
    "right_thing": _THINGS,
    "group": GROUPS,
    "object_colour": COLOURS,
    "background_colour": COLOURS,
    "frame_colour": COLOURS,
    "badge_colour": COLOURS,
    "any_colour": COLOURS,
    "object_pattern": PATTERNS,
    "background_pattern": PATTERNS,
    "any_pattern": PATTERNS,
    "frame_width": WIDTHS,
    "size": SIZES,
    "count": COUNTS,
    "position": POSITIONS,
    "any_side": SIDES,
    "orientation": ORIENTATIONS,
    "badge_shape": tuple(SHAPES),
    "art": ARTS,
    "quality": QUALITIES,
}
OFFSET: dict[str, int] = {}
N_FACTS = 0
for _family, _values in FAMILIES.items():
    OFFSET[_family] = N_FACTS
    N_FACTS += len(_values)


@dataclass
class Scenes:
    """A batch of scenes: every field is (scenes,) int64; -1 means "there is none"."""

    layout: Tensor
    main: Tensor
    second: Tensor
    main_picture: Tensor
    second_picture: Tensor
    size: Tensor
    position: Tensor
    corner: Tensor  # of the small thing: 0 top left, 1 top right, 2 bottom right, 3 bottom left
    orientation: Tensor
    count: Tensor
    background: Tensor
    background_pattern: Tensor
    tint: Tensor
    object_pattern: Tensor
    frame: Tensor
    frame_width: Tensor
    badge: Tensor
    badge_colour: Tensor
    badge_corner: Tensor
    art: Tensor
    quality: Tensor

    def __len__(self) -> int:
        return len(self.layout)

    def rows(self, index: Tensor) -> Scenes:
        """The scenes at `index`."""
        return Scenes(**{f.name: getattr(self, f.name)[index] for f in fields(self)})


class World:
    """Draws scenes whose pictures come from one set of artwork.

    With `half` (0 or 1) only every second drawing of each thing comes up, so that two parts of a data set never share
    a drawing; a thing of which there is one drawing shows it in both. Which of the two halves comes first alternates
    from thing to thing: the artwork lists bodies before faces, and a part with bodies alone would ask another question.
    """

    def __init__(self, artwork: Artwork, half: int | None = None) -> None:
        concept = torch.from_numpy(artwork.concept)
        self.pictures = [torch.nonzero(concept == c)[:, 0] for c in range(len(CONCEPTS))]
        if half is not None:
            self.pictures = [p[(half + c) % 2 :: 2] if len(p) > 1 else p for c, p in enumerate(self.pictures)]

    def draw(self, n: int, generator: torch.Generator, simple: float = 0.3, **given: Tensor | int) -> Scenes:
        """`n` scenes; a share of `simple` ones show one large thing, little else; `given` fields are set, not drawn."""

        def pick(*weights: float, first: int = 0) -> Tensor:
            return torch.multinomial(torch.tensor(weights), n, True, generator=generator) + first

        def uniform(size: int) -> Tensor:
            return torch.randint(size, (n,), generator=generator)

        def maybe(p: float, values: Tensor, otherwise: int = -1) -> Tensor:
            return torch.where(torch.rand(n, generator=generator) < p, values, torch.full_like(values, otherwise))

        drawn = {
            "layout": pick(0.40, 0.23, 0.21, 0.16),
            "main": uniform(len(CONCEPTS)),
            "second": uniform(len(CONCEPTS)),
            "size": pick(0.3, 0.3, 0.4),
            "position": uniform(5),
            "corner": uniform(4),
            "orientation": pick(0.64, 0.12, 0.12, 0.12),
            "count": uniform(4) + 2,
            "background": uniform(len(COLOURS)),
            "background_pattern": pick(0.5, 0.17, 0.17, 0.16),
            "tint": maybe(0.4, uniform(len(TINTS))),
            "object_pattern": pick(0.79, 0.07, 0.07, 0.07),
            "frame": maybe(0.5, uniform(len(COLOURS))),
            "frame_width": uniform(2),
            "badge": maybe(0.3, uniform(len(SHAPES))),
            "badge_colour": uniform(len(COLOURS)),
            "badge_corner": uniform(4),
            "art": maybe(0.15, uniform(len(ARTS))),
            "quality": pick(0.8, 0.05, 0.05, 0.05, 0.05),
        }
        bare = torch.rand(n, generator=generator) < simple
        plain = {
            "layout": 0,
            "size": 2,
            "orientation": 0,
            "background_pattern": 0,
            "object_pattern": 0,
            "art": -1,
            "quality": 0,
        }
        for name, value in (plain | {"frame": -1, "badge": -1}).items():
            drawn[name][bare] = value
        for name, wanted in given.items():
            drawn[name] = wanted.clone() if isinstance(wanted, Tensor) else torch.full((n,), wanted)
        return self._settle(drawn, generator)

    def _settle(self, drawn: dict[str, Tensor], generator: torch.Generator) -> Scenes:
        """Make independent choices agree: a large thing is in the middle, two things differ, and so on."""
        layout, absent = drawn["layout"], torch.full_like(drawn["layout"], -1)
        single, two = layout == SINGLE, (layout == CORNER) | (layout == PAIR)
        drawn["size"] = torch.where(single, drawn["size"], absent)
        drawn["position"] = torch.where(drawn["size"] == 2, 4, drawn["position"])
        drawn["position"] = torch.where(single, drawn["position"], absent)
        drawn["count"] = torch.where(single, 1, torch.where(layout == SEVERAL, drawn["count"], 0))
        same = drawn["second"] == drawn["main"]
        drawn["second"] = torch.where(same, (drawn["main"] + 1) % len(CONCEPTS), drawn["second"])
        drawn["second"] = torch.where(two, drawn["second"], absent)
        drawn["corner"] = torch.where(layout == CORNER, drawn["corner"], absent)
        drawn["badge_corner"] = torch.where(layout == CORNER, (drawn["corner"] + 2) % 4, drawn["badge_corner"])
        hidden = drawn["badge_colour"] == drawn["background"]  # nobody would see that badge
        drawn["badge_colour"] = torch.where(hidden, (drawn["badge_colour"] + 5) % len(COLOURS), drawn["badge_colour"])
        drawn["badge_colour"] = torch.where(drawn["badge"] >= 0, drawn["badge_colour"], absent)
        drawn["frame_width"] = torch.where(drawn["frame"] >= 0, drawn["frame_width"], absent)
        for field, thing in (("main_picture", "main"), ("second_picture", "second")):
            dice = torch.rand(len(layout), generator=generator).tolist()
            drawn[field] = torch.tensor([self._picture(c, u) for c, u in zip(drawn[thing].tolist(), dice, strict=True)])
        return Scenes(**drawn)

    def _picture(self, concept: int, dice: float) -> int:
        """One of the concept's pictures; `dice` is in [0, 1)."""
        return int(self.pictures[concept][int(dice * len(self.pictures[concept]))]) if concept >= 0 else -1


# Every thing's widest and narrowest kind.
_KINDS = torch.tensor([[GROUPS.index(c.groups[0]), GROUPS.index(c.groups[-1])] for c in CONCEPTS])


def facts(scenes: Scenes) -> Tensor:
    """Which facts are true of which scene: (scenes, facts) bool."""
    true = torch.zeros(len(scenes), N_FACTS, dtype=torch.bool)
    everywhere = torch.ones(len(scenes), dtype=torch.bool)

    def mark(family: str, value: Tensor, when: Tensor = everywhere) -> None:
        rows = torch.nonzero(when & (value >= 0))[:, 0]
        true[rows, OFFSET[family] + value[rows]] = True

    corner, pair = scenes.layout == CORNER, scenes.layout == PAIR
    for thing in (scenes.main, scenes.second):
        mark("any_thing", thing)
        for kind in _KINDS.T:
            mark("group", torch.where(thing >= 0, kind[thing.clamp(min=0)], thing))
    mark("big_thing", scenes.main, corner)
    mark("small_thing", scenes.second, corner)
    mark("left_thing", scenes.main, pair)
    mark("right_thing", scenes.second, pair)

    colourful = scenes.art == -1
    for art in COLOURFUL_ARTS:
        colourful |= scenes.art == art
    parts = {
        "object": scenes.tint,
        "background": scenes.background,
        "frame": scenes.frame,
        "badge": scenes.badge_colour,
    }
    for part, colour in parts.items():
        mark(f"{part}_colour", colour, colourful)
        mark("any_colour", colour, colourful)
    patterns = {"object": scenes.object_pattern, "background": scenes.background_pattern}
    for part, pattern in patterns.items():
        mark(f"{part}_pattern", pattern)
        mark("any_pattern", pattern)

    mark("frame_width", scenes.frame_width)
    mark("size", scenes.size)
    mark("count", scenes.count - 1, scenes.count > 0)
    mark("position", scenes.position)
    mark("orientation", scenes.orientation)
    mark("badge_shape", scenes.badge)
    mark("art", scenes.art)
    mark("quality", scenes.quality)
    mark("any_side", scenes.position, scenes.position < 4)
    mark("any_side", scenes.orientation - 2, scenes.orientation >= 2)
    mark("any_side", torch.where((scenes.corner == 0) | (scenes.corner == 3), 0, 1), corner)
    mark("any_side", torch.where(scenes.corner < 2, 2, 3), corner)
    return true
