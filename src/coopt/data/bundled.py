"""The small data sets that come with the package: real artwork in composed scenes, small enough for a minute's demo.

Each has train, val and test parts in one art style, and more test parts of the same classes in other styles.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from difflib import get_close_matches
from importlib import resources
from pathlib import Path

from coopt.data.archives import is_folder
from coopt.data.finding import find_images
from coopt.data.splits import ImageDataset, Split
from coopt.errors import DataError

PREFIX = "bundled:"
"""What stands before the name where a data set may also be a path: "bundled:backgrounds"."""


@dataclass(frozen=True)
class BundledDataset:
    """One bundled data set, not read yet.

    Attributes:
        name: as `load_bundled` takes it.
        description: what its classes are, in a few words.
        class_names: in the order of the class indices.
        template: its hand-made prompt, written before any result was seen.
        style: the art style of its train, val and test parts.
        shifted: art styles that it has another test part in.
        archive: the ZIP archive of its images, PART/CLASS/NUMBER.png.
    """

    name: str
    description: str
    class_names: tuple[str, ...]
    template: str
    style: str
    shifted: tuple[str, ...]
    archive: Path

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
        folders = [self.archive / part / name for name in self.class_names]
        try:
            missing = next((folder for folder in folders if not is_folder(folder)), None)
        except DataError as error:
            raise DataError(f"The bundled data set {self.name!r} is damaged: {error} Reinstall coopt.") from error
        if missing is not None:
            raise DataError(
                f"The bundled data set {self.name!r} is not complete: {missing} does not exist. Reinstall coopt."
            )
        labelled = [
            (path, name) for name, folder in zip(self.class_names, folders, strict=True) for path in find_images(folder)
        ]
        return Split(tuple(path for path, _ in labelled), tuple(name for _, name in labelled))


def bundled_datasets() -> tuple[BundledDataset, ...]:
    """All bundled data sets, in the order in which tables show them.

    Raises:
        DataError: the installation lacks them.
    """
    return _read(Path(str(resources.files("coopt") / "bundled" / "data")))


def find_bundled(name: str) -> BundledDataset:
    """The bundled data set of that name, with or without "bundled:" before it.

    Raises:
        DataError: there is none.
    """
    datasets = {dataset.name: dataset for dataset in bundled_datasets()}
    name = name.removeprefix(PREFIX)
    if name in datasets:
        return datasets[name]
    close = get_close_matches(name.lower(), datasets, n=3, cutoff=0.5)
    hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
    raise DataError(f"There is no bundled data set {name!r}. {hint}There are: {', '.join(datasets)}.")


def load_bundled(name: str, style: str | None = None) -> ImageDataset:
    """A bundled data set by its name.

    Args:
        name: with or without "bundled:" before it; `bundled_datasets()` lists them.
        style: the art style of the test part; None: that of the training images.

    Raises:
        DataError: there is no such data set or style.
    """
    return find_bundled(name).load(style)


@functools.cache
def _read(folder: Path) -> tuple[BundledDataset, ...]:
    try:
        described = json.loads((folder / "datasets.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"The bundled data sets are missing from this installation: {folder} is not readable ({error}). "
            "Reinstall coopt."
        ) from error
    return tuple(
        BundledDataset(
            name=one["name"],
            description=one["description"],
            class_names=tuple(one["classes"]),
            template=one["prompt"],
            style=one["source_style"],
            shifted=tuple(part.removeprefix("test-") for part in one["shifted"]),
            archive=folder / f"{one['name']}.zip",
        )
        for one in described
    )


__all__ = ["PREFIX", "BundledDataset", "bundled_datasets", "find_bundled", "load_bundled"]
