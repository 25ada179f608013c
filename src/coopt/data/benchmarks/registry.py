"""Names for data sets: the papers', and those that users or other packages register."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Literal

from coopt.data.benchmarks.cifar import CIFARS, load_cifar
from coopt.data.benchmarks.definitions import BENCHMARKS, find_benchmark
from coopt.data.benchmarks.loading import load_benchmark
from coopt.data.bundled import PREFIX as BUNDLED_PREFIX
from coopt.data.bundled import load_bundled
from coopt.data.file_names import display_name
from coopt.data.reading import read_dataset
from coopt.data.splits import ImageDataset
from coopt.errors import DataError, ParameterError

ROOT_VARIABLE = "COOPT_DATA_ROOT"
"""Names the folder of the data sets where no root is given."""
ENTRY_POINTS = "coopt.datasets"
"""Other packages name loaders in this group of entry points."""

Loader = Callable[[Path | None], ImageDataset]
"""Makes a data set; it gets the root when one is given."""


@dataclass(frozen=True)
class RegisteredDataset:
    """A data set that somebody has registered.

    Attributes:
        name: as people type it.
        loader: makes it.
        template: its hand-made prompt; None: the loader's.
    """

    name: str
    loader: Loader
    template: str | None = None

    def load(self, root: Path | None) -> ImageDataset:
        """The data set that the loader makes.

        Raises:
            DataError: the loader makes something else.
        """
        made = self.loader(root)
        if not isinstance(made, ImageDataset):
            raise DataError(
                f"The loader of the data set {self.name!r} made a {type(made).__name__}. Expected a coopt.ImageDataset."
            )
        return made if self.template is None else replace(made, template=self.template)


_registered: dict[str, RegisteredDataset] = {}


def register_dataset(name: str, loader: Loader | str | os.PathLike[str], *, prompt: str | None = None) -> None:
    """Gives a data set a name that `coopt.load_dataset` and every other part of coopt then knows.

    Args:
        name: letters, digits, "_" and "-". Registering a name again replaces it.
        loader: a function that gets the root (a path or None) and makes an `ImageDataset`, or where the data set lies:
            a folder, a ZIP archive or a CSV file for `coopt.load_dataset`.
        prompt: its hand-made prompt, such as "a photo of a {}, a type of bird.".

    Raises:
        ParameterError: the name is no name or belongs to one of the papers' data sets, or the prompt has no "{}".
    """
    if not re.fullmatch(r"\w[\w-]*", name):
        raise ParameterError(f"The name of a data set must be letters, digits, '_' and '-'. Got {name!r} instead.")
    taken = find_benchmark(name)
    if taken is not None:
        raise ParameterError(f"The name {name!r} belongs to {taken.title}. Choose another one.")
    if prompt is not None and prompt.count("{}") != 1:
        raise ParameterError(f"The prompt must hold '{{}}' exactly once, for the class name. Got {prompt!r} instead.")
    _registered[name] = RegisteredDataset(name, loader if callable(loader) else _loader_of(Path(loader)), prompt)


def registered_datasets() -> tuple[RegisteredDataset, ...]:
    """CIFAR, what other packages offer, and what `register_dataset` was told; sorted by name."""
    offered = {
        one.name: RegisteredDataset(one.name, partial(_load_offered, one)) for one in entry_points(group=ENTRY_POINTS)
    }
    built_in = {one.name: RegisteredDataset(one.name, partial(load_cifar, one), "a photo of a {}.") for one in CIFARS}
    return tuple(one for _, one in sorted({**built_in, **offered, **_registered}.items()))


def load_named(
    name: str, root: str | os.PathLike[str] | None, on_bad_image: Literal["fail", "skip"]
) -> ImageDataset | None:
    """The data set of a name; None when `name` is a path.

    What exists under that path comes before the names of data sets unless `root` says otherwise.

    Args:
        name: of a registered data set, or one of the papers'; or a path.
        root: where the papers' data sets lie; None: what the variable COOPT_DATA_ROOT names.
        on_bad_image: see `load_benchmark`.

    Raises:
        DataError: there is no such data set, its root is not known, or its files are not right.
    """
    if root is None and Path(name).exists():
        return None
    where = root if root is not None else os.environ.get(ROOT_VARIABLE) or None
    registered = next((one for one in registered_datasets() if one.name == name), None)
    if registered is not None:
        return registered.load(None if where is None else Path(where).expanduser())
    benchmark = find_benchmark(name)
    if benchmark is not None and where is not None:
        return load_benchmark(benchmark, Path(where).expanduser(), on_bad_image)
    if benchmark is not None:
        raise DataError(
            f"'{display_name(name)}' is no file or folder here. If {benchmark.title} is meant, say where it lies: with "
            f"root= (--root), or the variable {ROOT_VARIABLE}; its folder {benchmark.folder}/ is in there."
        )
    if root is not None and not Path(name).exists():
        names = known_names()
        close = get_close_matches(name.lower(), names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(map(repr, close))}?" if close else f"There are {', '.join(names)}."
        raise DataError(f"There is no data set '{display_name(name)}'. {hint}")
    return None


def known_names() -> list[str]:
    """All names of data sets, but for the bundled ones."""
    return [*(one.name for one in BENCHMARKS), *(one.name for one in registered_datasets())]


def is_name(name: str, root: str | os.PathLike[str] | None) -> bool:
    """Whether `coopt.load_dataset(name, root=root)` takes it for the name of a data set, not for a path."""
    if root is None and Path(name).exists():
        return False
    known = name.startswith(BUNDLED_PREFIX) or any(one.name == name for one in registered_datasets())
    return known or find_benchmark(name) is not None


def _load_offered(point: EntryPoint, root: Path | None) -> ImageDataset:
    return point.load()(root)  # imported no sooner: other packages may be slow, or broken


def _loader_of(path: Path) -> Loader:
    def load(root: Path | None) -> ImageDataset:
        made = load_bundled(str(path)) if str(path).startswith(BUNDLED_PREFIX) else read_dataset(path)
        if made is None:
            raise DataError(
                f"'{display_name(path)}' is not a folder, a ZIP archive or a CSV file: no data set can be read."
            )
        return made

    return load
