"""Fetching a model in the format of the package transformers from the Hugging Face hub: the files that it needs, no others."""

from __future__ import annotations

from pathlib import Path

from coopt.backbones.caches import VOCABULARIES
from coopt.backbones.sources.network import fetch_by_any, from_hub, hub_address, snapshot_of
from coopt.backbones.sources.transformers_config import CONFIG, read_config
from coopt.backbones.sources.transformers_images import FILES as IMAGE_FILES
from coopt.backbones.sources.transformers_names import INDEX, WEIGHTS, shard_names
from coopt.errors import BackboneError

_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "merges.txt", *VOCABULARIES)


def fetch(name: str, repo: str) -> None:
    """Puts a model's files into the Hugging Face cache.

    Args:
        name: of the backbone, for messages.
        repo: on the hub.

    Raises:
        UnsupportedBackboneError: it is of a kind that coopt does not read; nothing but its configuration was fetched.
        BackboneError: it could not be fetched: says why, and how to do it by hand.
    """
    files = (CONFIG, IMAGE_FILES[0], WEIGHTS[0])
    by_hand = (
        f"By hand: fetch {' and '.join(hub_address(repo, file) for file in files)}, and the tokenizer's files beside "
        f"them, into the folder {snapshot_of(repo)}."
    )
    fetch_by_any(f"The model {name}", [(hub_address(repo, CONFIG), lambda: _from_hub(repo))], by_hand)


def _from_hub(repo: str) -> None:
    # The small first, so that a model that cannot be used costs no time.
    config = _needed(repo, (CONFIG,))
    read_config(config)
    _needed(repo, IMAGE_FILES)
    for file in _TOKENIZER:
        from_hub(repo, (file,))
    weights = _needed(repo, tuple(name for file in WEIGHTS for name in (file, f"{file}{INDEX}")))
    if weights.name.endswith(INDEX):
        for file in shard_names(weights):
            _needed(repo, (file,))


def _needed(repo: str, files: tuple[str, ...]) -> Path:
    """Fetches the first of these files that the repository has."""
    path = from_hub(repo, files)
    if path is None:
        raise BackboneError(
            f"The repository {repo} of the Hugging Face hub has no {' or '.join(files)}: it is no whole model in the "
            f"format of the package transformers. In open_clip's layout it is 'openclip:hf-hub:{repo}'."
        )
    return path
