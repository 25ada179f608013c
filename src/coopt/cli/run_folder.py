"""The folder that `coopt fit` writes: whose run is in it, finished or not, and whether another may take its place."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from coopt.data.images import display_name
from coopt.errors import SavedFileError
from coopt.files import write_bytes, write_json
from coopt.locks import writing_folder

PROMPT, RESULT, CONFIG = "prompt.json", "result.json", "config.yaml"
CHECKPOINT, CHECKPOINT_RUN = "checkpoint.safetensors", "checkpoint.json"


class RunFolder:
    """Where a run keeps its checkpoint and leaves its result.

    Args:
        path: the folder; made when something is written.
        identity: what makes runs the same.
        overwrite: another run may be replaced.
    """

    def __init__(self, path: Path, identity: dict[str, Any], overwrite: bool) -> None:
        self.path, self.identity, self.overwrite = path, identity, overwrite

    @property
    def checkpoint(self) -> Path:
        """The state of training."""
        return self.path / CHECKPOINT

    def check(self) -> None:
        """Refuses to replace what another run left here; from now on to the end of the command no other run writes here.

        Raises:
            InUseError: another process writes here.
            SavedFileError: there is a prompt or a checkpoint of another run, or a file where the folder should be.
        """
        shown = display_name(self.path)
        if self.path.exists() and not self.path.is_dir():
            raise SavedFileError(f"'{shown}' is a file, expected a folder to save into. Choose another --out.")
        click.get_current_context().with_resource(writing_folder(self.path, "--out"))
        if self.overwrite:
            return
        for file, record, what in (
            (PROMPT, RESULT, "a prompt"),
            (CHECKPOINT, CHECKPOINT_RUN, "an unfinished run"),
        ):
            if not (self.path / file).exists():
                continue
            difference = self._difference(self.path / record)
            if difference:
                raise SavedFileError(
                    f"'{shown}' holds {what} with other settings ({difference}). Choose another folder with --out, "
                    "or add --overwrite to replace it."
                )

    def begin(self) -> int:
        """Notes whose checkpoint is going to lie here; returns the epochs that an unfinished run of the same kind did.

        Raises:
            SavedFileError: the folder cannot be written.
        """
        if self.checkpoint.exists() and self._difference(self.path / CHECKPOINT_RUN):
            self.checkpoint.unlink()  # only with --overwrite: `check` refuses it otherwise
        write_json(self.path / CHECKPOINT_RUN, {"identity": self.identity})
        return self.saved_epochs()

    def saved_epochs(self) -> int:
        """How many epochs the checkpoint holds; 0 when there is none."""
        from safetensors import SafetensorError, safe_open

        if not self.checkpoint.exists():
            return 0
        try:
            with safe_open(self.checkpoint, framework="np") as file:
                return int(json.loads(file.metadata()["coopt_checkpoint"])["epoch"])
        except (SafetensorError, OSError, KeyError, TypeError, ValueError):
            return 0  # going on from it will say what is wrong

    def finish(self, result: dict[str, Any], config: dict[str, Any]) -> None:
        """Writes the record beside the prompt that was saved here, and drops the checkpoint."""
        import yaml

        write_json(self.path / RESULT, {**result, "identity": self.identity})
        head = "# coopt fit --config THIS_FILE does this run again.\n"
        write_bytes(self.path / CONFIG, (head + yaml.safe_dump(config, sort_keys=False)).encode())
        self.checkpoint.unlink(missing_ok=True)
        (self.path / CHECKPOINT_RUN).unlink(missing_ok=True)

    def abandon(self) -> None:
        """Takes back the note of a run that has nothing to go on from."""
        if self.checkpoint.exists():
            return
        (self.path / CHECKPOINT_RUN).unlink(missing_ok=True)

    def _difference(self, record: Path) -> str:
        """What sets the recorded run apart from this one; empty when nothing does."""
        try:
            there = json.loads(record.read_text(encoding="utf-8"))["identity"]
            keys = [key for key in {**there, **self.identity} if there.get(key) != self.identity.get(key)]
            if "fingerprint" not in self.identity:  # not known before the backbone is loaded
                keys = [key for key in keys if key != "fingerprint"]
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return f"it has no readable {record.name}"
        return ", ".join(_phrase(key, there.get(key), self.identity.get(key)) for key in keys[:4])


def _phrase(key: str, there: Any, here: Any) -> str:
    if key == "images":
        return "other images"
    if key == "fingerprint":
        return "other weights of the backbone"
    if isinstance(there, dict) or isinstance(here, dict):
        there, here = there or {}, here or {}
        changed = [name for name in {**there, **here} if name != "name" and there.get(name) != here.get(name)]
        return ", ".join(f"{key} {name} {there.get(name)} there, {here.get(name)} now" for name in changed[:2])
    return f"{key.replace('_', '-')} {there} there, {here} now"
