"""What is in a weights file: one state dict under plain names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor

from coopt.backbones.file_formats import weights_format
from coopt.errors import BackboneError, SavedFileError
from coopt.safe_pickle import Stub, load_tensors

# All three follow from the shapes of the weights.
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")


def read_weights(path: Path) -> dict[str, Tensor]:
    """The state dict in a file: safetensors, a torch file, a training checkpoint, or OpenAI's TorchScript archive.

    OpenAI's archives keep the three numbers of `NOT_WEIGHTS` beside the weights; they are returned too.

    Raises:
        WeightsNotFoundError: no such file.
        BackboneError: the file is damaged, or holds no weights.
        UnsafePickleError: its pickle asks for something other than tensors; nothing of it was run.
    """
    content = _read_safetensors(path) if weights_format(path) == "safetensors" else _read_torch(path)
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if isinstance(content, Stub):
        content = _script_weights(content)
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise BackboneError(f"{path} holds no weights: expected a state dict, got {type(content).__name__}.")
    odd = [key for key, value in content.items() if not isinstance(value, Tensor)]
    if odd:
        raise BackboneError(f"{path} is not a state dict: {odd[0]!r} is not a tensor. Save model.state_dict() alone.")
    if all(key.startswith("module.") for key in content):  # saved from DistributedDataParallel
        content = {key.removeprefix("module."): value for key, value in content.items()}
    return content


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise BackboneError(
            f"The weights {path} are damaged or cut short ({error}). Delete the file and fetch it again."
        ) from error


def _read_torch(path: Path) -> Any:
    try:
        # A TorchScript archive names its modules' generated classes: they are of no interest, their tensors are.
        return load_tensors(path, stub=("__torch__",))
    except SavedFileError as error:
        if type(error) is not SavedFileError:  # unsafe pickles keep their own type
            raise
        raise BackboneError(f"The weights could not be read. {error}") from error


def _script_weights(root: Stub) -> dict[str, Tensor]:
    """Names and tensors of a TorchScript module: parameters and buffers are attributes, submodules nest."""
    weights: dict[str, Tensor] = {}
    pending: list[tuple[str, Stub, frozenset[int]]] = [("", root, frozenset())]
    while pending:
        prefix, module, above = pending.pop()
        for key, value in (module.state if isinstance(module.state, dict) else {}).items():
            if isinstance(value, Tensor) and key != "attn_mask":  # the model makes its own
                weights[f"{prefix}{key}"] = value
            elif isinstance(value, Stub) and id(value) not in above:
                pending.append((f"{prefix}{key}.", value, above | {id(value)}))
    return weights
