"""Checkpoints: the state of a training run in one file, so that a killed run goes on where it was, bit for bit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from coopt.errors import SavedFileError, TrainingError
from coopt.files import write_bytes


@dataclass(frozen=True)
class Checkpoint:
    """State after `epoch` complete epochs.

    Attributes:
        run: identifies what is trained on what (a hash); a checkpoint of another run is never gone on with.
        tensors: parameters and optimiser state by name.
        epoch: complete epochs.
        losses: the mean loss of each complete epoch.
        more: what else there is to know, as JSON has it.
    """

    run: str
    tensors: dict[str, Tensor]
    epoch: int
    losses: list[float]
    more: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Writes the checkpoint in one step: a reader sees the old one or this one."""
        state = json.dumps(
            {"run": self.run, "epoch": self.epoch, "losses": self.losses, **({"more": self.more} if self.more else {})}
        )
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        write_bytes(path, save(tensors, metadata={"coopt_checkpoint": state}))

    @classmethod
    def load(cls, path: Path, run: str) -> Checkpoint | None:
        """The checkpoint at `path`; None when there is none.

        Raises:
            TrainingError: it belongs to another run.
            SavedFileError: it is damaged.
        """
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                state = json.loads(file.metadata()["coopt_checkpoint"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
            checkpoint = cls(state["run"], tensors, state["epoch"], state["losses"], state.get("more", {}))
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise SavedFileError(
                f"{path} is not a readable checkpoint ({error}). Delete it to start the run from the beginning."
            ) from error
        if checkpoint.run != run:
            raise TrainingError(
                f"{path} is a checkpoint of another run: other images, settings, backbone or seed than now. "
                "Choose another output folder, or delete the checkpoint to start from the beginning."
            )
        return checkpoint
