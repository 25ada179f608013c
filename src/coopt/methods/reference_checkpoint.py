"""Checkpoints of CoOp's reference implementation, read without running anything that is in them.

Layout: `<dir>/prompt_learner/model.pth.tar-<epoch>`, and beside it a text file `checkpoint` that names the latest.
The file pickles live objects next to the tensors; they are stubbed, and only `state_dict` is looked at.
Other methods that grew out of the same code write other folders; they are recognised, and refused by name.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from coopt.backbones import Backbone, load_backbone
from coopt.backbones.file_formats import foreign_content
from coopt.errors import ParameterError, SavedFileError, SavedFileWarning
from coopt.methods.cocoop import CoCoOp
from coopt.methods.coop import CoOp
from coopt.runtime import Runtime
from coopt.safe_pickle import load_tensors
from coopt.text.layout import Position
from coopt.wording import on_command_line, setting

META_NET = "meta_net."
_FILE = re.compile(r"model\.pth\.tar-(\d+)$|model-best\.pth\.tar$")
_OWN_FOLDER = "prompt_learner"
_OTHER_FOLDERS = {"MultiModalPromptLearner": "MaPLe", "VLPromptLearner": "PromptSRC or IVLP"}
# Parts of tensors' names that only other methods have.
_OTHER_TENSORS = {"compound_prompt": "MaPLe", "VPT": "PromptSRC or IVLP"}
# The frozen embeddings around the context, which depend on the classes.
_FROZEN = ("token_prefix", "token_suffix", "token_middle")


def is_reference_checkpoint(path: Path) -> bool:
    """True for a `model.pth.tar-N` file, its folder, or the folder that holds `prompt_learner/`.

    Also for those of other methods (such as `MultiModalPromptLearner/`), which `read_state` refuses by name.
    """
    if path.is_file():
        return _FILE.search(path.name) is not None
    return _checkpoint_folder(path) is not None


def _checkpoint_folder(path: Path) -> Path | None:
    """The folder that holds checkpoints: one of the known names within `path`, or `path` itself."""
    folders = (*(path / name for name in (_OWN_FOLDER, *_OTHER_FOLDERS)), path)
    return next((folder for folder in folders if _checkpoints(folder)), None)


def _checkpoints(folder: Path) -> list[Path]:
    return [file for file in sorted(folder.iterdir()) if _FILE.search(file.name)] if folder.is_dir() else []


def checkpoint_file(path: Path) -> Path:
    """The file to read: as named by `checkpoint`, otherwise the one of the last epoch.

    Raises:
        SavedFileError: there is none.
    """
    if path.is_file():
        return path
    folder = _checkpoint_folder(path)
    if folder is None:
        raise SavedFileError(f"{path} holds no checkpoint of the reference implementation (model.pth.tar-N).")
    files = _checkpoints(folder)
    last = max(files, key=lambda file: int((_FILE.search(file.name) or [0, 0])[1] or 0))
    pointer = folder / "checkpoint"
    if not pointer.is_file():
        return last
    named, fault = _named_by(pointer)
    chosen = folder / named if named and (folder / named).is_file() else last
    if chosen is last and named and named != last.name:
        fault = f"names {named!r}, which is not there"
    if fault:
        warnings.warn(f"{pointer} {fault}. {chosen.name} is used.", SavedFileWarning, stacklevel=2)
    return chosen


def _named_by(pointer: Path) -> tuple[str, str]:
    """(the file name in a pointer, what is odd about the pointer); "" for nothing."""
    content = pointer.read_bytes()
    encoding, fault = "utf-8-sig", ""
    if content.startswith((b"\xff\xfe", b"\xfe\xff")):
        encoding, fault = "utf-16", "is written in UTF-16"
    text = content.decode(encoding, "replace")
    # Written on Windows too, and with the path of a machine that is not this one.
    name = re.split(r"[/\\]", text.partition("\n")[0].strip())[-1]
    return (name, fault) if _FILE.search(name) else ("", "names no checkpoint")


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of the prompt learner by name (`ctx`, for CoCoOp also `meta_net.*`).

    Raises:
        SavedFileError: the file is damaged, holds no learned context, or is of another method than CoOp and CoCoOp.
    """
    file = checkpoint_file(path)
    if what := foreign_content(file):
        raise SavedFileError(f"The checkpoint {file} {what}")
    content = load_tensors(file, stub=True)
    state = content.get("state_dict", content) if isinstance(content, dict) else None
    tensors = {k: v for k, v in state.items() if isinstance(v, Tensor)} if isinstance(state, dict) else {}
    tensors = {str(name).removeprefix("module.").removeprefix("prompt_learner."): v for name, v in tensors.items()}
    _refuse_other_methods(file, tensors)
    if "ctx" not in tensors or tensors["ctx"].ndim not in (2, 3):
        raise SavedFileError(
            f"{file} holds no learned context: expected a tensor 'ctx' of two or three dimensions in its 'state_dict'. "
            f"It has {_few(tensors)}."
        )
    for name, tensor in tensors.items():
        odd = int((~torch.isfinite(tensor)).sum()) if tensor.is_floating_point() else 0
        if odd and name not in _FROZEN:
            raise SavedFileError(
                f"{file} is not usable: {odd} of the {tensor.numel()} values of {name!r} are not finite. The training "
                "diverged; take the checkpoint of an earlier epoch."
            )
    others = [name for name in tensors if name not in ("ctx", *_FROZEN) and not name.startswith(META_NET)]
    if others:
        warnings.warn(
            f"{file} holds more than CoOp and CoCoOp learn: {_few(others)}. That is left out; if another method "
            "learned it, predictions are not those of that method.",
            SavedFileWarning,
            stacklevel=2,
        )
    return tensors


