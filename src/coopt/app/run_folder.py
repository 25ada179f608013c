"""The folder that a fit writes: whose run is in it, finished or not, and whether another may take its place."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from coopt.data.benchmarks.registry import is_name
from coopt.data.file_names import display_name
from coopt.errors import SavedFileError
from coopt.files import write_bytes, write_json
from coopt.methods.saving import CHECKPOINT_NAME as CHECKPOINT
from coopt.methods.saving import JSON_NAME as PROMPT
from coopt.methods.saving import RUN_NAME as CHECKPOINT_RUN
from coopt.wording import called, setting

RESULT, CONFIG, COMPARISON = "result.json", "config.yaml", "comparison.json"


class RunFolder:
    """Where a run keeps its checkpoint and leaves its result.

    Args:
        path: the folder; made when something is written.
        identity: what makes runs the same.
        overwrite: another run may be replaced.
        command: how the run is started, to say how an interrupted one goes on.
        images: the folder that is learned from, if it is one.
    """

    def __init__(
        self, path: Path, identity: dict[str, Any], overwrite: bool, command: str = "", images: Path | None = None
    ) -> None:
        self.path, self.identity, self.overwrite = path, identity, overwrite
        self.command, self.images = command, images

    @property
    def checkpoint(self) -> Path:
        """The state of training."""
        return self.path / CHECKPOINT

    def refuse_foreign(self) -> None:
        """Refuses a folder that is none of ours; see the function."""
        refuse_foreign(self.path, (PROMPT, CHECKPOINT, CHECKPOINT_RUN, COMPARISON), self.images)

    def check(self) -> None:
        """Refuses to replace what another run left here, and to mix with files that are not coopt's.

        Raises:
            SavedFileError: there is a prompt or a checkpoint of another run, a file where the folder should be, or a
                folder with other files or of the images themselves.
        """
        shown = display_name(self.path)
        self.refuse_foreign()
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
                    f"'{shown}' holds {what} with other settings ({difference}). Choose another folder with "
                    f"{called('out')}, or add {setting('overwrite', True)} to replace it."
                )

    def begin(self) -> int:
        """Notes whose checkpoint is going to lie here; returns the epochs that an unfinished run of the same kind did.

        Raises:
            SavedFileError: the folder cannot be written.
        """
        if self.checkpoint.exists() and self._difference(self.path / CHECKPOINT_RUN):
            self.checkpoint.unlink()  # only with --overwrite: `check` refuses it otherwise
        record = {"identity": self.identity, "command": self.command, "folder": str(Path.cwd())}
        write_json(self.path / CHECKPOINT_RUN, record)
        return self.saved_epochs()

    def saved_epochs(self) -> int:
        """How many epochs and steps of L-BFGS the checkpoint holds; 0 when there is none."""
        from safetensors import SafetensorError, safe_open

        if not self.checkpoint.exists():
            return 0
        try:
            with safe_open(self.checkpoint, framework="np") as file:
                state = json.loads(file.metadata()["coopt_checkpoint"])
            refined = state.get("more", {}).get("refined")
            # The first loss of L-BFGS is that of the place where it begins.
            return int(state["epoch"] if refined is None else state["more"]["epochs"] + len(refined["losses"]) - 1)
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


def refuse_foreign(path: Path, ours: Sequence[str], images: Path | None = None) -> None:
    """Refuses a folder to write into that is not empty and was not written by us, or that belongs to the images.

    Args:
        path: the folder.
        ours: files of which one is there when we wrote it.
        images: the folder that is learned from, if it is one.

    Raises:
        SavedFileError: it is refused.
    """
    shown = display_name(path)
    if path.exists() and not path.is_dir():
        raise SavedFileError(f"'{shown}' is a file, expected a folder to save into. Choose another {called('out')}.")
    if images is not None and path.resolve().is_relative_to(images.resolve()):
        other = path.name if path.resolve() != images.resolve() else f"coopt-{path.resolve().name}"
        raise SavedFileError(
            f"'{shown}' is inside of the folder of images '{display_name(images)}', and would be taken for a class the "
            f"next time. Choose a folder outside of it, such as {setting('out', str(beside(images, other)))}."
        )
    if not path.is_dir() or any((path / name).exists() for name in ours):
        return
    others = sorted(one.name for one in path.iterdir() if not one.name.startswith("."))
    if others:
        named = ", ".join(display_name(name) for name in others[:3]) + (", ..." if len(others) > 3 else "")
        raise SavedFileError(
            f"'{shown}' holds other files ({named}) and nothing that coopt wrote. Choose a new or an empty folder with "
            f"{called('out')}."
        )


def images_of(data: Path, root: Path | None) -> Path | None:
    """The folder that is learned from; None when the data are something else."""
    return data if data.is_dir() and not is_name(str(data), root) else None


def beside(images: Path, name: str) -> Path:
    """A folder of that name next to a folder of images."""
    return images.resolve().parent / name


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
