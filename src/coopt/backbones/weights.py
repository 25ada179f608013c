"""Where weights are on this machine, and what is in them. Touches the network only when told to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from torch import Tensor

from coopt.backbones.zoo import import_open_clip
from coopt.errors import BackboneError, SavedFileError, WeightsNotFoundError
from coopt.safe_pickle import Stub, load_tensors

# The names under which open_clip publishes weights, safest first.
HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
HUB_CONFIG = "open_clip_config.json"
HOW_TO_GET = (
    "To fetch it once with the network, add --download on the command line or "
    "load_backbone(..., download=True) in Python."
)
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
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise WeightsNotFoundError(f"The weights file {path.absolute()} {what}. Check the path in the backbone's name.")
    content = _read_safetensors(path) if path.suffix == ".safetensors" else _read_torch(path)
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


def locate_tag(name: str, settings: dict, download: bool) -> Path:
    """The file of one of open_clip's published weights.

    Args:
        name: for messages.
        settings: the tag's entry in open_clip's table ("hf_hub", "url" or "file").
        download: whether the network may be used when the file is not here.

    Raises:
        WeightsNotFoundError: it is not on this machine: says where it was looked for and how to get it.
        BackboneError: it could not be fetched.
    """
    if settings.get("file"):
        return Path(settings["file"]).expanduser()
    repo, _, file = str(settings.get("hf_hub", "")).rpartition("/")
    looked = []
    if repo:
        files = _hub_files(file)
        found = in_hub_cache(repo, files)
        if found:
            return found
        looked.append(f"{' or '.join(files)} of {repo} in the Hugging Face cache {hub_cache()}")
    url = settings.get("url", "")
    if url:
        # Where OpenAI's own package and open_clip put what they fetch from a plain address.
        kept = Path("~/.cache/clip").expanduser() / os.path.basename(url)  # noqa: PTH119 (of an address, not a path)
        if kept.is_file():
            return kept
        looked.append(str(kept))
    if download:
        return _download_tag(name, settings)
    raise WeightsNotFoundError(
        f"The weights of {name} are not on this machine. Looked for {'; and for '.join(looked)}. {HOW_TO_GET}"
    )


def locate_hub_model(repo: str, download: bool) -> tuple[Path, Path]:
    """(configuration, weights) of a model on the Hugging Face hub, as open_clip publishes them.

    Raises:
        WeightsNotFoundError: they are not on this machine: says where they were looked for and how to get them.
        BackboneError: they could not be fetched.
    """
    found = []
    for files in ((HUB_CONFIG,), HUB_WEIGHTS):
        path = in_hub_cache(repo, files)
        if path is None and download:
            path = _download_hub(repo, files)
        if path is None:
            raise WeightsNotFoundError(
                f"The model hf-hub:{repo} is not on this machine. Looked for {' or '.join(files)} in the Hugging Face "
                f"cache {hub_cache()}. {HOW_TO_GET}"
            )
        found.append(path)
    return found[0], found[1]


def hub_cache() -> Path:
    """The Hugging Face cache in use (HF_HUB_CACHE, HF_HOME or the default)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def in_hub_cache(repo: str, files: tuple[str, ...]) -> Path | None:
    """The first of these files of a hub repository that is in the cache. Never asks the network."""
    from huggingface_hub import try_to_load_from_cache

    for file in files:
        try:
            # The folder is read at every call and not at import, so that a changed setting counts.
            path = try_to_load_from_cache(repo, file, cache_dir=hub_cache())
        except ValueError as error:
            raise BackboneError(f"{repo!r} is not the name of a Hugging Face repository (ORG/NAME).") from error
        if isinstance(path, str):
            return Path(path)
    return None


def _hub_files(file: str) -> tuple[str, ...]:
    if not file:
        return HUB_WEIGHTS
    stem, suffix = os.path.splitext(file)  # noqa: PTH122 (a name on the hub, not a path here)
    return (f"{stem}.safetensors", file) if suffix in (".bin", ".pth") else (file,)


def _download_tag(name: str, settings: dict) -> Path:
    open_clip = import_open_clip()
    try:
        return Path(open_clip.download_pretrained(settings))
    except Exception as error:  # whatever the network does
        raise _download_failed(f"The weights of {name}", error) from error


def _download_hub(repo: str, files: tuple[str, ...]) -> Path:
    from huggingface_hub import hf_hub_download

    last: Exception | None = None
    for file in files:
        try:
            return Path(hf_hub_download(repo, file))
        except Exception as error:  # whatever the network does
            last = error
            if type(error).__name__ not in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
                break  # not merely another file name: the repository or the network is missing
    raise _download_failed(f"{' or '.join(files)} of hf-hub:{repo}", last) from last


def _download_failed(what: str, error: Exception | None) -> BackboneError:
    offline = os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")
    hint = "HF_HUB_OFFLINE is set: unset it to use the network." if offline else "Check the network and try again."
    return BackboneError(f"{what} could not be fetched: {str(error).strip().splitlines()[0] if error else ''}. {hint}")