def _refuse_other_methods(file: Path, tensors: dict[str, Tensor]) -> None:
    methods = [method for part, method in _OTHER_TENSORS.items() if any(part in name for name in tensors)]
    method = next(iter(methods), _OTHER_FOLDERS.get(file.parent.name))
    context, prefix = tensors.get("ctx"), tensors.get("token_prefix")
    if method is None and context is not None and context.ndim == 3 and prefix is not None:
        method = "a method with several contexts per class (PLOT)" if len(prefix) != len(context) else None
    if method:
        raise SavedFileError(
            f"{file} is a checkpoint of {method}, not of CoOp or CoCoOp, and coopt reads checkpoints of these two. It "
            f"has {_few(tensors)}."
        )


def _few(names: Sequence[str] | dict[str, Any]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "") or "no tensors"


def load_reference_checkpoint(
    path: Path,
    backbone: str | Backbone | None,
    class_names: Sequence[str] | None,
    download: bool = False,
    position: Position = "end",
    runtime: Runtime | None = None,
) -> CoOp | CoCoOp:
    """A fitted CoOp, or CoCoOp where there is a meta-net, from a reference checkpoint.

    Args:
        path: the folder or file.
        backbone: what it was trained with; the checkpoint does not say.
        class_names: the classes in the order of training; the checkpoint does not say these either.
        download: see `coopt.load`.
        position: where the class name stood; in CoCoOp always at the end.
        runtime: see `coopt.load`.

    Raises:
        ParameterError: `backbone` or `class_names` is missing, or CoCoOp's class name is not at the end.
        SavedFileError: the file is damaged, or does not fit the backbone or the classes.
    """
    tensors = read_state(path)
    if backbone is None or class_names is None:
        both = (
            "--backbone and --classes (`coopt eval` takes the classes from the data)"
            if on_command_line()
            else "backbone='openai:RN50.pt' and class_names=[...]"
        )
        raise ParameterError(
            f"{path} is a checkpoint of the reference implementation, which names neither its backbone nor its classes. "
            f"Give both: {both}."
        )
    context = tensors["ctx"].float()
    meta_net = {name: tensor.float() for name, tensor in tensors.items() if name.startswith(META_NET)}
    if meta_net and position != "end":
        raise ParameterError(
            f"{path} is a checkpoint of CoCoOp, whose class names stand at the end. Leave out "
            f"{setting('position', position)}."
        )
    runtime = Runtime() if runtime is None else runtime
    frozen_clip = load_backbone(backbone, runtime.device, download=download)
    options: dict[str, Any] = {
        "n_ctx": context.shape[-2],
        "init": None,
        "recipe": "paper",
        "class_names": list(class_names),
        "runtime": runtime,
    }
    estimator: CoOp | CoCoOp
    if meta_net:
        estimator = CoCoOp(frozen_clip, **options)
    else:
        estimator = CoOp(frozen_clip, csc=context.ndim == 3, position=position, **options)
    estimator.recipe_ = estimator.recipes["paper"]
    estimator._set_classes(frozen_clip, class_names, named=True)
    state = {"context": context, **meta_net}
    try:
        estimator._check_state(state)
    except KeyError as error:
        raise SavedFileError(f"{path} is damaged: its meta-net lacks the tensor {error}.") from error
    except SavedFileError as error:
        raise SavedFileError(
            f"{path} does not fit {frozen_clip.name} with {len(class_names)} classes. {error} Give the backbone and the "
            "classes it was trained with."
        ) from error
    estimator._set_state(state)
    return estimator
