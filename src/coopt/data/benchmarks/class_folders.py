"""Data sets whose folders are their classes: DTD, EuroSAT, Food-101 and Caltech-101."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path

from coopt.data.benchmarks.split_file import Item, Parts, divide
from coopt.data.file_kinds import is_system_name
from coopt.data.file_names import display_name
from coopt.data.images import IMAGE_EXTENSIONS, unreadable
from coopt.errors import DataError

EUROSAT_NAMES = {
    "AnnualCrop": "Annual Crop Land",
    "HerbaceousVegetation": "Herbaceous Vegetation Land",
    "Highway": "Highway or Road",
    "Industrial": "Industrial Buildings",
    "Pasture": "Pasture Land",
    "PermanentCrop": "Permanent Crop Land",
    "Residential": "Residential Buildings",
    "SeaLake": "Sea or Lake",
}
CALTECH_NAMES = {"airplanes": "airplane", "Faces": "face", "Leopards": "leopard", "Motorbikes": "motorbike"}
CALTECH_LEFT_OUT = ("BACKGROUND_Google", "Faces_easy")


def visible_names(folder: Path, folders: bool) -> list[str]:
    """The names of a folder's sub-folders, or of its images, sorted; hidden ones are left out.

    Raises:
        DataError: the folder may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted(
                entry.name
                for entry in entries
                if not is_system_name(entry.name) and (entry.is_dir() if folders else is_image(entry.name))
            )
    except OSError as error:
        raise unreadable(folder, error) from error


def is_image(name: str) -> bool:
    """Whether a file's name ends as an image's does (without pathlib, which is slow on ImageNet's million)."""
    stem, dot, ending = name.rpartition(".")
    return bool(stem) and f"{dot}{ending}".lower() in IMAGE_EXTENSIONS


def folder_items(images: Path, names: Mapping[str, str] | None = None, left_out: Collection[str] = ()) -> list[Item]:
    """All images below the class folders, sorted by folder and name; a label is its folder's place.

    Args:
        images: the folder that holds the class folders.
        names: class names of folders that are not called like their class.
        left_out: folders that are no classes.

    Raises:
        DataError: there is no class folder, or one may not be read.
    """
    classes = [name for name in visible_names(images, folders=True) if name not in left_out]
    if not classes:
        raise DataError(f"'{display_name(images)}' has no class folders. Expected one folder of images per class.")
    names = names or {}
    return [
        Item(f"{folder}/{image}", label, names.get(folder, folder))
        for label, folder in enumerate(classes)
        for image in visible_names(images / folder, folders=False)
    ]


def fifty_twenty_thirty(items: list[Item]) -> Parts:
    """Half of each class for training, a fifth for validation, the rest for testing."""
    train, val, test = divide(items, (0.5, 0.2))
    return {"train": train, "val": val, "test": test}


def plain(folder: Path, images: Path) -> Parts:
    """DTD and Food-101: a folder is called like its class."""
    return fifty_twenty_thirty(folder_items(images))


def eurosat(folder: Path, images: Path) -> Parts:
    """EuroSAT: class names that say more than the folders'."""
    return fifty_twenty_thirty(folder_items(images, EUROSAT_NAMES))


def caltech(folder: Path, images: Path) -> Parts:
    """Caltech-101: without the background and the second set of faces."""
    return fifty_twenty_thirty(folder_items(images, CALTECH_NAMES, CALTECH_LEFT_OUT))
