"""Checkpoints of CoOp's reference implementation, read without running anything that is in them.

Layout: `<dir>/prompt_learner/model.pth.tar-<epoch>`, and beside it a text file `checkpoint` that names the latest.
The file pickles live objects next to the tensors; they are stubbed, and only `state_dict` is looked at.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from coopt.backbones import Backbone, load_backbone
from coopt.backbones.protocol import Precision
from coopt.errors import ParameterError, SavedFileError
from coopt.methods.cocoop import CoCoOp
from coopt.methods.coop import CoOp
from coopt.safe_pickle import load_tensors
from coopt.text.layout import Position
from coopt.wording import on_command_line, setting

META_NET = "meta_net."
_FILE = re.compile(r"model\.pth\.tar-(\d+)$|model-best\.pth\.tar$")


def is_reference_checkpoint(path: Path) -> bool:
    """True for a `model.pth.tar-N` file, its folder, or the folder that holds `prompt_learner/`."""
    if path.is_file():
        return _FILE.search(path.name) is not None
    return any(_FILE.search(file.name) for folder in (path, path / "prompt_learner") for file in _files(folder))


def _files(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def checkpoint_file(path: Path) -> Path:
    """The file to read: as named by `checkpoint`, otherwise the one of the last epoch."""
    if path.is_file():
        return path
    folder = path / "prompt_learner" if (path / "prompt_learner").is_dir() else path
    pointer = folder / "checkpoint"
    if pointer.is_file():
        named = folder / Path(pointer.read_text().strip().splitlines()[0]).name
        if named.is_file():
            return named
    files = [file for file in _files(folder) if _FILE.search(file.name)]
    return max(files, key=lambda file: int((_FILE.search(file.name) or [0, 0])[1] or 0))


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of the prompt learner by name (`ctx`, for CoCoOp also `meta_net.*`).

    Raises:
        SavedFileError: the file is damaged or holds no learned context.
    """
    file = checkpoint_file(path)
    content = load_tensors(file, stub=True)
    state = content.get("state_dict") if isinstance(content, dict) else None
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
    if "ctx" not in tensors or tensors["ctx"].ndim not in (2, 3):
        raise SavedFileError(
            f"{file} holds no learned context: expected a tensor 'ctx' of two or three dimensions in its 'state_dict'."
        )
    return tensors


def load_reference_checkpoint(
    path: Path,
    backbone: str | Backbone | None,
    class_names: Sequence[str] | None,
    device: str = "auto",
    download: bool = False,
    position: Position = "end",
    precision: Precision = "fp32",
) -> CoOp | CoCoOp:
    """A fitted CoOp, or CoCoOp where there is a meta-net, from a reference checkpoint.

    Args:
        path: the folder or file.
        backbone: what it was trained with; the checkpoint does not say.
        class_names: the classes in the order of training; the checkpoint does not say these either.
        device: see `coopt.load`.
        download: see `coopt.load`.
        position: where the class name stood; in CoCoOp always at the end.
        precision: see `coopt.CoOp`.

    Raises:
        ParameterError: `backbone` or `class_names` is missing, or CoCoOp's class name is not at the end.
        SavedFileError: the file is damaged, or does not fit the backbone or the classes.
    """
    if backbone is None or class_names is None:
        raise ParameterError(
            f"{path} is a checkpoint of the reference implementation, which names neither its backbone nor its classes. "
            + (
                "Give both: --backbone, and --classes (`coopt eval` takes the classes from the data)."
                if on_command_line()
                else "Give both: backbone='openai:RN50.pt' and class_names=[...]."
            )
        )
    tensors = read_state(path)
    context = tensors["ctx"].float()
    meta_net = {name: tensor.float() for name, tensor in tensors.items() if name.startswith(META_NET)}
    if meta_net and position != "end":
        raise ParameterError(
            f"{path} is a checkpoint of CoCoOp, whose class names stand at the end. Leave out "
            f"{setting('position', position)}."
        )
    found = load_backbone(backbone, device, download=download)
    options: dict[str, Any] = {
        "n_ctx": context.shape[-2],
        "init": None,
        "recipe": "paper",
        "precision": precision,
        "class_names": list(class_names),
        "device": device,
    }
    estimator: CoOp | CoCoOp
    if meta_net:
        estimator = CoCoOp(found, **options)
    else:
        estimator = CoOp(found, csc=context.ndim == 3, position=position, **options)
    estimator.recipe_ = estimator.recipes["paper"]
    estimator._set_classes(found, class_names, named=True)
    state = {"context": context, **meta_net}
    try:
        estimator._check_state(state)
    except KeyError as error:
        raise SavedFileError(f"{path} is damaged: its meta-net lacks the tensor {error}.") from error
    except SavedFileError as error:
        raise SavedFileError(
            f"{path} does not fit {found.name} with {len(class_names)} classes. {error} Give the backbone and the "
            "classes it was trained with."
        ) from error
    estimator._set_state(state)
    return estimator
