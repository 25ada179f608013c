"""What is in a weights file: one model's tensors under plain names, whatever they were saved in.

A checkpoint may keep several sets of weights. Of these the first is taken, in this order: `state_dict`,
`model_state_dict`, `model`, `module`, and then moving averages: `state_dict_ema`, `model_ema`, `ema_state_dict`, `ema`.
Where there are more, a warning says which one it is.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from coopt.backbones.file_formats import is_transformers, transformers_message, weights_format
from coopt.errors import BackboneError, SavedFileError, WeightsWarning
from coopt.safe_pickle import Stub, load_tensors

# All three follow from the shapes of the weights. OpenAI's own archives keep them beside the weights, and no others do.
NOT_WEIGHTS = ("input_resolution", "context_length", "vocab_size")

_MODEL_KEYS = ("state_dict", "model_state_dict", "model", "module")
_EMA_KEYS = ("state_dict_ema", "model_ema", "ema_state_dict", "ema")
# What no honest file of weights asks for: running commands and code. Nothing else is ever run either.
_ATTACKS = {
    "os", "posix", "nt", "subprocess", "commands", "pty", "shutil", "socket", "ctypes", "webbrowser", "sys", "runpy",
    "importlib",
}  # fmt: skip
_ATTACKS_BUILT_IN = {"eval", "exec", "execfile", "compile", "__import__", "open", "input", "breakpoint", "globals"}
# What torch.compile, FSDP and checkpointing put into names, wherever they wrap.
_WRAPPERS = re.compile(r"(?<![^.])(_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
# What stands before the image tower's name, or before the text tower's in transformers' format.
_PREFIX = re.compile(r"((?:[^.]+\.)*?)(visual|text_model|vision_model)\.")
_IS_EMA = re.compile(r"(^|[._])ema([._]|$)")


_SAVE_ALONE = "Save the one to be used to a file of its own."


@dataclass(frozen=True)
class Weights:
    """One model's weights.

    Attributes:
        state: name to tensor.
        run: the name of the training run, when open_clip's training saved them; otherwise "".
    """

    state: dict[str, Tensor]
    run: str = ""

    @property
    def of_openai(self) -> bool:
        """Whether they come from one of OpenAI's own archives."""
        return all(key in self.state for key in NOT_WEIGHTS)


def read_weights(path: Path) -> Weights:
    """The weights in a file: safetensors, a torch file, a training checkpoint, or OpenAI's TorchScript archive.

    What else a checkpoint holds (arguments, optimizer, schedules) is never run. Prefixes that all names of the model
    share ("module.", "clip.") are taken off. OpenAI's archives keep the three numbers of `NOT_WEIGHTS` beside the
    weights; they are returned too.

    Raises:
        WeightsNotFoundError: no such file.
        BackboneError: the file is damaged, holds no weights, several models, or weights of another kind.
        UnsafePickleError: its pickle asks for something that could only be an attack; nothing of it was run.
    """
    content = _read(path)
    run = ""
    if isinstance(content, dict) and {"epoch", "name", "state_dict"} <= set(content):
        run = str(content["name"])
    state = _one_model(_state_dict(content, path), path)
    if is_transformers(list(state)):
        raise BackboneError(transformers_message(path))
    _refuse_quantized(state, path)
    return Weights(state, run)


def read_parts(files: Sequence[Path]) -> dict[str, Tensor]:
    """One model's weights under the names of the package transformers, from files that each hold a part of them.

    Raises: as `read_weights` does.
    """
    state: dict[str, Tensor] = {}
    for path in files:
        state |= _state_dict(_read(path, of_transformers=True), path)
    state = _one_model(state, files[0])
    _refuse_quantized(state, files[0])
    return state


def _read(path: Path, of_transformers: bool = False) -> Any:
    return _read_safetensors(path) if weights_format(path, of_transformers) == "safetensors" else _read_torch(path)


def _refuse_quantized(state: dict[str, Tensor], path: Path) -> None:
    for name, tensor in state.items():
        if name.endswith((".weight", "proj")) and not tensor.is_floating_point():
            raise BackboneError(
                f"{path} holds quantized weights ({name!r} is {tensor.dtype}). Use the model's weights in 16 or 32 bits."
            )


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
        return load_tensors(path, stub=_harmless)
    except SavedFileError as error:
        if type(error) is not SavedFileError:  # unsafe pickles keep their own type
            raise
        raise BackboneError(f"The weights could not be read. {error}") from error


def _harmless(module: str, name: str) -> bool:
    """Whether a checkpoint may hold such an object beside its tensors: it becomes a stub; attacks are refused."""
    if module in ("builtins", "__builtin__", "io", "_io"):
        return name not in _ATTACKS_BUILT_IN
    return module.partition(".")[0] not in _ATTACKS


