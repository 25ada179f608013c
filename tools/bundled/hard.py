"""The two hard problems beside the few-shot data sets, frozen before any recipe was chosen on them.

`mixed` is all data sets as one problem: their classes, images merged by the name of the class. It stores nothing, it is a
list of images in the other archives. `fleet` has many similar classes, labels of which some are wrong, and from one to 60
training images per class. All that was looked at to design `fleet` is zero-shot accuracy (docs/miniature.md).
"""

from __future__ import annotations

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tools.bundled.archive import write_archive
from tools.bundled.artwork import Artwork
from tools.bundled.compose import Composer
from tools.bundled.concepts import INDEX
from tools.bundled.datasets import SHIFTED_STYLES, SOURCE_STYLE, describe, hash_of, pictures_of, png
from tools.bundled.tasks import FLEET, FLEET_COLOURS, FLEET_VEHICLES
from tools.bundled.world import World

MOST, LEAST, STEEPNESS = 60, 1, 0.6  # training images per class: of the first, of the last, and how fast they fall
WRONG, WRONG_ALIKE = 0.10, 0.8  # share of wrong training labels, and of these, such as are of a similar class
VAL, TEST, SHIFTED = 8, 10, 4  # pictures per class
N_COLOURS, N_VEHICLES = len(FLEET_COLOURS), len(FLEET_VEHICLES)


def build(artwork: Artwork, folder: Path) -> int:
    """Write `fleet` and the description of both beside the data sets in `folder`; returns the bytes of its pictures."""
    given, shown = training_labels()
    files = _part("train", SOURCE_STYLE, given, shown, artwork)
    parts = {"val": (SOURCE_STYLE, VAL), "test": (SOURCE_STYLE, TEST)}
    parts |= {f"test-{style}": (style, SHIFTED) for style in SHIFTED_STYLES}
    for part, (style, per_class) in parts.items():
        label = torch.arange(len(FLEET.classes)).repeat_interleave(per_class)
        files |= _part(part, style, label, label, artwork)
    write_archive(folder / f"{FLEET.name}.zip", files)
    described = [_describe_mixed(_read(folder)), describe(FLEET)]
    (folder / "hard.json").write_text(json.dumps(described, indent=1) + "\n")
    return sum(map(len, files.values()))


def training_counts() -> list[int]:
    """How many training images each class of `fleet` has: a long tail, dealt to the classes by chance."""
    last = len(FLEET.classes) - 1
    counts = [max(LEAST, round(MOST * (LEAST / MOST) ** ((k / last) ** STEEPNESS))) for k in range(last + 1)]
    order = torch.randperm(last + 1, generator=_seeded("counts")).tolist()
    return [counts[k] for k in order]


def training_labels() -> tuple[Tensor, Tensor]:
    """For each training image of `fleet` the class that it is said to be of, and the class that it shows.

    An exact share of the labels is wrong, of images drawn by chance; the first image of each class is right, so every class
    has one. What a wrong one shows is mostly the same vehicle in another colour, or another vehicle in the same colour.
    """
    generator = _seeded("labels")
    counts = torch.tensor(training_counts())
    given = torch.arange(len(counts)).repeat_interleave(counts)
    first = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)[:-1]])
    free = torch.ones(len(given), dtype=torch.bool)
    free[first] = False
    candidates = torch.nonzero(free)[:, 0]
    wrong = candidates[torch.randperm(len(candidates), generator=generator)[: round(WRONG * len(given))]]
    shown = given.clone()
    shown[wrong] = _other_class(given[wrong], generator)
    return given, shown


def _other_class(label: Tensor, generator: torch.Generator) -> Tensor:
    n = len(label)
    colour, vehicle = label // N_VEHICLES, label % N_VEHICLES
    other_colour = (colour + torch.randint(1, N_COLOURS, (n,), generator=generator)) % N_COLOURS
    other_vehicle = (vehicle + torch.randint(1, N_VEHICLES, (n,), generator=generator)) % N_VEHICLES
    dice = torch.rand(n, generator=generator)
    colour = torch.where(dice < WRONG_ALIKE / 2, colour, other_colour)
    vehicle = torch.where((dice >= WRONG_ALIKE / 2) & (dice < WRONG_ALIKE), vehicle, other_vehicle)
    return colour * N_VEHICLES + vehicle


