"""The images of a prediction and what decides their rows. Nothing heavy is imported: a run that is complete is found before."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import sys
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO

from coopt.app.placing import Placement
from coopt.app.requests import PredictRequest
from coopt.data.file_names import display_name
from coopt.data.finding import iter_images
from coopt.data.image_lists import listed_images
from coopt.errors import DataError, ParameterError


class PredictionInput:
    """What a request names.

    Attributes:
        placement: where images are copied or moved to.
        placed_before: of the images that `paths` has met, those that lie in the folders of classes already.

    Raises:
        ParameterError: the request contradicts itself.
    """

    def __init__(self, request: PredictRequest) -> None:
        _check(request)
        self.request = request
        folder = request.copy_to or request.move_to
        how = "copy" if request.copy_to is not None else "move"
        self.placement = None if folder is None else Placement(folder, how)
        self.placed_before = 0

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
        listed = self.request.from_list
        if listed is None:
            yield from iter_images(list(self.request.images or ()))
            return
        shown = "on standard input" if listed == "-" else f"'{display_name(listed)}'"
        empty = True
        try:
            folder = None if listed == "-" else Path(listed).parent
            with _opened(listed) as lines:
                for path in listed_images(lines, display_name(listed), folder):
                    empty = False
                    yield path
        except OSError as error:
            raise DataError(f"The list of images {shown} cannot be read: {error.strerror or error}.") from error
        if empty:
            raise DataError(f"The list of images {shown} names none. Expected one path per line.")

    def count(self) -> int | None:
        """How many images there are; None when it can be told only by reading them all from standard input."""
        return None if self.request.from_list == "-" else sum(1 for _ in self.paths())

    @property
    def names(self) -> tuple[str, ...]:
        """The classes to choose among; empty when the prompt cannot be read, which loading it will say."""
        saved = self._saved.get("class_names")
        return tuple(self.request.class_names or (saved if isinstance(saved, list) else ()))

    def settings(self) -> dict[str, Any]:
        """All that decides a row besides its image, ready for JSON; the device only rounds."""
        request = self.request
        settings: dict[str, Any] = {
            "prompt": self._prompt_digest(),
            "classes": list(self.names),
            "topk": min(request.topk, len(self.names) or request.topk),
            "form": request.form,
            "precision": request.precision or self._parameters.get("precision"),
            "value-range": None if request.value_range is None else list(request.value_range),
            "min-confidence": request.min_confidence,
        }
        # A saved prompt takes no other weights than its own; a reference checkpoint takes those that it is given.
        return settings if self._saved else {**settings, "backbone": request.backbone}

    @cached_property
    def _saved(self) -> dict[str, Any]:
        """What a saved prompt says of itself; empty for anything else."""
        prompt = self.request.prompt
        file = prompt if prompt.suffix == ".json" else prompt / "prompt.json"
        try:
            saved = json.loads(file.read_text(encoding="utf-8", errors="surrogateescape"))
        except (OSError, ValueError):
            return {}
        return saved if isinstance(saved, dict) else {}

    @property
    def _parameters(self) -> dict[str, Any]:
        parameters = self._saved.get("parameters")
        return parameters if isinstance(parameters, dict) else {}

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
        for file in _checkpoint_files(self.request.prompt):
            digest.update(os.fsencode(file.name) + b"\0" + file.read_bytes())
        return digest.hexdigest()


def _checkpoint_files(prompt: Path) -> list[Path]:
    """The files that a checkpoint of the reference implementation may be read from."""
    if prompt.is_file():
        return [prompt]
    files = (file for folder in (prompt, prompt / "prompt_learner") if folder.is_dir() for file in folder.iterdir())
    return sorted(file for file in files if file.is_file() and (file.name == "checkpoint" or ".pth.tar" in file.name))


def _opened(listed: str) -> contextlib.AbstractContextManager[BinaryIO]:
    return contextlib.nullcontext(sys.stdin.buffer) if listed == "-" else Path(listed).open("rb")


def _check(request: PredictRequest) -> None:
    if bool(request.images) == (request.from_list is not None):
        raise ParameterError("Give either images or from_list.")
    if request.copy_to is not None and request.move_to is not None:
        raise ParameterError("copy_to and move_to exclude each other: give one of them.")
    if request.topk < 1:
        raise ParameterError(f"topk must be an int >= 1. Got {request.topk!r} instead.")
    if request.min_confidence is not None and not 0 < request.min_confidence <= 1:
        raise ParameterError(f"min_confidence must be > 0 and <= 1. Got {request.min_confidence!r} instead.")
    if request.out is not None and request.form is None:
        raise ParameterError(
            f"'{display_name(request.out)}' does not say what to write: end it in .csv or .jsonl, or give form."
        )
