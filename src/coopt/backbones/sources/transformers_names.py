"""What "transformers:..." refers to, and what is wrong with it: found out before torch or transformers are imported.

Behind "transformers:" stands

    /path                          a folder with config.json, weights, tokenizer and image processor (also ./, ../, ~/)
    ORG/NAME                       the same from the Hugging Face hub, or from its cache on this machine
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from coopt.backbones.caches import HUB_CONFIG, VOCABULARIES, hub_cache, in_hub_cache
from coopt.backbones.file_formats import in_folder, weights_format
from coopt.backbones.source import how_to_get
from coopt.backbones.sources.transformers_config import CONFIG, Config, read_config, read_object
from coopt.backbones.sources.transformers_images import find_settings, image_settings
from coopt.backbones.zoo import require_transformers
from coopt.errors import BackboneError, WeightsNotFoundError

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
INDEX = ".index.json"


@dataclass(frozen=True)
class TransformersModel:
    """A model in the format of the package transformers, as far as its name and its folder tell.

    Attributes:
        name: as the user writes it.
        repo: on the Hugging Face hub; "" for a folder of the user's.
        folder: with all its files; None while they are not on this machine.
        config: its configuration.
        images: the arguments of its `Preprocessing`.
        weights: its files, all of which hold a part.
    """

    name: str
    repo: str = ""
    folder: Path | None = None
    config: Config | None = None
    images: dict[str, Any] = field(default_factory=dict)
    weights: tuple[Path, ...] = ()


def find_transformers(spec: str, download: bool = False) -> TransformersModel:
    """What follows "transformers:" in a backbone's name.

    Args:
        spec: see this file's head.
        download: whether a model of the hub may be missing on this machine.

    Raises:
        WeightsNotFoundError: there is no such folder, or something is missing in it; says what, and how to get it.
        UnsupportedBackboneError: the model is of a kind that coopt does not read.
        BackboneError: its files are damaged, or the package transformers is not installed.
    """
    name, path = f"transformers:{spec}", Path(spec).expanduser()
    if path.is_dir():
        return _in_folder(path, name)
    if path.is_file():
        raise BackboneError(f"{path} is a file and not a folder. Write 'transformers:{path.parent}'.")
    if not re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", spec):
        raise WeightsNotFoundError(
            f"The model folder {path.absolute()} does not exist. Check the path, or write transformers:ORG/NAME for a "
            "model of the Hugging Face hub."
        )
    config = in_hub_cache(spec, (CONFIG,))
    try:
        if config is None:
            other = in_hub_cache(spec, (HUB_CONFIG,))
            also = f" In open_clip's layout it is there: write 'openclip:hf-hub:{spec}'." if other else ""
            raise WeightsNotFoundError(
                f"The model {spec} is not on this machine: looked for its {CONFIG} in the Hugging Face cache "
                f"{hub_cache()}, and for the folder {path.absolute()}.{also}"
            )
        return _in_folder(config.parent, name, spec)
    except WeightsNotFoundError as error:
        if download:
            return TransformersModel(name, spec)
        raise WeightsNotFoundError(f"{error} {how_to_get()}") from error


def _in_folder(folder: Path, name: str, repo: str = "") -> TransformersModel:
    if not (folder / CONFIG).is_file():
        other = (folder / HUB_CONFIG).is_file() or not list(folder.glob("*.safetensors"))
        raise WeightsNotFoundError(
            f"The folder {folder} has no {CONFIG}; it is not a model in the format of the package transformers. "
            f"{in_folder(folder) if other else 'Fetch all that belongs to the weights from where they are from.'}"
        )
    config = read_config(folder / CONFIG)
    images = image_settings(*find_settings(folder), config)
    _check_image_size(config, images)
    _check_tokenizer(folder, config)
    weights = find_weights(folder)
    for path in weights:
        weights_format(path, of_transformers=True)
    return TransformersModel(name, repo, folder, config, images, weights)


def find_weights(folder: Path) -> tuple[Path, ...]:
    """The files that hold the weights of a folder's model, safest first.

    Raises:
        WeightsNotFoundError: there are none, or some of them are missing.
        BackboneError: their index cannot be read.
    """
    for file in WEIGHTS:
        if (folder / file).is_file():
            return (folder / file,)
        if (folder / f"{file}{INDEX}").is_file():
            return _shards(folder / f"{file}{INDEX}")
    raise WeightsNotFoundError(
        f"The model folder {folder} has no weights: expected {' or '.join(WEIGHTS)}, or one of them in parts with its "
        f"{INDEX.removeprefix('.')}."
    )


def shard_names(index: Path) -> list[str]:
    """The names of the files that an index of weights names.

    Raises:
        BackboneError: it is no such index.
    """
    table = read_object(index, "index of weights").get("weight_map")
    names = sorted(set(table.values())) if isinstance(table, dict) else []
    if not names or not all(isinstance(name, str) and name == Path(name).name for name in names):
        raise BackboneError(f"{index} is no index of weights: expected a weight_map from weights to files beside it.")
    return names


def _shards(index: Path) -> tuple[Path, ...]:
    names = shard_names(index)
    missing = [name for name in names if not (index.parent / name).is_file()]
    if missing:
        listed = ", ".join(missing[:3]) + (f" and {len(missing) - 3} more" if len(missing) > 3 else "")
        raise WeightsNotFoundError(f"{index} names {len(names)} files with weights, of which {listed} are missing.")
    return tuple(index.parent / name for name in names)


def _check_image_size(config: Config, images: dict[str, Any]) -> None:
    size = config.vision.get("image_size")
    if config.kind != "align" and images["size"] != (size, size):  # ALIGN's convolutions take any
        raise BackboneError(
            f"{config.path} says that images have {size} x {size} pixels, and the image processor beside it makes them "
            f"{images['size'][0]} x {images['size'][1]}. One of the two files is of another model."
        )


def _check_tokenizer(folder: Path, config: Config) -> None:
    """A tokenizer must be at hand, and the package that reads it, but for CLIP's own, which comes with open_clip."""
    there = [file for file in VOCABULARIES if (folder / file).is_file()]
    if not there and not (config.kind == "clip" and config.text["vocab_size"] == 49408):
        raise WeightsNotFoundError(
            f"The model folder {folder} has no tokenizer: expected {', '.join(VOCABULARIES[:-1])} or {VOCABULARIES[-1]}, "
            "and what belongs to it (tokenizer_config.json)."
        )
    if config.kind != "clip":
        require_transformers(f"A {config.family.model}")
