"""Fetching weights, where the user has asked for it: quick to say that there is no network, and never half a file."""

from __future__ import annotations

import os
import tempfile

from coopt.backbones.caches import HUB_CONFIG, HUB_WEIGHTS, hub_repository, kept_by_clip
from coopt.backbones.sources.network import fetch_by_any, from_hub, hub_address, snapshot_of
from coopt.backbones.sources.openclip_names import OpenClipModel
from coopt.backbones.sources.openclip_text_config import TEXT_CONFIG, text_model_of
from coopt.backbones.zoo import import_open_clip
from coopt.errors import BackboneError


def fetch(source: OpenClipModel) -> None:
    """Puts what is missing of a model into the cache it is looked for in.

    Raises:
        BackboneError: it could not be fetched: says why, and how to do it by hand.
    """
    if source.repo:
        repo = source.repo
        wanted = ((HUB_CONFIG,), HUB_WEIGHTS)
    else:
        repo, files = hub_repository(source.settings)
        wanted = (files,)
    _fetch(f"The weights of {source.name}", repo, wanted, source.settings.get("url", ""))


def fetch_text_config(source: OpenClipModel) -> None:
    """Puts the configuration of a text tower of the package transformers into the Hugging Face cache.

    Raises:
        BackboneError: see `fetch`.
    """
    assert source.config is not None
    repo = text_model_of(source.config)
    _fetch(f"The configuration of the text tower of {source.name}", repo, ((TEXT_CONFIG,),))


def _fetch(what: str, repo: str, wanted: tuple[tuple[str, ...], ...], url: str = "") -> None:
    """Fetches from the hub, or else from a plain address, what is wanted: of each group of files the first there is."""

    def groups() -> None:
        for group in wanted:
            _from_hub(repo, group)

    ways = [(hub_address(repo, wanted[-1][0]), groups)] if repo else []
    ways += [(url, lambda: _from_address(url))] if url else []
    fetch_by_any(what, ways, _by_hand(repo, tuple(group[0] for group in wanted), url))


def _from_hub(repo: str, files: tuple[str, ...]) -> None:
    """Fetches the first of these files that the repository has."""
    if from_hub(repo, files) is not None:
        return
    missing = f"The repository {repo} of the Hugging Face hub has no {' or '.join(files)}: it is no model in"
    if files == (TEXT_CONFIG,):
        raise BackboneError(f"{missing} transformers' layout.")
    raise BackboneError(
        f"{missing} open_clip's layout. In the format of the package transformers it is 'transformers:{repo}'."
    )


def _from_address(url: str) -> None:
    """Fetches from a plain address, beside where the file belongs: there it is put only when it is whole."""
    target = kept_by_clip(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        fetched = import_open_clip("open_clip.pretrained").download_pretrained_from_url(url, cache_dir=folder)
        os.replace(fetched, target)


def _by_hand(repo: str, files: tuple[str, ...], url: str) -> str:
    """How to fetch the weights on another machine, and where to put them; a sentence."""
    if url:
        return f"By hand: fetch {url} and put it at {kept_by_clip(url)}."
    addresses = " and ".join(hub_address(repo, file) for file in files)
    return f"By hand: fetch {addresses} into the folder {snapshot_of(repo)}."
