"""What a backbone's name refers to, and what is wrong with it: found out before torch or open_clip are imported.

Names are "bundled", "openai:/path/ViT-B-16.pt" and, after "openclip:",

    ViT-B-16/openai                a published model and tag
    ViT-B-16/./weights.pt          that architecture with a file's weights (also //absolute/path, ../, ~/)
    hf-hub:ORG/NAME                a model on the Hugging Face hub, in open_clip's layout
    local-dir:/path                a folder with open_clip_config.json and weights
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from coopt.backbones.caches import HUB_CONFIG, HUB_WEIGHTS, find_tag, hub_cache, in_hub_cache
from coopt.backbones.catalogue import model_configs, unsupported_reason, weight_tags
from coopt.backbones.file_formats import WEIGHT_SUFFIXES, foreign_content, how_to_name, in_folder, weights_format
from coopt.backbones.suggestions import (
    close_to,
    did_you_mean,
    looks_like_path,
    meant,
    of_openai,
    on_hub,
    published,
    split_model,
    with_tag,
)
from coopt.errors import BackboneError, ParameterError, UnsupportedBackboneError, WeightsNotFoundError
from coopt.wording import on_command_line, setting

_KINDS = (
    "Write 'bundled', 'openclip:MODEL/TAG' (`coopt backbones` lists them), 'openclip:local-dir:/path', "
    "'openclip:hf-hub:ORG/NAME' or 'openai:/path/ViT-B-16.pt'."
)


@dataclass(frozen=True)
class OpenClipSource:
    """A model of open_clip's kind, as far as its name tells.

    Attributes:
        name: as the user writes it.
        config: open_clip's configuration; None while it is not on this machine.
        settings: activation and preprocessing, of the tag or the folder.
        weights: the file; None while it is not on this machine.
        model: the configuration's name, where the user gave one.
        tag: of the published weights.
        repo: on the Hugging Face hub, where the user gave one.
        folder: with the tokenizer's files.
    """

    name: str
    config: dict | None
    settings: dict = field(default_factory=dict)
    weights: Path | None = None
    model: str = ""
    tag: str = ""
    repo: str = ""
    folder: Path | None = None


def check_backbone_name(name: str, download: bool = False) -> None:
    """Says what is wrong with a backbone's name, as far as that can be told without loading the backbone. Fast.

    Args:
        name: see `load_backbone`.
        download: whether weights may be missing on this machine, because they will be fetched.

    Raises:
        BackboneError: the name is unknown (with the close ones), or its weights are no weights.
        WeightsNotFoundError: the weights are not on this machine.
        UnsupportedBackboneError: its text tower cannot carry prompts.
        ParameterError: it is not a name.
    """
    if not isinstance(name, str):
        raise ParameterError(f"A backbone must be a name or a Backbone. Got {type(name).__name__} instead.")
    kind, _, spec = name.partition(":")
    if name == "bundled":
        return
    if kind == "openclip" and spec:
        find_openclip(spec, download)
    elif kind == "openai" and spec:
        find_openai(spec)
    else:
        raise unknown_name(name)


def find_openai(spec: str) -> Path:
    """The file of a backbone from what follows "openai:" in its name.

    Raises:
        WeightsNotFoundError: no such file.
        BackboneError: it holds something else than weights.
    """
    path = Path(spec).expanduser()
    if not path.exists() and (near := published(spec)):
        raise WeightsNotFoundError(
            f"The weights file {path.absolute()} does not exist. {did_you_mean(near)}Or give the path of a file as "
            "openai:PATH."
        )
    weights_format(path)
    return path


def find_openclip(spec: str, download: bool = False, name: str | None = None) -> OpenClipSource:
    """What follows "openclip:" in a backbone's name.

    Args:
        spec: see this file's head.
        download: whether the weights may be missing on this machine.
        name: the backbone's name where it is not "openclip:SPEC".

    Raises:
        BackboneError: an unknown model or tag (with the close ones), or a file that holds no weights.
        UnsupportedBackboneError: a text tower that cannot carry prompts.
        WeightsNotFoundError: the weights are not on this machine: says where they were looked for and how to get them.
    """
    name = name or f"openclip:{spec}"
    if spec.startswith("local-dir:"):
        return _folder(Path(spec.removeprefix("local-dir:")).expanduser(), name)
    if spec.startswith("hf-hub:"):
        return _hub(spec.removeprefix("hf-hub:"), download, name)
    model, rest = split_model(spec)
    if model not in model_configs():
        raise _unknown_model(spec)
    config = model_configs()[model]
    refuse_unsupported(config, name)
    if rest and looks_like_path(rest):
        weights = Path(rest).expanduser()
        weights_format(weights)
        return OpenClipSource(name, config, weights=weights, model=model)
    tag = rest.lower().replace("-", "_")
    settings = weight_tags().get(model, {}).get(tag)
    if settings is None:
        raise BackboneError(_unknown_tag(model, rest))
    weights, looked = find_tag(settings)
    if weights is None and not download:
        raise _not_here(f"The weights of {name}", looked)
    if weights is not None:
        weights_format(weights)
    return OpenClipSource(name, config, settings, weights, model, tag)


def refuse_unsupported(config: dict, name: str) -> None:
    """Refuses a configuration whose text tower cannot carry prompts.

    Raises:
        UnsupportedBackboneError: says why.
    """
    reason = unsupported_reason(config)
    if reason:
        raise UnsupportedBackboneError(
            f"{name}: {reason}, so prompts cannot be learned for it. `coopt backbones` lists the models that work."
        )


def unknown_name(name: str) -> BackboneError:
    """For a name of no known kind: says what it may have meant."""
    path = Path(name).expanduser()
    if name and path.is_dir():
        return BackboneError(f"The backbone {name!r} is a folder. {in_folder(path)}")
    if name and path.is_file():
        return BackboneError(f"The backbone {name!r} is a file. {how_to_name(path)}")
    if near := meant(name):
        return BackboneError(f"There is no backbone {name!r}. {did_you_mean(near)}`coopt backbones` lists names.")
    reason = unsupported_reason(model_configs().get(name.partition("/")[0], {}))
    if reason:
        return UnsupportedBackboneError(
            f"There is no backbone {name!r}, and as to open_clip's model: {reason}. {_KINDS}"
        )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.endswith(WEIGHT_SUFFIXES):
        return BackboneError(f"There is no backbone {name!r}. For a model on the Hugging Face hub: {on_hub(name)!r}.")
    if looks_like_path(name) and "://" not in name:
        return WeightsNotFoundError(f"The backbone {name!r} is neither a name nor a path that exists. {_KINDS}")
    return BackboneError(f"There is no backbone {name!r}. {_KINDS}")


def _hub(repo: str, download: bool, name: str) -> OpenClipSource:
    found = []
    for files in ((HUB_CONFIG,), HUB_WEIGHTS):
        path = in_hub_cache(repo, files)
        if path is None and (same := of_openai(repo)):
            raise BackboneError(
                f"The model hf-hub:{repo} is in the format of the package transformers, which coopt does not read "
                f"yet. The same weights are {same!r}."
            )
        if path is None and not download:
            looked = f"{' or '.join(files)} in the Hugging Face cache {hub_cache()}"
            raise _not_here(f"The model hf-hub:{repo}", [looked])
        found.append(path)
    if found[0] is None:
        return OpenClipSource(name, None, repo=repo)
    config, settings = read_config(found[0])
    refuse_unsupported(config, name)
    if found[1] is not None:
        weights_format(found[1])
    return OpenClipSource(name, config, settings, found[1], repo=repo)


def _folder(folder: Path, name: str) -> OpenClipSource:
    if folder.is_file():
        raise BackboneError(f"{name} is a file and not a folder. {how_to_name(folder)}")
    if not folder.is_dir():
        raise WeightsNotFoundError(f"The model folder {folder.absolute()} does not exist. Check the backbone's name.")
    if not (folder / HUB_CONFIG).is_file():
        raise WeightsNotFoundError(
            f"The folder {folder} has no {HUB_CONFIG}; it is not a model in open_clip's layout. {in_folder(folder)}"
        )
    config, settings = read_config(folder / HUB_CONFIG)
    refuse_unsupported(config, name)
    named = [folder / file for file in HUB_WEIGHTS]
    others = sorted(path for suffix in (".safetensors", ".bin", ".pth", ".pt") for path in folder.glob(f"*{suffix}"))
    weights = next((path for path in named if path.is_file()), None)
    if weights is None and len(others) > 1:
        raise BackboneError(
            f"The folder {folder} has {len(others)} weight files ({', '.join(path.name for path in others)}): "
            f"name the right one {HUB_WEIGHTS[0]} or {HUB_WEIGHTS[-1]}."
        )
    if weights is None and not others:
        raise WeightsNotFoundError(f"The folder {folder} has no weights: expected {' or '.join(HUB_WEIGHTS)}.")
    weights = weights or others[0]
    weights_format(weights)
    return OpenClipSource(name, config, settings, weights, folder=folder)


def read_config(path: Path) -> tuple[dict, dict]:
    """(model configuration, preprocessing settings) of an open_clip_config.json.

    Raises:
        BackboneError: it is not one.
    """
    try:
        if what := foreign_content(path):
            raise BackboneError(f"The configuration {path} {what}")
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        config = content.get("model_cfg", content)
        if not all(isinstance(config[part], dict) for part in ("vision_cfg", "text_cfg")):
            raise TypeError("vision_cfg and text_cfg must be objects")
        config["embed_dim"] = int(config["embed_dim"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackboneError(
            f"{path} is not an open_clip configuration: expected model_cfg with embed_dim, vision_cfg and text_cfg "
            f"({type(error).__name__}: {error})."
        ) from error
    return config, dict(content.get("preprocess_cfg") or {})


def how_to_get() -> str:
    """How to allow the network, in the words of the command line or of Python; a sentence."""
    given = setting("download", True)
    how = f"add {given} to the command" if on_command_line() else f"load_backbone(..., {given})"
    return f"To fetch it once with the network: {how}."


def _not_here(what: str, looked: list[str]) -> WeightsNotFoundError:
    verb = "are" if what.startswith("The weights") else "is"
    return WeightsNotFoundError(
        f"{what} {verb} not on this machine. Looked for {'; and for '.join(looked)}. {how_to_get()}"
    )


def _unknown_model(spec: str) -> BackboneError:
    path = Path(spec).expanduser()
    if path.is_dir():
        return BackboneError(f"openclip:{spec} names a folder. {in_folder(path)}")
    if path.is_file():
        return BackboneError(f"openclip:{spec} does not name the model of this file. {how_to_name(path)}")
    return BackboneError(
        f"open_clip has no model {split_model(spec)[0]!r}. {did_you_mean(published(spec))}"
        f"`coopt backbones` lists all {len(model_configs())}."
    )


def _unknown_tag(model: str, tag: str) -> str:
    tags = list(weight_tags().get(model, {}))
    known = f"Its tags: {', '.join(tags)}." if tags else "It has no published weights."
    how = f"Write openclip:{model}/TAG, or openclip:{model}/./file.pt for weights of your own. {known}"
    if not tag:
        near = did_you_mean([with_tag(model)] if tags else [])
        return f"openclip:{model} does not say which weights. {near}{how}"
    near = did_you_mean([f"openclip:{model}/{close}" for close in close_to(tag, tags)])
    return f"The model {model} has no weights tagged {tag!r}. {near}{how}"
