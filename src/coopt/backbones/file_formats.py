"""What a file or folder is that somebody calls weights: told by its content, before anything is loaded."""

from __future__ import annotations

import json
import re
import zipfile
from pathlib import Path
from typing import Literal

from coopt.backbones.caches import HUB_CONFIG
from coopt.errors import BackboneError, WeightsNotFoundError

WEIGHT_SUFFIXES = (".pt", ".pth", ".bin", ".safetensors", ".ckpt")

OPENAI_ON_HUB = {
    "clip-vit-base-patch32": "openclip:ViT-B-32/openai",
    "clip-vit-base-patch16": "openclip:ViT-B-16/openai",
    "clip-vit-large-patch14": "openclip:ViT-L-14/openai",
    "clip-vit-large-patch14-336": "openclip:ViT-L-14-336/openai",
}
"""What OpenAI's models are called in transformers' format, and the same weights in open_clip's."""

_TRANSFORMERS_KEY = re.compile(r"(^|\.)(text_model|vision_model)\.(encoder|embeddings)\.")
# Beginning of the content to what the file is, and what to do about it.
_FOREIGN = (
    (
        rb"version https://git-lfs\.github\.com/spec/",
        "is a pointer of git-lfs and not the file itself. Run `git lfs install` and `git lfs pull` in its folder",
    ),
    (rb"\s*(<!doctype html|<html|<\?xml|<head)", "is a web page. Fetch the file from its own address"),
    (rb"\x1f\x8b|BZh|\xfd7zXZ|7z\xbc\xaf|Rar!|\x28\xb5\x2f\xfd", "is a compressed archive. Unpack it first"),
    (rb"\x93NUMPY", "is a NumPy array and not weights. Save the model's state dict"),
    (rb"\x89HDF", "is an HDF5 file (Keras), which coopt does not read. Use the model's PyTorch weights"),
)
_TEXT = re.compile(rb"\s*[{\[]")


def weights_format(path: Path, of_transformers: bool = False) -> Literal["safetensors", "torch"]:
    """Which reader a weights file needs, by its content and not by its name.

    Args:
        path: the file.
        of_transformers: weights under the names of the package transformers are wanted, and not refused.

    Raises:
        WeightsNotFoundError: no such file, or a folder: says what is in it.
        BackboneError: the file is known to be something else; says what, and what to do.
    """
    if path.is_dir():
        raise WeightsNotFoundError(f"The weights file {path.absolute()} is a folder, not a file. {in_folder(path)}")
    if not path.is_file():
        raise WeightsNotFoundError(
            f"The weights file {path.absolute()} does not exist. Check the path in the backbone's name."
        )
    try:
        what = foreign_content(path)
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as error:
        raise BackboneError(f"The weights file {path} cannot be read: {error.strerror or error}.") from error
    # A number of eight bytes, the length of the JSON that follows: its first byte may be any.
    if not what and start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size:
        if not of_transformers and is_transformers(_safetensors_keys(path)):
            raise BackboneError(transformers_message(path))
        return "safetensors"
    if what or _TEXT.match(start):
        raise BackboneError(f"The weights file {path} {what or 'is text (JSON). Name the file with the weights.'}")
    if start.startswith((b"PK", b"\x80")) or path.suffix != ".safetensors":
        return "torch"
    return "safetensors"


def foreign_content(path: Path) -> str:
    """What a file is that is surely no file of tensors, and what to do ("is empty. ..."); "" for all others."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return "is empty. Delete it and fetch or save it again."
    if start[257:262] == b"ustar":
        return "is a tar archive. Unpack it first."
    return next((f"{what}." for pattern, what in _FOREIGN if re.match(pattern, start, re.IGNORECASE)), "")


def is_transformers(keys: list[str]) -> bool:
    """Whether weights have the names that the package transformers gives them."""
    return any(_TRANSFORMERS_KEY.search(key) for key in keys)


def transformers_message(path: Path) -> str:
    """What to say about a model in transformers' format that was named as one of another."""
    folder = path if path.is_dir() else path.parent
    return (
        f"{path} is a model in the format of the package transformers (config.json, text_model.*, vision_model.*): "
        f"write 'transformers:{folder}'."
    )


def in_folder(folder: Path) -> str:
    """What a folder holds that could be meant, and how to name it as a backbone; sentences."""
    if (folder / HUB_CONFIG).is_file():
        return f"It is a model in open_clip's layout: write 'openclip:local-dir:{folder}'."
    if _is_transformers_folder(folder):
        return transformers_message(folder)
    hub = re.fullmatch(r"models--(.+?)--(.+)", folder.name)
    if hub:
        layouts = [file for file in (HUB_CONFIG, "config.json") if any(folder.glob(f"snapshots/*/{file}"))]
        scheme = "transformers:" if layouts == ["config.json"] else "openclip:hf-hub:"
        return f"It is a model of the Hugging Face cache: write '{scheme}{hub[1]}/{hub[2]}'."
    if (folder / "prompt.json").is_file():
        return "It is a learned prompt, not a backbone: its prompt.json names the backbone it was learned with."
    files = sorted(path for path in folder.iterdir() if path.suffix in WEIGHT_SUFFIXES and path.is_file())
    if files:
        return f"It holds {', '.join(path.name for path in files[:5])}. {how_to_name(files[0])}"
    return (
        "It holds no model: expected a folder with weights and open_clip_config.json or config.json, or a weights file."
    )


def how_to_name(path: Path) -> str:
    """How to write a weights file as a backbone; sentences.

    Raises:
        BackboneError: it is no weights file; says what it is.
    """
    if weights_format(path) == "torch" and _is_script(path):
        return f"It is an archive like OpenAI's: write 'openai:{path}'."
    if path.suffix not in WEIGHT_SUFFIXES:
        return (
            f"Expected weights ({', '.join(WEIGHT_SUFFIXES)}) and a name for them, such as 'openai:/path/ViT-B-16.pt'."
        )
    return (
        f"Write 'openclip:MODEL/{as_path(path)}' with the weights' architecture (`coopt backbones` lists them), "
        f"or 'openai:{path}' for OpenAI's own weights."
    )


def looks_like_path(text: str) -> bool:
    """Whether a text is meant as a path, there or not."""
    return text.startswith((".", "/", "~")) or bool(re.search(r"[/\\]", text)) or text.endswith(WEIGHT_SUFFIXES)


def on_hub(address: str) -> str:
    """The name of a model on the Hugging Face hub; of OpenAI's, which lie there in another format, open_clip's name."""
    repo = "/".join(address.split("/")[:2])
    return of_openai(repo) or f"openclip:hf-hub:{repo}"


def of_openai(repo: str) -> str | None:
    """open_clip's name of a model that OpenAI published in transformers' format."""
    return OPENAI_ON_HUB.get(repo.rpartition("/")[2].lower())


def as_path(path: Path) -> str:
    """A path that cannot be taken for a tag."""
    return str(path) if path.is_absolute() or str(path).startswith("~") else f"./{path}"


def _is_transformers_folder(folder: Path) -> bool:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(config, dict) and bool({"model_type", "architectures", "transformers_version"} & set(config))


def _safetensors_keys(path: Path) -> list[str]:
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        if size > path.stat().st_size:
            return []
        try:
            return list(json.loads(file.read(size)))
        except ValueError:
            return []


def _is_script(path: Path) -> bool:
    """Whether a torch file is a TorchScript archive, as OpenAI's are."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.endswith("/constants.pkl") for name in archive.namelist())
    except (OSError, zipfile.BadZipFile):
        return False
