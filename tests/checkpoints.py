"""Checkpoints as CoOp's reference implementation writes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

GOLDEN = Path(__file__).parent / "golden"


class Schedule:
    """Stands for the live objects that are pickled next to the tensors."""


def save_checkpoint(folder: Path, learned: dict[str, Tensor]) -> Path:
    """Writes a checkpoint with these tensors of the prompt learner; returns `folder`."""
    width = learned["ctx"].shape[-1]
    frozen = {"token_prefix": torch.zeros(4, 1, width), "token_suffix": torch.zeros(4, 72, width)}
    content = {"state_dict": {**learned, **frozen}, "epoch": 10, "scheduler": Schedule(), "val_result": None}
    (folder / "prompt_learner").mkdir(parents=True, exist_ok=True)
    torch.save(content, folder / "prompt_learner" / "model.pth.tar-10")
    (folder / "prompt_learner" / "checkpoint").write_text("model.pth.tar-10\n")
    return folder


def recorded_cocoop() -> dict[str, Tensor]:
    """The prompt learner at the end of the recorded CoCoOp run."""
    recorded = np.load(GOLDEN / "cocoop_m4.npz")
    net = {key.replace("_final", ""): recorded[key] for key in recorded.files if key.startswith("meta_net_final")}
    return {key: torch.from_numpy(value) for key, value in {"ctx": recorded["ctx_per_epoch"][-1], **net}.items()}
