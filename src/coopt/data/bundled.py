"""The small data sets that come with the package: real artwork in composed scenes, small enough for a minute's demo.

Each has train, val and test parts in one art style, and more test parts of the same classes in other styles. Two more are
hard, and not among those that means are over: one merges all others, one has many classes, uneven counts and wrong labels.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, replace
from difflib import get_close_matches
from importlib import resources
from pathlib import Path
from typing import Any

from coopt.data.archives import is_folder
from coopt.data.finding import find_images
from coopt.data.splits import ImageDataset, Split
from coopt.errors import DataError

PREFIX = "bundled:"
"""What stands before the name where a data set may also be a path: "bundled:backgrounds"."""

_FOLDER = Path(str(resources.files("coopt") / "bundled" / "data"))


@dataclass(frozen=True)
class BundledDataset:
    """One bundled data set, not read yet.

    Attributes:
        name: as `load_bundled` takes it.
        description: what its classes are, in a few words.
        class_names: in the order of the class indices.
        template: its hand-made prompt, written before any result was seen (that of fleet: before any of learning).
        style: the art style of its train, val and test parts.
        shifted: art styles that it has another test part in.
        archive: the ZIP archive of its images, PART/CLASS/NUMBER.png; the folder of the archives where it has members.
        members: the data sets whose images it merges by the names of their classes; empty: it has images of its own.
        hard: it is one of the hard problems, see `hard_datasets`.
    """

    name: str
    description: str
    class_names: tuple[str, ...]
    template: str
    style: str
    shifted: tuple[str, ...]
    archive: Path
    members: tuple[BundledDataset, ...] = ()
    hard: bool = False

    @property
    def archives(self) -> tuple[Path, ...]:
        """The ZIP archives of its images."""
        return tuple(one.archive for one in self.members) or (self.archive,)

    def load(self, style: str | None = None) -> ImageDataset:
        """The data set with its train, val and test parts.

        Args:
            style: the art style of the test part; None: that of the training images.

        Raises:
            DataError: there is no test part in that style, or the installation lacks the images.
        """
        if style is not None and style not in (self.style, *self.shifted):
            known = ", ".join(map(repr, (self.style, *self.shifted)))
            raise DataError(f"The data set {self.name!r} has no test part in the style {style!r}, only in {known}.")
        shifted = style is not None and style != self.style
        return ImageDataset(
            name=f"{self.name} ({style})" if shifted else self.name,
            root=self.archive,
            class_names=self.class_names,
            train=self._part("train"),
            val=self._part("val"),
            test=self._part(f"test-{style}" if shifted else "test"),
            template=self.template,
        )

    def _part(self, part: str) -> Split:
        folders = [
            (one.archive / part / name, name)
            for name in self.class_names
            for one in self.members or (self,)
            if name in one.class_names
        ]
        try:
            missing = next((folder for folder, _ in folders if not is_folder(folder)), None)
        except DataError as error:
            raise DataError(f"The bundled data set {self.name!r} is damaged: {error} Reinstall coopt.") from error
        if missing is not None:
            raise DataError(
                f"The bundled data set {self.name!r} is not complete: {missing} does not exist. Reinstall coopt."
            )
        labelled = [(path, name) for folder, name in folders for path in find_images(folder)]
        return Split(tuple(path for path, _ in labelled), tuple(name for _, name in labelled))


def bundled_datasets() -> tuple[BundledDataset, ...]:
    """The bundled data sets that suites and means are over, in the order in which tables show them.

    Raises:
        DataError: the installation lacks them.
    """
    return _read(_FOLDER)


def hard_datasets() -> tuple[BundledDataset, ...]:
    """The hard problems beside them: all of them as one, and one of many similar classes with wrong labels.

    Raises:
        DataError: the installation lacks them.
    """
    return _read_hard(_FOLDER)


def find_bundled(name: str) -> BundledDataset:
    """The bundled data set of that name, with or without "bundled:" before it.

    Raises:
        DataError: there is none.
    """
    datasets = {dataset.name: dataset for dataset in (*bundled_datasets(), *hard_datasets())}
    name = name.removeprefix(PREFIX)
    if name in datasets:
        return datasets[name]
    close = get_close_matches(name.lower(), datasets, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise DataError(f"There is no bundled data set {name!r}. {hint}There are: {', '.join(datasets)}.")


def load_bundled(name: str, style: str | None = None) -> ImageDataset:
    """A bundled data set by its name.

    Args:
        name: with or without "bundled:" before it; `bundled_datasets()` and `hard_datasets()` list them.
        style: the art style of the test part; None: that of the training images.

    Raises:
        DataError: there is no such data set or style.
    """
    return find_bundled(name).load(style)


@functools.cache
def _read(folder: Path) -> tuple[BundledDataset, ...]:
    return tuple(_made(one, folder) for one in _described(folder / "datasets.json"))


@functools.cache
def _read_hard(folder: Path) -> tuple[BundledDataset, ...]:
    others = {one.name: one for one in _read(folder)}
    made = []
    for one in _described(folder / "hard.json"):
        members = tuple(others[name] for name in one.get("members", ()))
        dataset = replace(_made(one, folder), members=members, hard=True)
        made.append(replace(dataset, archive=folder) if members else dataset)
    return tuple(made)


def _described(file: Path) -> list[dict[str, Any]]:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"The bundled data sets are missing from this installation: {file} is not readable ({error}). "
            "Reinstall coopt."
        ) from error


def _made(described: dict[str, Any], folder: Path) -> BundledDataset:
    return BundledDataset(
        name=described["name"],
        description=described["description"],
        class_names=tuple(described["classes"]),
        template=described["prompt"],
        style=described["source_style"],
        shifted=tuple(part.removeprefix("test-") for part in described["shifted"]),
        archive=folder / f"{described['name']}.zip",
    )


__all__ = ["PREFIX", "BundledDataset", "bundled_datasets", "find_bundled", "hard_datasets", "load_bundled"]
