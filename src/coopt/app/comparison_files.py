"""What a comparison leaves in a folder: the JSON, which an interrupted one goes on from, the table and the figure."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from coopt.app.cross_validation import ComparedMethod
from coopt.app.run_folder import COMPARISON, PROMPT, refuse_foreign
from coopt.data import display_name
from coopt.errors import SavedFileError
from coopt.evaluation.job import jsonable
from coopt.files import write_bytes, write_json
from coopt.wording import called, setting

if TYPE_CHECKING:
    from coopt.report.comparison import Point

TABLE, FIGURE = "comparison.md", "comparison.png"


class ComparisonFolder:
    """Where a comparison is kept: every method as soon as it is done.

    Args:
        path: the folder, made when something is written; None: nothing is kept.
        overwrite: another comparison may be replaced.
        images: the folder that is learned from, if it is one.

    Raises:
        SavedFileError: it holds other files than coopt's.
    """

    def __init__(self, path: Path | None, overwrite: bool, images: Path | None = None) -> None:
        self.path, self.overwrite = path, overwrite
        self._identity: dict[str, Any] = {}
        self._done: dict[str, ComparedMethod] = {}
        if path is not None:
            refuse_foreign(path, (COMPARISON, PROMPT), images)

    def begin(self, identity: Mapping[str, Any]) -> None:
        """Takes over what an earlier comparison of the same kind has done.

        Args:
            identity: what makes two comparisons the same, but for their methods.

        Raises:
            SavedFileError: there is a comparison of another kind, and it may not be replaced.
        """
        self._identity = jsonable(identity)
        if self.path is None or not (self.path / COMPARISON).exists():
            return
        try:
            there = json.loads((self.path / COMPARISON).read_text(encoding="utf-8"))
            known, methods = there["identity"], there["methods"]
            different = [name for name in {**known, **self._identity} if known.get(name) != self._identity.get(name)]
            lines = [ComparedMethod.from_dict(one) for one in methods]
            done = {key_of(one.method, one.parameters): one for one in lines if one.error is None}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            different, done = ["it is not whole"], {}
        if different and not self.overwrite:
            raise SavedFileError(
                f"'{display_name(self.path)}' holds a comparison with other settings ({', '.join(different[:4])}). Choose "
                f"another folder with {called('out')}, or add {setting('overwrite', True)} to replace it."
            )
        self._done = {} if different else done

    def done(self, method: str, parameters: Mapping[str, Any]) -> ComparedMethod | None:
        """A method that was compared before; None: it was not."""
        return self._done.get(key_of(method, parameters))

    def keep(self, line: ComparedMethod) -> None:
        """Keeps a method that was compared just now."""
        self._done[key_of(line.method, line.parameters)] = line
        self._write({"methods": [one.to_dict() for one in self._done.values()]})

    def finish(self, document: Mapping[str, Any], table: str, points: Sequence[Point]) -> None:
        """Writes what came of it all.

        Args:
            document: the result.
            table: the same for people, as Markdown.
            points: the methods in the figure.
        """
        if self.path is None:
            return
        from coopt.report.comparison import comparison_figure
        from coopt.report.figures import save_figure

        title = f"{document['data']}: {document['predicted']} images held out"
        write_bytes(self.path / TABLE, table.encode())
        save_figure(comparison_figure(points, title), self.path / Path(FIGURE).stem, formats=("png",))
        self._write(document)

    def _write(self, document: Mapping[str, Any]) -> None:
        if self.path is not None:
            write_json(self.path / COMPARISON, {**document, "identity": self._identity})


def key_of(method: str, parameters: Mapping[str, Any]) -> str:
    """Equal for the same method with the same parameters given."""
    return json.dumps([method, jsonable(parameters)], sort_keys=True)
