"""The options of `coopt fit` as one object: what was asked for, what is saved, and what makes two runs the same."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from coopt.data import display_name
from coopt.data.benchmarks.registry import is_name
from coopt.training.recipe import RECIPES, Recipe

# What decides which numbers are learned; the data set is compared by its hash.
_DECISIVE = ("backbone", "shots", "n_ctx", "csc", "position", "init", "recipe", "seed", "precision", "text_path")


@dataclass(frozen=True)
class FitSettings:
    """See `coopt fit --help`."""

    data: Path
    out: Path | None
    backbone: str
    shots: int | None
    n_ctx: int
    csc: bool
    position: str
    init: str | None
    recipe: Recipe
    seed: int
    test_fraction: float
    precision: str
    text_path: str
    device: str
    on_bad_image: str
    cache: bool
    download: bool
    overwrite: bool
    root: Path | None = None

    @property
    def where(self) -> str:
        """The data as it is found again from any folder: the name of a data set, or an absolute path."""
        return str(self.data if is_name(str(self.data), self.root) else self.data.absolute())

    @property
    def data_typed(self) -> str:
        """The data as words of a command line."""
        words = [str(self.data), *(() if self.root is None else ("--root", str(self.root)))]
        return shlex.join(map(display_name, words))

    def config(self, out: Path) -> dict[str, Any]:
        """A configuration file's content that repeats the run into `out`."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values["data"], values["out"] = self.where, str(out.absolute())
        values["root"] = None if self.root is None else str(self.root.absolute())
        known = self.recipe.name if RECIPES.get(self.recipe.name) == self.recipe else self.recipe.to_dict()
        values["recipe"] = known
        # The run may be repeated where it was; what it may do to the machine is decided each time.
        for name in ("overwrite", "download"):
            del values[name]
        return {name.replace("_", "-"): value for name, value in values.items() if value is not None}

    def identity(self, dataset_hash: str) -> dict[str, Any]:
        """Equal for two runs that learn the same from the same data."""
        values: dict[str, Any] = {name: getattr(self, name) for name in _DECISIVE}
        values["recipe"] = self.recipe.to_dict()
        if self.init is not None:  # then its tokens decide
            del values["n_ctx"]
        return {**values, "images": dataset_hash}
