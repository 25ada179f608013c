"""The pictures of the few-shot data sets: an archive of PNG files for each.

All of them show artwork of styles that pre-training never saw: one style for train, val and test, the others as
shifted tests. Tasks, prompts and test pictures are settled before the model is trained; `freeze` writes their
hashes.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import zipfile
import zlib
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tools.bundled.archive import write_archive
from tools.bundled.artwork import SOURCES, UNSEEN, Artwork
from tools.bundled.compose import Composer
from tools.bundled.concepts import INDEX
from tools.bundled.tasks import TASKS, Task
from tools.bundled.world import ORIENTATIONS, SEVERAL, SINGLE, World

SOURCE_STYLE, *SHIFTED_STYLES = UNSEEN
TRAIN, VAL, SHIFTED = 16, 8, 20  # pictures per class
TEST_TOTAL, TEST_LEAST, TEST_MOST = 200, 20, 40  # pictures per data set, and the bounds per class
COLOURS_IN_FILE = 32


def build(artwork: Artwork, folder: Path) -> dict[str, int]:
    """Write all data sets below `folder` (replacing what is there); returns the bytes of each one's pictures."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    described, sizes = [], {}
    for task in TASKS:
        test = min(TEST_MOST, max(TEST_LEAST, TEST_TOTAL // len(task.classes)))
        parts = {"train": (SOURCE_STYLE, TRAIN), "val": (SOURCE_STYLE, VAL), "test": (SOURCE_STYLE, test)}
        parts |= {f"test-{style}": (style, SHIFTED) for style in SHIFTED_STYLES}
        files: dict[str, bytes] = {}
        for part, (style, per_class) in parts.items():
            files |= _part(task, part, per_class, artwork.of_styles((style,)))
        write_archive(folder / f"{task.name}.zip", files)
        sizes[task.name] = sum(map(len, files.values()))
        described.append(describe(task))
    (folder / "datasets.json").write_text(json.dumps(described, indent=1) + "\n")
    return sizes


def _part(task: Task, part: str, per_class: int, artwork: Artwork) -> dict[str, bytes]:
    """The PNG files of one part, by their paths."""
    # Each part has its own seed, from its name: adding a task or a part changes no other picture.
    generator = torch.Generator().manual_seed(zlib.crc32(f"{task.name}/{part}".encode()))
    half = int(part != "train")  # of the drawings: no drawing of a class is in train and in val or test
    world, composer = World(artwork, half), Composer(artwork)
    label = torch.arange(len(task.classes)).repeat_interleave(per_class)
    scenes = world.draw(len(label), generator, simple=0.0, **_given(task, label, half, generator))
    pictures = composer(scenes, generator).permute(0, 2, 3, 1).numpy()
    files: dict[str, bytes] = {}
    for k, picture in enumerate(pictures):
        files[f"{part}/{task.classes[k // per_class]}/{k % per_class:02d}.png"] = png(picture)
    return files


def png(picture: np.ndarray) -> bytes:
    """A picture, (height, width, 3) uint8, as a small PNG file."""
    data = BytesIO()
    small = Image.fromarray(picture).quantize(COLOURS_IN_FILE, dither=Image.Dither.NONE)
    small.save(data, "PNG", optimize=True)
    return data.getvalue()


def _given(task: Task, label: Tensor, half: int, generator: torch.Generator) -> dict[str, Tensor | int]:
    """The choices that this task does not leave to chance."""
    given: dict[str, Tensor | int] = dict(task.given)
    if task.pool:
        given["main"] = _any_of(task.pool, len(label), generator)
    for name in task.among:
        given[name] = _other(task, name, label, generator)
    if task.target == "count":
        given["layout"] = torch.where(label == 0, SINGLE, SEVERAL)
        given["size"], given["count"] = 0, label + 1
    else:
        given[task.target] = _values(task, label, half, generator)
    return given


def _values(task: Task, label: Tensor, half: int, generator: torch.Generator) -> Tensor:
    """What the target is set to; of several values for a class, train and test have different ones."""
    chosen = []
    for k, u in zip(label.tolist(), torch.rand(len(label), generator=generator).tolist(), strict=True):
        values = task.values[k]
        values = values[half::2] if len(values) > 1 else values
        chosen.append(values[int(u * len(values))])
    return torch.tensor(chosen)


def _other(task: Task, name: str, label: Tensor, generator: torch.Generator) -> Tensor:
    """An independent draw for a field that shares its words with the target."""
    n = len(label)
    if name == "orientation":
        return torch.randint(len(ORIENTATIONS), (n,), generator=generator)
    if name in ("main", "second"):
        # Half of the time another class, which the bare name fits as well; else a thing that nobody asked for.
        step = torch.randint(1, len(task.classes), (n,), generator=generator)
        rival = torch.tensor(task.values)[(label + step) % len(task.classes), 0]
        return torch.where(torch.rand(n, generator=generator) < 0.5, rival, _any_of(task.others, n, generator))
    return torch.randint(len(task.classes), (n,), generator=generator)


def _any_of(things: tuple[str, ...], n: int, generator: torch.Generator) -> Tensor:
    return torch.tensor([INDEX[thing] for thing in things])[torch.randint(len(things), (n,), generator=generator)]


def describe(task: Task) -> dict[str, object]:
    """What the package is told of a data set."""
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
    hashes = {task.name: hash_of(pictures_of(folder / f"{task.name}.zip")) for task in TASKS}
    hashes["datasets.json"] = hash_of({"datasets.json": (folder / "datasets.json").read_bytes()})
    whole = hashlib.sha256(json.dumps(hashes, sort_keys=True).encode()).hexdigest()
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"all": whole} | hashes, indent=1) + "\n")
    return whole


def pictures_of(file: Path) -> dict[str, bytes]:
    """The files of an archive by their paths from the folder of the archives, in the order that they have in it."""
    with zipfile.ZipFile(file) as archive:
        return {f"{file.stem}/{name}": archive.read(name) for name in archive.namelist()}


def hash_of(files: Mapping[str, bytes]) -> str:
    """Of files by their paths, in their order."""
    digest = hashlib.sha256()
    for name, data in files.items():
        digest.update(name.encode() + b"\0" + data)
    return digest.hexdigest()
