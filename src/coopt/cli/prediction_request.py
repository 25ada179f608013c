"""What `coopt predict` was asked for. Nothing heavy is imported: a run that is complete is found before."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import click

from coopt.cli.placing import Placement
from coopt.cli.where import Where
from coopt.data.finding import iter_images
from coopt.data.image_lists import listed_images
from coopt.data.images import display_name
from coopt.data.text_files import decode_text, in_unicode, visible
from coopt.errors import DataError, ParameterError

Form = Literal["csv", "jsonl"]


@dataclass
class Request:
    """What `coopt predict` was asked for.

    Attributes:
        images: files, folders and globs; None: `listed` is taken.
        listed: a file that names images, one per line; "-": standard input.
        form: "csv", "jsonl", or None: for people.
        skip: leave out images that cannot be read.
        out: the file for the rows.
        min_confidence: an image whose most probable class is less probable gets none.
        placement: where images are copied or moved to.
        sheet: the file of the contact sheet.
        placed_before: of the images that `paths` has met, those that lie in the folders of classes already.
    """

    prompt: Path
    images: Sequence[str] | None
    listed: str | None
    topk: int
    form: Form | None
    class_names: Sequence[str] | None
    where: Where
    skip: bool
    cache: bool
    out: Path | None
    overwrite: bool
    min_confidence: float | None = None
    placement: Placement | None = None
    sheet: Path | None = None
    placed_before: int = field(default=0, init=False)

    def paths(self) -> Iterator[Path]:
        """The images, found as they are asked for; those that were placed before are left out.

        Raises:
            DataError: there are none, or the list cannot be read.
        """
        self.placed_before = 0
        placed = None if self.placement is None else self.placement.holds(self.names)
        for path in self._named():
            if placed is not None and placed(path):
                self.placed_before += 1
            else:
                yield path

    def _named(self) -> Iterator[Path]:
        if self.listed is None:
            yield from iter_images(list(self.images or ()))
            return
        shown = "on standard input" if self.listed == "-" else f"'{display_name(self.listed)}'"
        empty = True
        try:
            folder = None if self.listed == "-" else Path(self.listed).parent
            with click.open_file(self.listed, "rb") as lines:
                for path in listed_images(lines, display_name(self.listed), folder):
                    empty = False
                    yield path
        except OSError as error:
            raise DataError(f"The list of images {shown} cannot be read: {error.strerror or error}.") from error
        if empty:
            raise DataError(f"The list of images {shown} names none. Expected one path per line.")

    def count(self) -> int | None:
        """How many images there are; None when it can be told only by reading them all from standard input."""
        return None if self.listed == "-" else sum(1 for _ in self.paths())

    @property
    def names(self) -> tuple[str, ...]:
        """The classes to choose among; empty when the prompt cannot be read, which loading it will say."""
        saved = self._saved.get("class_names")
        return tuple(self.class_names or (saved if isinstance(saved, list) else ()))

    def settings(self) -> dict[str, Any]:
        """All that decides a row besides its image, ready for JSON; the device only rounds."""
        found: dict[str, Any] = {
            "prompt": self._prompt_digest(),
            "classes": list(self.names),
            "topk": min(self.topk, len(self.names) or self.topk),
            "form": self.form,
            "precision": self.where.precision or self._parameters.get("precision"),
            "value-range": None if self.where.value_range is None else list(self.where.value_range),
            "min-confidence": self.min_confidence,
        }
        # A saved prompt takes no other weights than its own; a reference checkpoint takes those that it is given.
        return found if self._saved else {**found, "backbone": self.where.backbone}

    @cached_property
    def _saved(self) -> dict[str, Any]:
        """What a saved prompt says of itself; empty for anything else."""
        file = self.prompt if self.prompt.suffix == ".json" else self.prompt / "prompt.json"
        try:
            found = json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
        except (OSError, ValueError):
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def _parameters(self) -> dict[str, Any]:
        found = self._saved.get("parameters")
        return found if isinstance(found, dict) else {}

    def _prompt_digest(self) -> str:
        """SHA-256 (hex) of what was learned, and how: not of when, or what accuracy it reached."""
        digest = hashlib.sha256()
        if self._saved:
            decisive = ("method", "parameters", "class_names", "backbone", "tensors_sha256")
            known = {name: self._saved.get(name) for name in decisive}
            # The precision is a setting of its own.
            known["parameters"] = {key: one for key, one in self._parameters.items() if key != "precision"}
            digest.update(json.dumps(known, sort_keys=True).encode())
            return digest.hexdigest()
        for file in _checkpoint_files(self.prompt):
            digest.update(os.fsencode(file.name) + b"\0" + file.read_bytes())
        return digest.hexdigest()


def _checkpoint_files(prompt: Path) -> list[Path]:
    """The files that a checkpoint of the reference implementation may be read from."""
    if prompt.is_file():
        return [prompt]
    found = (file for folder in (prompt, prompt / "prompt_learner") if folder.is_dir() for file in folder.iterdir())
    return sorted(file for file in found if file.is_file() and (file.name == "checkpoint" or ".pth.tar" in file.name))


def read_class_names(classes: str | None, file: Path | None) -> list[str] | None:
    """Class names of `--classes` or `--classes-file`; None when neither is given.

    Raises:
        ParameterError: both are given, or the file cannot be read.
    """
    if classes is not None and file is not None:
        raise ParameterError("--classes and --classes-file exclude each other: give one of them.")
    if file is not None:
        try:
            lines = in_unicode(decode_text(file.read_bytes())).splitlines()
        except OSError as error:
            raise ParameterError(
                f"The file of class names '{display_name(file)}' cannot be read: {error.strerror or error}."
            ) from error
    elif classes is not None:
        lines = classes.split(",")
    else:
        return None
    names = [name for line in lines if (name := visible(line))]
    if not names:
        where = "--classes" if file is None else f"The file of class names '{display_name(file)}'"
        raise ParameterError(f"{where} names no class. Expected at least two.")
    return names
