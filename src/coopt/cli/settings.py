"""The options of `coopt fit` as one object: what was asked for, what is saved, and what makes two runs the same."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import click

from coopt.cli.assignments import RECIPE, assignments, changed_recipe, recipe_changes
from coopt.cli.options import AS_USUAL, DataReading
from coopt.data import display_name
from coopt.data.benchmarks.registry import is_name
from coopt.data.bundled import PREFIX
from coopt.errors import ParameterError
from coopt.methods.base import LOCAL_PARAMETERS, ClipClassifier
from coopt.methods.linear_probe import LinearProbe
from coopt.methods.saving import METHODS
from coopt.training.recipe import Recipe
from coopt.wording import called, setting

# Options that not all methods have, and what they are when nobody asks for them.
_USUAL = {
    "n_ctx": None,
    "csc": False,
    "position": "end",
    "init": None,
    "recipe": "fast",
    "precision": "fp32",
    "text_path": "auto",
    "memory": "auto",
}

# Options that say how is learned and where it goes, not what is learned from.
_NOT_OF_DATA = {*_USUAL, "epochs", "lr", "set", "method", "out", "root", "overwrite"}


@dataclass(frozen=True)
class FitSettings:
    """See `coopt fit --help`; `set` holds the texts NAME=VALUE."""

    data: Path
    out: Path | None
    method: str
    backbone: str
    shots: int | None
    n_ctx: int | None
    csc: bool
    position: str
    init: str | None
    recipe: str | dict[str, Any]
    set: tuple[str, ...]
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
    memory: str = "auto"
    epochs: int | None = None
    lr: float | None = None
    reading: DataReading = AS_USUAL

    @property
    def full_recipe(self) -> str | dict[str, Any]:
        """`recipe` with what `epochs`, `lr` and `set` change of it.

        Raises:
            ParameterError: they contradict each other, or a recipe has no such field.
        """
        return changed_recipe(self.recipe, recipe_changes(assignments(self.set), self.epochs, self.lr))

    def estimator(self, **local: Any) -> ClipClassifier:
        """The method with its parameters, not fitted yet.

        Args:
            local: backbone, classes and what else belongs to this machine; what the method does not know is left out.

        Raises:
            ParameterError: an option or a parameter that the method does not have, or a value that it does not take.
        """
        known = METHODS[self.method]().get_params(deep=False)
        for name, usual in (*_USUAL.items(), ("epochs", None), ("lr", None)):
            has = name in known or (name in ("epochs", "lr") and RECIPE in known)
            if not has and getattr(self, name) != usual:
                raise ParameterError(
                    f"The method {self.method!r} has no {called(name)}. Leave it out, or choose another method."
                )
        options = {name: getattr(self, name) for name in (*_USUAL, "seed") if name in known}
        if RECIPE in known:
            options[RECIPE] = self.full_recipe
        local = {name: value for name, value in local.items() if name in known}
        found: ClipClassifier = METHODS[self.method](**options | self._others(known) | local)
        found._check_parameters()
        return found

    def _others(self, known: dict[str, Any]) -> dict[str, Any]:
        """The parameters of `--set`, those of the recipe left out."""
        given = assignments(self.set)
        own = {one.name for one in fields(self)}
        free = [name for name in known if name not in LOCAL_PARAMETERS and name not in own]
        for name, value in given.items():
            if name not in free and not (name.startswith(f"{RECIPE}.") and RECIPE in known):
                self._refuse(name, value, free, RECIPE in known)
        return {name: value for name, value in given.items() if name in free}

    def _refuse(self, name: str, value: Any, free: list[str], has_recipe: bool) -> None:
        if called(name).removeprefix("--").replace("-", "_") == name:
            raise ParameterError(f"{name} has an option of its own: write {setting(name, value)}.")
        recipe_fields = [f"{RECIPE}.{one.name}" for one in fields(Recipe) if one.name != "name"] if has_recipe else []
        there = [*free, *recipe_fields]
        meant = [f"{RECIPE}.{name}"] if f"{RECIPE}.{name}" in there else get_close_matches(name, there, n=2)
        hint = f"Did you mean {' or '.join(meant)}? " if meant else ""
        raise ParameterError(
            f"The method {self.method!r} has no parameter {name!r}. {hint}"
            f"--set takes {', '.join(there) or 'nothing for this method'}."
        )

    @property
    def where(self) -> str:
        """The data as it is found again from any folder: the name of a data set, or an absolute path."""
        return str(self.data if is_name(str(self.data), self.root) else self.data.absolute())

    @property
    def images(self) -> Path | None:
        """The folder that is learned from; None when the data are something else."""
        return self.data if self.data.is_dir() and not is_name(str(self.data), self.root) else None

    @property
    def toy(self) -> bool:
        """Whether the small bundled model is used on somebody's own data, which it was not made for."""
        return self.backbone == "bundled" and not str(self.data).startswith(PREFIX)

    def probe_command(self, out: Path) -> str:
        """The command that fits a linear probe from the same data into `out`."""
        from coopt.cli.fit import fit

        words = [f"coopt fit {self.data_typed}", setting("method", LinearProbe.method), setting("out", out)]
        usual = {str(one.name): one.to_info_dict()["default"] for one in fit.params if isinstance(one, click.Option)}
        for name in sorted(usual.keys() & {one.name for one in fields(self)} - _NOT_OF_DATA):
            value = getattr(self, name)
            if value not in (usual[name], None, ()):
                words += [setting(name, one) for one in (value if isinstance(value, tuple) else (value,))]
        return display_name(" ".join(words))

    @property
    def data_typed(self) -> str:
        """The data as words of a command line."""
        words = [str(self.data), *(() if self.root is None else ("--root", str(self.root))), *self.reading.typed]
        return shlex.join(map(display_name, words))

    def config(self, out: Path) -> dict[str, Any]:
        """A configuration file's content that repeats the run into `out`."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        values["data"], values["out"] = self.where, str(out.absolute())
        values["root"] = None if self.root is None else str(self.root.absolute())
        # What other options change of the recipe is written into it, where options that are typed later can change it again.
        values[RECIPE] = self.full_recipe
        values["set"] = [text for text in self.set if not text.strip().startswith(f"{RECIPE}.")] or None
        # The run may be repeated where it was; what it may do to the machine is decided each time.
        for name in ("overwrite", "download", "epochs", "lr", "reading"):
            del values[name]
        values |= self.reading.config()
        return {name.replace("_", "-"): value for name, value in values.items() if value is not None}

    def identity(self, dataset_hash: str) -> dict[str, Any]:
        """Equal for two runs that learn the same from the same data."""
        decisive = {"method": self.method, "backbone": self.backbone, "shots": self.shots}
        if self.reading.value_range is not None:
            decisive["value_range"] = list(self.reading.value_range)
        return {**decisive, **self.estimator().parameters, "images": dataset_hash}