def _part(part: str, style: str, given: Tensor, shown: Tensor, artwork: Artwork) -> dict[str, bytes]:
    """The PNG files of one part, by their paths; the pictures are of the classes `shown`, the folders those `given`."""
    artwork, generator = artwork.of_styles((style,)), _seeded(part)
    scenes = World(artwork, half=int(part != "train")).draw(
        len(shown), generator, simple=0.0, **_scene(shown, generator)
    )
    pictures = Composer(artwork)(scenes, generator).permute(0, 2, 3, 1).numpy()
    files: dict[str, bytes] = {}
    numbers = [0] * len(FLEET.classes)
    for label, picture in zip(given.tolist(), pictures, strict=True):
        files[f"{part}/{FLEET.classes[label]}/{numbers[label]:02d}.png"] = png(picture)
        numbers[label] += 1
    return files


def _scene(shown: Tensor, generator: torch.Generator) -> dict[str, Tensor | int]:
    """The vehicle on the left, and on the right, painted alike, another one in half of the pictures, else another thing.

    Background and frame have colours of their own from the same eight.
    """
    n = len(shown)
    vehicles = torch.tensor([INDEX[name] for name in FLEET_VEHICLES])
    others = torch.tensor([INDEX[name] for name in FLEET.others])
    step = torch.randint(1, N_VEHICLES, (n,), generator=generator)
    rival = vehicles[(shown % N_VEHICLES + step) % N_VEHICLES]
    other = others[torch.randint(len(others), (n,), generator=generator)]
    return FLEET.given | {
        "main": vehicles[shown % N_VEHICLES],
        "second": torch.where(torch.rand(n, generator=generator) < 0.5, rival, other),
        "tint": shown // N_VEHICLES,
        "background": torch.randint(N_COLOURS, (n,), generator=generator),
        "frame": torch.randint(N_COLOURS, (n,), generator=generator),
    }


def _seeded(what: str) -> torch.Generator:
    """As in the other data sets: each part has its own seed, from its name."""
    return torch.Generator().manual_seed(zlib.crc32(f"{FLEET.name}/{what}".encode()))


def _describe_mixed(members: list[dict[str, Any]]) -> dict[str, object]:
    return {
        "name": "mixed",
        "description": "all other data sets as one; it asks for all kinds of things at once",
        "classes": list(dict.fromkeys(name for one in members for name in one["classes"])),
        "prompt": "a photo of a {}.",
        "source_style": SOURCE_STYLE,
        "shifted": [f"test-{style}" for style in SHIFTED_STYLES],
        "members": [one["name"] for one in members],
    }


def mixed_list(folder: Path) -> Iterator[tuple[str, str, str]]:
    """The images of `mixed` in their order: part, path from `folder`, class. By class, in a class by data set."""
    members = _read(folder)
    mixed = _describe_mixed(members)
    names: dict[str, dict[str, list[str]]] = {}
    for one in members:
        folders = names[one["name"]] = {}
        with zipfile.ZipFile(folder / f"{one['name']}.zip") as archive:
            for path in sorted(archive.namelist()):
                folders.setdefault(path.rpartition("/")[0], []).append(path)
    for part in ("train", "val", "test", *(f"test-{style}" for style in SHIFTED_STYLES)):
        for label in mixed["classes"]:  # type: ignore[attr-defined]
            for one in members:
                for path in names[one["name"]].get(f"{part}/{label}", []):
                    yield part, f"{one['name']}.zip/{path}", label


def freeze(folder: Path, record: Path) -> str:
    """Hash both into `record`, beside the data sets that are there; returns the hash of the list of `mixed`."""
    mixed = hashlib.sha256("".join("\t".join(row) + "\n" for row in mixed_list(folder)).encode()).hexdigest()
    described = hash_of({"hard.json": (folder / "hard.json").read_bytes()})
    fleet = hash_of(pictures_of(folder / f"{FLEET.name}.zip"))
    frozen = json.loads(record.read_text()) | {"hard": {"mixed": mixed, FLEET.name: fleet, "hard.json": described}}
    record.write_text(json.dumps(frozen, indent=1) + "\n")
    return mixed


def _read(folder: Path) -> list[dict[str, Any]]:
    return json.loads((folder / "datasets.json").read_text())
