"""The few-shot data sets: tasks, class names and hand-made prompts, and their pictures as files.

All pictures show artwork of styles that pre-training never saw: one style for train, val and test, the others as
shifted tests. Tasks, prompts and test pictures are settled before the model is trained; `freeze` writes their
hashes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zlib
from dataclasses import dataclass, field
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tools.bundled.artwork import SHAPES, SOURCES, UNSEEN, Artwork
from tools.bundled.compose import Composer
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
    SEVERAL,
    SINGLE,
    SIZES,
    World,
)

SOURCE_STYLE, *SHIFTED_STYLES = UNSEEN
TRAIN, VAL, SHIFTED = 16, 8, 8  # pictures per class
TEST_TOTAL, TEST_LEAST, TEST_MOST = 150, 20, 30  # pictures per data set, and the bounds per class
COLOURS_IN_FILE = 32


@dataclass(frozen=True)
class Task:
    """One data set. `target` is the scene's choice that the label names, `values` what each class sets it to.

    `among` fields are drawn from the same values as the target, each on its own: they are what makes the bare class
    name ambiguous. `given` fields are fixed.
    """

    name: str
    about: str
    classes: tuple[str, ...]
    prompt: str
    target: str
    values: tuple[int, ...]
    among: tuple[str, ...] = ()
    given: dict[str, int] = field(default_factory=dict)
    pool: tuple[str, ...] = ()  # the things shown, where not every thing will do


_PLAIN = {"art": -1, "quality": 0, "orientation": 0, "object_pattern": 0}
_ONE_THING = {"layout": SINGLE, "size": 2, "tint": -1, "badge": -1} | _PLAIN
_HOUSEHOLD = (
    "umbrella", "camera", "television", "candle", "light bulb", "book", "envelope", "toilet", "alarm clock", "hourglass",
    "trophy", "balloon", "scissors", "key", "hammer", "guitar", "backpack", "glasses", "microscope", "bell",
)  # fmt: skip
_ANIMALS = (
    "dog", "cat", "horse", "elephant", "rabbit", "monkey", "penguin", "owl", "frog", "turtle", "snake", "whale", "octopus",
    "butterfly", "spider", "snail",
)  # fmt: skip
_FEW_ANIMALS = ("dog", "elephant", "rabbit", "penguin", "turtle", "whale", "octopus", "butterfly")
_FOOD = (
    "grapes", "watermelon", "banana", "pineapple", "apple", "strawberry", "carrot", "corn", "bread", "cheese", "hamburger",
    "pizza", "ice cream", "doughnut",
)  # fmt: skip
_FEW_FOOD = ("grapes", "banana", "pineapple", "strawberry", "carrot", "hamburger", "pizza", "ice cream")
_VEHICLES = (
    "car",
    "taxi",
    "bus",
    "ambulance",
    "truck",
    "tractor",
    "motorcycle",
    "bicycle",
    "train",
    "sailboat",
    "airplane",
    "helicopter",
)


def _things(name: str, about: str, classes: tuple[str, ...], prompt: str, target: str = "main", **given: int) -> Task:
    values = tuple(INDEX[c] for c in classes)
    other = {"main": ("second",), "second": ("main",)}[target]
    return Task(
        name,
        about,
        classes,
        prompt,
        target,
        values,
        other,
        (_ONE_THING if not given else _PLAIN | {"tint": -1, "badge": -1}) | given,
    )


def _choices(
    name: str, about: str, classes: tuple[str, ...], prompt: str, target: str, among: tuple[str, ...] = (), **given: int
) -> Task:
    return Task(name, about, classes, prompt, target, tuple(range(len(classes))), among, _PLAIN | given)


_TINTS = COLOURS[:8]
_COLOURED = ("background", "tint", "frame")
TASKS: tuple[Task, ...] = (
    _things("objects", "everyday objects", _HOUSEHOLD, "a photo of a {}, an everyday object."),
    _things("animals", "animals", _ANIMALS, "a photo of a {}, a type of animal."),
    _things("food", "things to eat", _FOOD, "a photo of {}, a type of food."),
    _things("vehicles", "vehicles", _VEHICLES, "a photo of a {}, a type of vehicle."),
    _things(
        "stickers",
        "the small animal in a corner",
        _FEW_ANIMALS,
        "a photo with a {} sticker on it.",
        "second",
        layout=CORNER,
    ),
    _things("subjects", "the large one of two animals", _FEW_ANIMALS, "a portrait of a {}.", "main", layout=CORNER),
    _things(
        "left-food", "the left one of two foods", _FEW_FOOD, "a plate with {} on its left half.", "main", layout=PAIR
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
        "paint", "colour of the object", _TINTS, "a photo of a {} object.", "tint", ("background", "frame"), badge=-1
    ),
    _choices(
        "wallpaper",
        "pattern of the background",
        PATTERNS,
        "a photo of an object on {} wallpaper.",
        "background_pattern",
        ("object_pattern",),
    ),
    _choices("symbols", "shape of the badge", tuple(SHAPES), "a photo with a {} symbol.", "badge"),
    _choices(
        "positions",
        "where the object is",
        POSITIONS,
        "a photo of an object located {}.",
        "position",
        ("orientation",),
        layout=SINGLE,
        size=0,
    ),
    Task(
        "orientations",
        "how the object is turned",
        ORIENTATIONS,
        "a photo of an object rotated {}.",
        "orientation",
        tuple(range(len(ORIENTATIONS))),
        given=_PLAIN | {"layout": SINGLE, "size": 2},
        pool=_ANIMALS + _VEHICLES,  # a ball has no upside down
    ),
    _choices("counts", "how many objects there are", COUNTS, "a photo of {} objects.", "count"),
    _choices("sizes", "size of the object", SIZES, "a photo of a {} object.", "size", (), layout=SINGLE, position=4),
    _choices("art-styles", "how the picture is made", ARTS, "a {} artwork.", "art"),
    _choices("quality", "what is wrong with the picture", QUALITIES, "a {} photo of an object.", "quality"),
)


def build(artwork: Artwork, folder: Path) -> dict[str, int]:
    """Write all data sets below `folder` (replacing what is there); returns the bytes of each."""
    if folder.exists():
        shutil.rmtree(folder)
    described, sizes = [], {}
    for task in TASKS:
        test = min(TEST_MOST, max(TEST_LEAST, TEST_TOTAL // len(task.classes)))
        parts = {"train": (SOURCE_STYLE, TRAIN), "val": (SOURCE_STYLE, VAL), "test": (SOURCE_STYLE, test)}
        parts |= {f"test-{style}": (style, SHIFTED) for style in SHIFTED_STYLES}
        for part, (style, per_class) in parts.items():
            _write_part(task, part, per_class, artwork.of_styles((style,)), folder / task.name / part)
        sizes[task.name] = sum(f.stat().st_size for f in (folder / task.name).rglob("*.png"))
        described.append(_describe(task))
    (folder / "datasets.json").write_text(json.dumps(described, indent=1) + "\n")
    return sizes


def _write_part(task: Task, part: str, per_class: int, artwork: Artwork, folder: Path) -> None:
    # Each part has its own seed, from its name: adding a task or a part changes no other picture.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{task.name}/{part}".encode()))
    world, composer = World(artwork), Composer(artwork)
    label = torch.arange(len(task.classes)).repeat_interleave(per_class)
    scenes = world.draw(len(label), generator, simple=0.0, **_given(task, label, generator))
    pictures = composer(scenes, generator).permute(0, 2, 3, 1).numpy()
    for k, picture in enumerate(pictures):
        place = folder / task.classes[k // per_class]
        place.mkdir(parents=True, exist_ok=True)
        small = Image.fromarray(picture).quantize(COLOURS_IN_FILE, dither=Image.Dither.NONE)
        small.save(place / f"{k % per_class:02d}.png", optimize=True)


def _given(task: Task, label: Tensor, generator: torch.Generator) -> dict[str, Tensor | int]:
    """The choices that this task does not leave to chance."""
    values = torch.tensor(task.values)
    given: dict[str, Tensor | int] = dict(task.given)
    if task.pool:
        pool = torch.tensor([INDEX[thing] for thing in task.pool])
        given["main"] = pool[torch.randint(len(pool), (len(label),), generator=generator)]
    for name in task.among:
        given[name] = _other(task, name, label, generator)
    if task.target == "count":
        given["layout"] = torch.where(label == 0, SINGLE, SEVERAL)
        given["size"], given["count"] = 0, label + 1
    else:
        given[task.target] = values[label]
    return given


def _other(task: Task, name: str, label: Tensor, generator: torch.Generator) -> Tensor:
    """An independent draw for a field that shares its words with the target."""
    n = len(label)
    if name == "orientation":
        return torch.randint(len(ORIENTATIONS), (n,), generator=generator)
    if name in ("main", "second"):
        # Two different things: any class but the labelled one.
        step = torch.randint(1, len(task.classes), (n,), generator=generator)
        return torch.tensor(task.values)[(label + step) % len(task.classes)]
    return torch.randint(len(task.classes), (n,), generator=generator)


def _describe(task: Task) -> dict[str, object]:
    licences = {s.style: {"licence": s.licence, "source": s.home} for s in SOURCES if s.held_out}
    return {
        "name": task.name,
        "description": task.about,
        "classes": list(task.classes),
        "prompt": task.prompt,
        "source_style": SOURCE_STYLE,
        "shifted": [f"test-{style}" for style in SHIFTED_STYLES],
        "artwork": licences,
    }


def freeze(folder: Path, record: Path) -> str:
    """Hash every data set, and all of them together, into `record`."""
    hashes = {task.name: _hash(sorted((folder / task.name).rglob("*.png")), folder) for task in TASKS}
    hashes["datasets.json"] = _hash([folder / "datasets.json"], folder)
    whole = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"all": whole} | hashes, indent=1) + "\n")
    return whole


def _hash(files: list[Path], folder: Path) -> str:
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(folder)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()


assert set(named("animal")) >= set(_ANIMALS)
