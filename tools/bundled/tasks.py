"""What the few-shot data sets ask: class names, hand-made prompts, and which choices of a scene they fix.

Settled before the model is trained (`datasets.freeze`). The hand-made prompts are what somebody would write who knows
the data set but not the captions of the pre-training. In the sets about things, test pictures show other drawings than
the training pictures, wherever the artwork has two: remembering a drawing is not recognising the thing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from tools.bundled.artwork import SHAPES
from tools.bundled.concepts import INDEX, named
from tools.bundled.world import (
    ARTS,
    COLOURS,
    CORNER,
    COUNTS,
    ORIENTATIONS,
    PAIR,
    PATTERNS,
    POSITIONS,
    QUALITIES,
    SINGLE,
    SIZES,
)


@dataclass(frozen=True)
class Task:
    """One data set. `target` is the scene's choice that the label names, `values` what each class may set it to.

    `among` fields are drawn from the same values as the target, each on its own: they are what makes the bare class
    name ambiguous. `given` fields are fixed.
    """

    name: str
    about: str
    classes: tuple[str, ...]
    prompt: str
    target: str
    values: tuple[tuple[int, ...], ...]
    among: tuple[str, ...] = ()
    given: dict[str, int] = field(default_factory=dict)
    pool: tuple[str, ...] = ()  # the things shown, where not every thing will do
    others: tuple[str, ...] = ()  # what the second thing is in half of the pictures; in the rest, another class


_PLAIN = {"art": -1, "quality": 0, "orientation": 0, "object_pattern": 0}
_ONE_THING = {"layout": SINGLE, "size": 2, "tint": -1, "badge": -1} | _PLAIN
_TWO_THINGS = {"tint": -1, "badge": -1} | _PLAIN
_HOUSEHOLD = (
    "umbrella", "key", "lock", "bell", "microphone", "telephone", "mobile phone", "computer", "camera", "book", "envelope",
    "mailbox", "clock", "hourglass", "calendar", "speaker", "bag", "medal", "shoe", "hat",
)  # fmt: skip
_ANIMALS = (
    "dog", "cat", "tiger", "horse", "cow", "pig", "sheep", "camel", "mouse", "rabbit", "monkey", "chick", "whale", "fish",
)  # fmt: skip
_FEW_ANIMALS = ("dog", "cat", "horse", "rabbit", "penguin", "turtle", "whale", "butterfly")
_FOOD = (
    "grapes", "watermelon", "banana", "pineapple", "apple", "strawberry", "carrot", "corn", "bread", "cheese", "hamburger",
    "pizza", "ice cream", "doughnut",
)  # fmt: skip
_FEW_FOOD = ("grapes", "banana", "pineapple", "strawberry", "carrot", "hamburger", "pizza", "ice cream")
_VEHICLES = (
    "car", "taxi", "bus", "police car", "truck", "train", "tram", "airplane", "speedboat", "ship", "motorcycle", "bicycle",
)  # fmt: skip
_KINDS = (
    "mammal", "bird", "sea animal", "insect", "fruit", "vegetable", "dessert", "drink", "plant", "building",
    "musical instrument", "tool",
)  # fmt: skip
_TINTS = COLOURS[:8]


def _things(name: str, about: str, classes: tuple[str, ...], prompt: str) -> Task:
    return Task(name, about, classes, prompt, "main", tuple((INDEX[c],) for c in classes), given=_ONE_THING)


def _of_two(
    name: str, about: str, classes: tuple[str, ...], prompt: str, target: str, layout: int, others: tuple[str, ...]
) -> Task:
    values = tuple((INDEX[c],) for c in classes)
    second = "second" if target == "main" else "main"
    return Task(name, about, classes, prompt, target, values, (second,), _TWO_THINGS | {"layout": layout}, (), others)


def _choices(
    name: str, about: str, classes: tuple[str, ...], prompt: str, target: str, among: tuple[str, ...] = (), **given: int
) -> Task:
    values = tuple((k,) for k in range(len(classes)))
    return Task(name, about, classes, prompt, target, values, among, _PLAIN | given)


TASKS: tuple[Task, ...] = (
    _things("objects", "everyday objects", _HOUSEHOLD, "a photo of a {}, an everyday object."),
    _things("animals", "animals", _ANIMALS, "a photo of a {}, a type of animal."),
    _things("food", "things to eat", _FOOD, "a photo of {}, a type of food."),
    _things("vehicles", "vehicles", _VEHICLES, "a photo of a {}, a type of vehicle."),
    Task(
        "kinds",
        "kinds of things; the test shows other things of each kind",
        _KINDS,
        "a photo of some kind of {}.",
        "main",
        tuple(tuple(INDEX[c] for c in named(kind)) for kind in _KINDS),
        given=_ONE_THING,
    ),
    _of_two(
        "stickers",
        "the small animal in a corner",
        _FEW_ANIMALS,
        "a photo with a {} sticker on it.",
        "second",
        CORNER,
        _VEHICLES + _FOOD,
    ),
    _of_two(
        "subjects",
        "the large animal in front of something small",
        _FEW_ANIMALS,
        "a portrait of a {}.",
        "main",
        CORNER,
        _VEHICLES + _FOOD,
    ),
    _of_two(
        "left-food",
        "the left one of two things",
        _FEW_FOOD,
        "a plate with {} on its left half.",
        "main",
        PAIR,
        _VEHICLES + _ANIMALS,
    ),
    _choices(
        "backgrounds",
        "colour of the background",
        _TINTS,
        "a photo of an object against a {} wall.",
        "background",
        ("tint", "frame"),
        badge=-1,
    ),
    _choices(
        "frames",
        "colour of the frame",
        _TINTS,
        "a photo in a {} picture frame.",
        "frame",
        ("tint", "background"),
        badge=-1,
    ),
    _choices(
        "paint",
        "colour of the object",
        _TINTS,
        "a photo of a {} object.",
        "tint",
        ("background", "frame"),
        badge=-1,
    ),
    _choices(
        "wallpaper",
        "pattern of the background",
        PATTERNS,
        "a photo of an object on {} wallpaper.",
        "background_pattern",
        ("object_pattern",),
    ),
    _choices("symbols", "shape of the badge", tuple(SHAPES), "a photo with a {} symbol.", "badge", layout=SINGLE),
    _choices(
        "positions",
        "where the object is",
        POSITIONS,
        "a photo of an object located {}.",
        "position",
        ("orientation",),
        layout=SINGLE,
        size=0,
        badge=-1,
    ),
    Task(
        "orientations",
        "how the object is turned",
        ORIENTATIONS,
        "a photo of an object rotated {}.",
        "orientation",
        tuple((k,) for k in range(len(ORIENTATIONS))),
        given=_PLAIN | {"layout": SINGLE, "size": 2, "badge": -1},
        pool=_ANIMALS + _VEHICLES,  # a ball has no upside down
    ),
    _choices("counts", "how many objects there are", COUNTS, "a photo of {} objects.", "count", badge=-1),
    _choices(
        "sizes", "size of the object", SIZES, "a photo of a {} object.", "size", layout=SINGLE, position=4, badge=-1
    ),
    _choices("art-styles", "how the picture is made", ARTS, "a {} artwork.", "art"),
    _choices("quality", "what is wrong with the picture", QUALITIES, "a {} photo of an object.", "quality"),
)

FLEET_COLOURS, FLEET_VEHICLES = _TINTS, _VEHICLES
FLEET = Task(
    "fleet",
    "colour and kind of the left vehicle; many, uneven, some labels wrong",
    tuple(f"{colour} {vehicle}" for colour in FLEET_COLOURS for vehicle in FLEET_VEHICLES),
    "a photo of a painted {} on the left.",
    "main",
    tuple((INDEX[vehicle],) for _ in FLEET_COLOURS for vehicle in FLEET_VEHICLES),
    given=_PLAIN | {"layout": PAIR, "background_pattern": 0, "badge": -1},
    others=_FOOD + _ANIMALS,
)
"""One of the two hard problems; `hard` makes it. Not among TASKS: means over the data sets are without it."""
