"""Fetching weights, where the user has asked for it."""

from __future__ import annotations

import os
from pathlib import Path

from coopt.backbones.caches import HUB_CONFIG, HUB_WEIGHTS
from coopt.backbones.names import OpenClipSource
from coopt.backbones.zoo import import_open_clip
from coopt.errors import BackboneError


def fetch(source: OpenClipSource) -> None:
    """Puts what is missing of a model into the cache.

    Raises:
        BackboneError: it could not be fetched.
    """
    if source.repo:
        _download_hub(source.repo, (HUB_CONFIG,))
        _download_hub(source.repo, HUB_WEIGHTS)
    else:
        _download_tag(source.name, source.settings)


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
