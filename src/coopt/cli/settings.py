"""The options of `coopt fit` as one object: what was asked for, what is saved, and what makes two runs the same."""

from __future__ import annotations

import shlex
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import yaml

from coopt.cli.options import AS_USUAL, DataReading
from coopt.data import display_name
from coopt.data.benchmarks.registry import is_name
from coopt.errors import ParameterError
from coopt.methods.base import LOCAL_PARAMETERS, ClipClassifier
from coopt.methods.saving import METHODS

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
    reading: DataReading = AS_USUAL

    def estimator(self, **local: Any) -> ClipClassifier:
        """The method with its parameters, not fitted yet.

        Args:
            local: backbone, classes and what else belongs to this machine; what the method does not know is left out.

        Raises:
            ParameterError: an option or a parameter that the method does not have, or a value that it does not take.
        """
        known = METHODS[self.method]().get_params(deep=False)
        for name, usual in _USUAL.items():
            if name not in known and getattr(self, name) != usual:
                raise ParameterError(
                    f"The method {self.method!r} has no --{name.replace('_', '-')}. Leave it out, or choose another method."
                )
        options = {name: getattr(self, name) for name in (*_USUAL, "seed") if name in known}
        local = {name: value for name, value in local.items() if name in known}
        found: ClipClassifier = METHODS[self.method](**options | self._others(known) | local)
        found._check_parameters()
        return found

    def _others(self, known: dict[str, Any]) -> dict[str, Any]:
        """The parameters of `--set`."""
        free = [name for name in known if name not in LOCAL_PARAMETERS and not hasattr(self, name)]
        others = {}
        for text in self.set:
            name, equals, value = text.partition("=")
            if not equals or name not in free:
                raise ParameterError(
                    f"--set takes NAME=VALUE with a parameter of {self.method!r} that has no option of its own "
                    f"({', '.join(free) or 'none'}). Got {text!r} instead."
                )
            others[name] = yaml.safe_load(value)
        return others

    @property
    def where(self) -> str:
        """The data as it is found again from any folder: the name of a data set, or an absolute path."""
        return str(self.data if is_name(str(self.data), self.root) else self.data.absolute())

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
        values["set"] = list(self.set) or None
        # The run may be repeated where it was; what it may do to the machine is decided each time.
        for name in ("overwrite", "download", "reading"):
            del values[name]
        values |= self.reading.config()
        return {name.replace("_", "-"): value for name, value in values.items() if value is not None}

    def identity(self, dataset_hash: str) -> dict[str, Any]:
        """Equal for two runs that learn the same from the same data."""
        decisive = {"method": self.method, "backbone": self.backbone, "shots": self.shots}
        if self.reading.value_range is not None:
            decisive["value_range"] = list(self.reading.value_range)
        return {**decisive, **self.estimator().parameters, "images": dataset_hash}
