"""The file of a comparison: one JSON with all results so far and everything needed to do them again."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from coopt.errors import SavedFileError
from coopt.evaluation.runs import RunResult
from coopt.files import write_json

FORMAT = 2
SAVE_EVERY = 5.0
"""Seconds between writes: what is lost when a run is killed; Ctrl-C loses nothing."""


class ResultFile:
    """Results of the few-shot protocol in one JSON file, kept while they come.

    Args:
        path: the file; its folder is made when something is written.

    Attributes:
        earlier: what the file held before: results that need not be computed again.
        results: those of this run, in the order in which they came.

    Raises:
        SavedFileError: there is a file that holds something else.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.earlier = _read(path) if path.exists() else []
        self.results: list[RunResult] = []
        self._setup: dict[str, Any] = {}
        self._end: dict[str, Any] = {}
        self._saved_at = time.monotonic()

    def begin(self, setup: dict[str, Any]) -> None:
        """Says how the results are made (versions, backbone, data sets, recipe ...), and sees that they can be written.

        Raises:
            SavedFileError: the file cannot be written.
        """
        self._setup = setup
        self.save()

    def add(self, result: RunResult) -> None:
        """Adds a result; the file is written every few seconds."""
        self.results.append(result)
        if time.monotonic() - self._saved_at > SAVE_EVERY:
            self.save()

    def finish(self, end: dict[str, Any]) -> None:
        """Writes what there is to say at the end, and forgets earlier results that are not of this run."""
        self._end, self.earlier = end, []
        self.save()

    def save(self) -> None:
        """Writes the file.

        Raises:
            SavedFileError: it cannot be written.
        """
        write_json(self.path, self.document())
        self._saved_at = time.monotonic()

    def document(self) -> dict[str, Any]:
        """The file's content; until the end it holds the earlier results that this run has not come to yet, too."""
        done = {result.run for result in self.results}
        results = self.results + [result for result in self.earlier if result.run not in done]
        return {
            "format": FORMAT,
            "kind": "few-shot",
            "setup": self._setup,
            "results": [result.to_dict() for result in results],
            **self._end,
        }


def _read(path: Path) -> list[RunResult]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if document["kind"] != "few-shot" or document["format"] > FORMAT:
            raise ValueError(f"kind {document['kind']!r}, format {document['format']!r}")
        return [RunResult.from_dict(one) for one in document["results"]]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SavedFileError) as error:
        raise SavedFileError(
            f"{path} is not a file of results that this coopt can go on from ({error}). "
            "Move it away, or choose another folder."
        ) from error
