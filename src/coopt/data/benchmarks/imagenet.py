"""ImageNet and its four shifted variants: folders of classes, and `classnames.txt` that says what they show."""

from __future__ import annotations

import re
from pathlib import Path

from coopt.data.benchmarks.class_folders import visible_names
from coopt.data.benchmarks.split_file import Item, Parts
from coopt.data.file_names import display_name
from coopt.data.text_files import decode_text
from coopt.errors import DataError

CLASS_NAMES_FILE = "classnames.txt"


def imagenet(folder: Path, images: Path) -> Parts:
    """ImageNet: what others call its test part is the official validation part, which serves as both here too."""
    names = read_class_names(folder)
    train = _items(images / "train", names, prefix="train/")
    test = _items(images / "val", names, prefix="val/")
    if {item.name for item in train} != {item.name for item in test}:
        raise DataError(
            f"'{display_name(images)}' has {len({item.label for item in train})} class folders in train/ and "
            f"{len({item.label for item in test})} in val/. Expected the same folders in both."
        )
    return {"train": train, "val": test, "test": test}


def imagenet_v2(folder: Path, images: Path) -> Parts:
    """ImageNetV2: folders 0 to 999, in the order of `classnames.txt`."""
    names = list(read_class_names(folder).values())
    folders = sorted(_class_folders(images), key=lambda name: (len(name), name))
    wrong = [name for name in folders if not name.isdecimal() or int(name) >= len(names)]
    if wrong:
        raise DataError(
            f"'{display_name(images)}' has the folder '{display_name(wrong[0])}'. Expected folders from 0 to "
            f"{len(names) - 1}, as many as {CLASS_NAMES_FILE} has lines."
        )
    test = [
        Item(f"{name}/{image}", int(name), names[int(name)])
        for name in folders
        for image in visible_names(images / name, folders=False)
    ]
    return {"train": [], "val": [], "test": test}


def imagenet_variant(folder: Path, images: Path) -> Parts:
    """ImageNet-Sketch, -A and -R: the classes are those that have a folder; -A and -R have 200."""
    return {"train": [], "val": [], "test": _items(images, read_class_names(folder))}


def read_class_names(folder: Path) -> dict[str, str]:
    """WordNet ids to class names, in the order of the lines of `classnames.txt` ("n01440764 tench").

    The file is looked for in the data set's folder and in that of ImageNet beside it. A name that an earlier class has
    already ("missile" and "sunglasses" come twice) gets an underscore at its end: prompts are the same with it.

    Raises:
        DataError: the file is missing, or a line is not an id and a name.
    """
    candidates = [folder / CLASS_NAMES_FILE, folder.parent / "imagenet" / CLASS_NAMES_FILE]
    file = next((candidate for candidate in candidates if candidate.is_file()), None)
    if file is None:
        shown = " nor ".join(f"'{display_name(candidate)}'" for candidate in dict.fromkeys(candidates))
        raise DataError(f"There is no {shown}. Expected lines such as 'n01440764 tench', one for each class.")
    names: dict[str, str] = {}
    taken: set[str] = set()
    for number, line in enumerate(decode_text(file.read_bytes()).splitlines(), start=1):
        match = re.fullmatch(r"(n\d{8})\s+(\S.*)", line.strip())
        if match is None or match[1] in names:
            raise DataError(
                f"Line {number} of '{display_name(file)}' reads '{display_name(line)}'. Expected a WordNet id that was "
                "not named before and a class name, such as 'n01440764 tench'."
            )
        name = match[2]
        while name in taken:
            name += "_"
        taken.add(name)
        names[match[1]] = name
    return names


def _items(images: Path, names: dict[str, str], prefix: str = "") -> list[Item]:
    """All images below the folders of WordNet ids; a label is the place of the folder in sorted order."""
    folders = _class_folders(images)
    unknown = [folder for folder in folders if folder not in names]
    if unknown:
        raise DataError(
            f"'{display_name(images)}' has {len(unknown)} folders that {CLASS_NAMES_FILE} does not name: "
            f"'{display_name(unknown[0])}'. Expected WordNet ids such as 'n01440764'."
        )
    return [
        Item(f"{prefix}{folder}/{image}", label, names[folder])
        for label, folder in enumerate(folders)
        for image in visible_names(images / folder, folders=False)
    ]


def _class_folders(images: Path) -> list[str]:
    if not images.is_dir():
        raise DataError(f"There is no folder '{display_name(images)}'. Expected one folder of images per class in it.")
    folders = visible_names(images, folders=True)
    if not folders:
        flat = len(visible_names(images, folders=False))
        raise DataError(
            f"'{display_name(images)}' has no class folders ({flat} images lie in it directly). Expected one folder "
            "per class, such as n01440764/; sort the images into them."
        )
    return folders