def _state_dict(content: Any, path: Path) -> dict[str, Tensor]:
    """The first set of weights within the content of a file, in the order of this file's head."""
    what = content.origin if isinstance(content, Stub) else type(content).__name__
    if isinstance(content, Stub):
        content = _module_weights(content)
    if not isinstance(content, dict) or not content or not all(isinstance(key, str) for key in content):
        raise BackboneError(f"{path} holds no weights: expected a state dict, got {what}.")
    sets = [key for key in (*_MODEL_KEYS, *_EMA_KEYS) if _holds_weights(content.get(key))]
    if not sets and not _is_state_dict(content):
        sets = [key for key, value in content.items() if _holds_weights(value)]
        if len(sets) > 1:
            raise BackboneError(f"{path} holds several sets of weights: {_few(sets)}. {_SAVE_ALONE}")
    if len(sets) > 1:
        warnings.warn(
            f"{path} holds several sets of weights: {_few(sets)}. {sets[0]!r} is used; for another one, save it to a "
            "file of its own.",
            WeightsWarning,
            stacklevel=2,
        )
    if sets:
        return _state_dict(content[sets[0]], path)
    return _only_tensors(content, path)


def _only_tensors(content: dict[str, Any], path: Path) -> dict[str, Tensor]:
    """A state dict without what was saved beside its tensors; refuses weights of a kind that is not read."""
    for key, value in content.items():
        if not isinstance(value, Tensor) and "." in key and not key.endswith("_extra_state"):
            what = value.origin if isinstance(value, Stub) else type(value).__name__
            raise BackboneError(f"{path} is not a state dict of tensors: {key!r} is a {what}. Save model.state_dict().")
    tensors = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        raise BackboneError(f"{path} is not a state dict: {_few(content)} hold no tensors. Save model.state_dict().")
    return tensors


def _is_state_dict(content: dict) -> bool:
    """Whether tensors stand here under names of weights, such as "visual.proj"."""
    return any(isinstance(value, Tensor) and isinstance(key, str) and "." in key for key, value in content.items())


def _holds_weights(value: Any, depth: int = 3) -> bool:
    """Whether a checkpoint's entry is a state dict, holds one, or is a whole model."""
    if isinstance(value, Stub):
        return bool(_module_weights(value))
    if not isinstance(value, dict):
        return False
    return _is_state_dict(value) or (depth > 0 and any(_holds_weights(part, depth - 1) for part in value.values()))


def _module_weights(root: Stub) -> dict[str, Tensor]:
    """Names and tensors of a module that was saved whole, by TorchScript or by pickle.

    In TorchScript, parameters, buffers and submodules are attributes; in a pickle, dictionaries of their own.
    """
    weights: dict[str, Tensor] = {}
    pending: list[tuple[str, Stub, frozenset[int]]] = [("", root, frozenset())]
    while pending:
        prefix, module, above = pending.pop()
        state = module.state if isinstance(module.state, dict) else {}
        parts = [state.get(name) for name in ("_parameters", "_buffers", "_modules")]
        entries = [part for part in parts if isinstance(part, dict)] if any(parts) else [state]
        made_anew = {"attn_mask", *(state.get("_non_persistent_buffers_set") or ())}
        for key, value in (item for part in entries for item in part.items()):
            if isinstance(value, Tensor) and key not in made_anew:
                weights[f"{prefix}{key}"] = value
            elif isinstance(value, Stub) and id(value) not in above:
                pending.append((f"{prefix}{key}.", value, above | {id(value)}))
    return weights


def _one_model(state: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The weights of the one model within a state dict, without the prefix that its names share."""
    state = {_WRAPPERS.sub("", key): value for key, value in state.items()}
    prefixes = sorted({match[1] for key in state if (match := _PREFIX.match(key))})
    if len(prefixes) > 1:
        used = [prefix for prefix in prefixes if not _IS_EMA.search(prefix)]
        if len(used) != 1:
            raise BackboneError(f"{path} holds several models: {_few(prefixes)}. {_SAVE_ALONE}")
        warnings.warn(
            f"{path} holds several models: {_few(prefixes)}. {used[0]!r} is used, not its moving average.",
            WeightsWarning,
            stacklevel=2,
        )
        averages = tuple(prefix for prefix in prefixes if prefix != used[0])
        state = {key: value for key, value in state.items() if not key.startswith(averages)}
        prefixes = used
    prefix = prefixes[0] if prefixes else _common_prefix(state)
    others = [key for key in state if not key.startswith(prefix)]
    if others:
        warnings.warn(
            f"{path} holds more than the model. Left out, because the names do not begin with {prefix!r}: {_few(others)}.",
            WeightsWarning,
            stacklevel=2,
        )
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _common_prefix(state: Iterable[str]) -> str:
    """The leading parts that all names share, up to a dot."""
    names = [key.split(".") for key in state]
    count = 0
    while all(len(name) > count + 1 and name[count] == names[0][count] for name in names):
        count += 1
    return "".join(f"{part}." for part in names[0][:count])


def _few(names: Iterable[str]) -> str:
    """The first of some names, as a list in words."""
    listed = [repr(name) for name in names]
    return ", ".join(listed[:5]) + (f" and {len(listed) - 5} more" if len(listed) > 5 else "")


def first_lines(error: Exception, lines: int = 3) -> str:
    """The beginning of a library's message, on one line: enough to see which weights do not fit."""
    kept = [line.strip() for line in str(error).splitlines() if line.strip()][:lines]
    return " ".join(line if len(line) < 200 else line[:200] + " ..." for line in kept)
