"""What "openclip:..." refers to, and what is wrong with it: found out before torch or open_clip are imported.

Behind "openclip:" stands

    ViT-B-16/openai                a published model and tag
    ViT-B-16/./weights.pt          that architecture with a file's weights (also //absolute/path, ../, ~/)
    hf-hub:ORG/NAME                a model on the Hugging Face hub, in open_clip's layout
    local-dir:/path                a folder with open_clip_config.json and weights
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from pathlib import Path

from coopt.backbones.caches import HUB_CONFIG, HUB_WEIGHTS, find_tag, hub_cache, in_hub_cache
from coopt.backbones.file_formats import (
    foreign_content,
    how_to_name,
    in_folder,
    looks_like_path,
    of_openai,
    weights_format,
)
from coopt.backbones.source import close_to, did_you_mean, how_to_get, unsupported
from coopt.backbones.sources.openclip_models import model_configs, unsupported_reason, weight_tags
from coopt.backbones.sources.openclip_suggestions import published, split_model, with_tag
from coopt.backbones.sources.openclip_text_config import find_text_config, read_text_config, text_model_of
from coopt.backbones.zoo import require_transformers
from coopt.errors import BackboneError, WeightsNotFoundError


@dataclass(frozen=True)
class OpenClipModel:
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
        text_config: the `config.json` of a text tower of the package transformers; None while it is not on this machine.
    """

    name: str
    config: dict | None
    settings: dict = field(default_factory=dict)
    weights: Path | None = None
    model: str = ""
    tag: str = ""
    repo: str = ""
    folder: Path | None = None
    text_config: Path | None = None

    @property
    def lacks_text_config(self) -> bool:
        """Whether the text tower is one of the package transformers whose configuration is not on this machine."""
        return self.config is not None and bool(text_model_of(self.config)) and self.text_config is None


def find_openclip(spec: str, download: bool = False, name: str | None = None) -> OpenClipModel:
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
        return _folder(Path(spec.removeprefix("local-dir:")).expanduser(), download, name)
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
        return _with_text_config(OpenClipModel(name, config, weights=weights, model=model), download)
    tag = rest.lower().replace("-", "_")
    settings = weight_tags().get(model, {}).get(tag)
    if settings is None:
        raise BackboneError(_unknown_tag(model, rest))
    weights, looked = find_tag(settings)
    if weights is None and not download:
        raise _not_here(f"The weights of {name}", looked)
    if weights is not None:
        weights_format(weights)
    return _with_text_config(OpenClipModel(name, config, settings, weights, model, tag), download)


def refuse_unsupported(config: dict, name: str) -> None:
    """Refuses a configuration whose text tower cannot carry prompts.

    Raises:
        UnsupportedBackboneError: says why.
    """
    reason = unsupported_reason(config)
    if reason:
        raise unsupported(name, reason)


def _with_text_config(model: OpenClipModel, download: bool, folder: Path | None = None) -> OpenClipModel:
    """The model with the configuration of its text tower, where this is one of the package transformers."""
    assert model.config is not None
    if not text_model_of(model.config):
        return model
    require_transformers(f"The text tower of {model.name}")
    path, looked = find_text_config(model.config, folder)
    if path is not None:
        read_text_config(path, model.name)
    elif not download:
        raise _not_here(f"The configuration of the text tower of {model.name}", looked)
    return replace(model, text_config=path)


def _hub(repo: str, download: bool, name: str) -> OpenClipModel:
    paths = []
    for files in ((HUB_CONFIG,), HUB_WEIGHTS):
        path = in_hub_cache(repo, files)
        same = of_openai(repo)
        if path is None and (same or in_hub_cache(repo, ("config.json",))):
            also = f" The same weights are {same!r}." if same else ""
            raise BackboneError(
                f"The model hf-hub:{repo} is in the format of the package transformers: write 'transformers:{repo}'.{also}"
            )
        if path is None and not download:
            looked = f"{' or '.join(files)} in the Hugging Face cache {hub_cache()}"
            raise _not_here(f"The model hf-hub:{repo}", [looked])
        paths.append(path)
    if paths[0] is None:
        return OpenClipModel(name, None, repo=repo)
    config, settings = read_config(paths[0])
    refuse_unsupported(config, name)
    if paths[1] is not None:
        weights_format(paths[1])
    return _with_text_config(OpenClipModel(name, config, settings, paths[1], repo=repo), download, paths[0].parent)


def _folder(folder: Path, download: bool, name: str) -> OpenClipModel:
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
    return _with_text_config(OpenClipModel(name, config, settings, weights, folder=folder), download, folder)


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
