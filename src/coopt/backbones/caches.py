"""Where weights are kept on this machine. Never asks the network, and imports neither torch nor open_clip."""

from __future__ import annotations

import os
from pathlib import Path

from coopt.errors import BackboneError

# The names under which open_clip publishes weights, safest first.
HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")
HUB_CONFIG = "open_clip_config.json"
# The files that hold the vocabulary of one or the other kind of tokenizer.
VOCABULARIES = (
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)


def hub_cache() -> Path:
    """The Hugging Face cache in use (HF_HUB_CACHE, HF_HOME or the default)."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE)


def in_hub_cache(repo: str, files: tuple[str, ...]) -> Path | None:
    """The first of these files of a hub repository that is in the cache.

    Raises:
        BackboneError: no repository can have this name.
    """
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


def hub_repository(settings: dict) -> tuple[str, tuple[str, ...]]:
    """(repository, names that its weights may have, best first) of one of open_clip's tags; ("", ()) without one."""
    repo, _, file = str(settings.get("hf_hub", "")).rpartition("/")
    if not repo:
        return "", ()
    if not file:
        return repo, HUB_WEIGHTS
    stem, suffix = os.path.splitext(file)  # noqa: PTH122 (a name on the hub, not a path here)
    return repo, (f"{stem}.safetensors", file) if suffix in (".bin", ".pth") else (file,)


def kept_by_clip(url: str) -> Path:
    """Where OpenAI's own package and open_clip put what they fetch from a plain address."""
    return Path("~/.cache/clip").expanduser() / os.path.basename(url)  # noqa: PTH119 (of an address, not a path)


def find_tag(settings: dict) -> tuple[Path | None, list[str]]:
    """(the file of one of open_clip's tags, or None; the places where it was looked for, in words).

    Args:
        settings: the tag's entry in open_clip's table ("hf_hub", "url" or "file").
    """
    if settings.get("file"):
        return Path(settings["file"]).expanduser(), []
    looked = []
    repo, files = hub_repository(settings)
    if repo:
        cached = in_hub_cache(repo, files)
        if cached:
            return cached, looked
        looked.append(f"{' or '.join(files)} of {repo} in the Hugging Face cache {hub_cache()}")
    if settings.get("url"):
        archive = kept_by_clip(settings["url"])
        if archive.is_file():
            return archive, looked
        looked.append(str(archive))
    return None, looked
