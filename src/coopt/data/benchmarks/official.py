"""Data sets with official lists: Oxford Pets, Flowers 102, FGVC Aircraft, Stanford Cars, SUN397 and UCF101."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from coopt.data.benchmarks.class_folders import fifty_twenty_thirty
from coopt.data.benchmarks.split_file import Item, Parts, divide
from coopt.data.file_names import display_name
from coopt.data.text_files import decode_text
from coopt.errors import DataError


def pets(folder: Path, images: Path) -> Parts:
    """Oxford Pets: "Abyssinian_100 1 1 1" names an image and its class; the breed is in the name."""

    def items(file: Path) -> list[Item]:
        return [
            Item(f"{name}.jpg", int(label) - 1, name.rpartition("_")[0].lower())
            for name, label in _rows(file, r"(\S+_\d+) (\d+) \d+ \d+", "Abyssinian_100 1 1 1")
        ]

    return _with_val(items(folder / "annotations/trainval.txt"), items(folder / "annotations/test.txt"))


def flowers(folder: Path, images: Path) -> Parts:
    """Flowers 102: the labels of image_00001.jpg and all after it in a MATLAB file, their names in a JSON file."""
    labels = np.atleast_1d(_matlab(folder / "imagelabels.mat", "labels"))
    file = folder / "cat_to_name.json"
    try:
        names = json.loads(decode_text(file.read_bytes()))
        items = [
            Item(f"image_{i:05}.jpg", int(label) - 1, str(names[str(int(label))]))
            for i, label in enumerate(labels.tolist(), start=1)
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"'{display_name(file)}' does not name the classes of imagelabels.mat ({type(error).__name__}: {error}). "
            'Expected {"21": "fire lily", ...}, one name per class number.'
        ) from error
    return fifty_twenty_thirty(items)


def aircraft(folder: Path, images: Path) -> Parts:
    """FGVC Aircraft: "1025794 707-320" names an image and its variant; the order of variants.txt is the label."""
    label = {name: i for i, name in enumerate(_lines(folder / "variants.txt"))}

    def items(part: str) -> list[Item]:
        file = folder / f"images_variant_{part}.txt"
        rows = _rows(file, r"(\d+) (.+)", "1025794 707-320")
        return [Item(f"{image}.jpg", _known(label, name, file, "variants.txt"), name) for image, name in rows]

    return {part: items(part) for part in ("train", "val", "test")}


def cars(folder: Path, images: Path) -> Parts:
    """Stanford Cars: MATLAB files; "Acura TL Sedan 2012" becomes "2012 Acura TL Sedan"."""
    names = [_year_first(str(name)) for name in np.atleast_1d(_matlab(folder / "devkit/cars_meta.mat", "class_names"))]

    def items(file: Path, images_in: str) -> list[Item]:
        rows = np.atleast_1d(_matlab(file, "annotations"))
        try:
            items = [(str(row["fname"]), int(row["class"]) - 1) for row in rows]
            return [Item(f"{images_in}/{image}", label, names[label]) for image, label in items]
        except (KeyError, ValueError, IndexError, TypeError) as error:
            raise DataError(
                f"'{display_name(file)}' does not hold annotations with fname and class for the {len(names)} classes "
                f"of cars_meta.mat ({type(error).__name__}: {error}). Fetch it again."
            ) from error

    return _with_val(
        items(folder / "devkit/cars_train_annos.mat", "cars_train"),
        items(folder / "cars_test_annos_withlabels.mat", "cars_test"),
    )


def sun(folder: Path, images: Path) -> Parts:
    """SUN397: "/a/apse/indoor/sun_x.jpg"; the class "/a/apse/indoor" is called "indoor apse"."""
    label = {name: i for i, name in enumerate(_lines(folder / "ClassName.txt"))}

    def items(file: Path) -> list[Item]:
        items: list[Item] = []
        for line in _lines(file):
            scene = str(PurePosixPath(line).parent)
            name = " ".join(reversed(PurePosixPath(scene).parts[2:]))
            items.append(Item(line.lstrip("/"), _known(label, scene, file, "ClassName.txt"), name))
        return items

    return _with_val(items(folder / "Training_01.txt"), items(folder / "Testing_01.txt"))


def ucf(folder: Path, images: Path) -> Parts:
    """UCF101: "ApplyEyeMakeup/v_x.avi" is a video; its middle frame is "Apply_Eye_Makeup/v_x.jpg"."""
    lists = folder / "ucfTrainTestlist"
    label = {name: int(i) - 1 for i, name in _rows(lists / "classInd.txt", r"(\d+) (\w+)", "1 ApplyEyeMakeup")}

    def items(file: Path) -> list[Item]:
        items: list[Item] = []
        for action, video in _rows(file, r"(\w+)/(\w+)\.avi(?: \d+)?", "ApplyEyeMakeup/v_ApplyEyeMakeup_g01_c01.avi"):
            name = re.sub(r"(?<!^)(?=[A-Z])", "_", action)
            items.append(Item(f"{name}/{video}.jpg", _known(label, action, file, "classInd.txt"), name))
        return items

    return _with_val(items(lists / "trainlist01.txt"), items(lists / "testlist01.txt"))


def _with_val(trainval: list[Item], test: list[Item]) -> Parts:
    """The official test part, and four fifths of each other class's images to learn from."""
    train, val = divide(trainval, (0.8,))
    return {"train": train, "val": val, "test": test}


def _year_first(name: str) -> str:
    rest, _, year = name.rpartition(" ")
    return f"{year} {rest}"


def _known(labels: dict[str, int], name: str, file: Path, listed_in: str) -> int:
    if name not in labels:
        raise DataError(
            f"'{display_name(file)}' names the class {name!r}, which is not in {listed_in}. Fetch both again."
        )
    return labels[name]


def _lines(file: Path) -> list[str]:
    """The lines of an official list that are neither blank nor comments."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"'{display_name(file)}' cannot be read: {getattr(error, 'strerror', None) or error}."
        ) from error
    entries = [line for line in lines if line and not line.startswith("#")]
    if not entries:
        raise DataError(f"'{display_name(file)}' is empty. Fetch it again.")
    return entries


def _rows(file: Path, pattern: str, example: str) -> Iterator[Any]:
    """The groups of a pattern that every line fulfils."""
    for line in _lines(file):
        match = re.fullmatch(pattern, line)
        if match is None:
            raise DataError(
                f"'{display_name(file)}' has the line '{display_name(line)}'. Expected such as '{example}'."
            )
        yield match.groups()


def _matlab(file: Path, variable: str) -> np.ndarray:
    from scipy.io import loadmat

    try:
        return loadmat(str(file), squeeze_me=True)[variable]
    except Exception as error:  # a damaged MATLAB file raises nearly anything
        raise DataError(
            f"'{display_name(file)}' is not a MATLAB file with '{variable}' ({type(error).__name__}: {error}). "
            "Fetch it again."
        ) from error
