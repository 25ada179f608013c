"""Fetching weights, where the user has asked for it: quick to say that there is no network, and never half a file."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import ssl
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager

from coopt.backbones.caches import HUB_CONFIG, HUB_WEIGHTS, hub_cache, hub_repository, kept_by_clip
from coopt.backbones.sources.openclip_names import OpenClipModel
from coopt.backbones.sources.openclip_text_config import TEXT_CONFIG, text_model_of
from coopt.backbones.zoo import import_open_clip
from coopt.errors import BackboneError

# Seconds that the one question may take whether an address can be reached.
_PATIENCE = 6.0


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
    from huggingface_hub import constants

    by_hand = _by_hand(repo, tuple(group[0] for group in wanted), url)
    if constants.HF_HUB_OFFLINE:
        raise BackboneError(
            f"{what} could not be fetched: HF_HUB_OFFLINE is set; unset it to use the network. {by_hand}"
        )
    faults = []
    try:
        if repo and not _fault(_hub_address(repo, wanted[-1][0]), faults):
            with _quiet_library():
                for group in wanted:
                    _from_hub(repo, group)
            return
        if url and not _fault(url, faults):
            _from_address(url)
            return
    except BackboneError:
        raise
    except Exception as error:  # whatever the network or the disk does midway
        faults.append(str(error).strip().partition("\n")[0] or type(error).__name__)
    raise BackboneError(f"{what} could not be fetched: {'; '.join(faults)}. {by_hand}")


def _fault(address: str, faults: list[str]) -> bool:
    """Whether an address cannot be reached; adds the reason to the faults. Asked once, and for a few seconds at most.

    The libraries that fetch try again and again for a minute before they say so.
    """
    if any(proxy.startswith("socks") for proxy in urllib.request.getproxies().values()):
        return False  # which the question below does not know how to use
    fault = [f"there was no answer within {_PATIENCE:.0f} seconds"]

    def ask() -> None:
        try:
            urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=_PATIENCE).close()
            fault[0] = ""
        except urllib.error.HTTPError as error:  # an answer, whatever it says
            fault[0] = "the proxy asks for a login" if error.code == 407 else ""
        except (OSError, ValueError, http.client.HTTPException) as error:
            fault[0] = _in_words(error.reason if isinstance(error, urllib.error.URLError) else error)

    # In a thread, because no time limit holds for looking up a name.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(_PATIENCE)
    if fault[0]:
        faults.append(f"{urllib.request.Request(address).host} cannot be reached ({fault[0]})")
    return bool(fault[0])


def _in_words(reason: object) -> str:
    """Why a connection failed; "" for a certificate, which the libraries may check in another way."""
    if isinstance(reason, ssl.SSLError):
        return ""
    if isinstance(reason, socket.gaierror):
        return "its name was not found: no network, or no name server"
    if isinstance(reason, ConnectionRefusedError):
        return "the connection was refused"
    if isinstance(reason, TimeoutError):
        return f"there was no answer within {_PATIENCE:.0f} seconds"
    text = str(reason).strip().partition("\n")[0]
    return f"the proxy refused: {text}" if "Tunnel connection failed" in text else text or type(reason).__name__


def _from_hub(repo: str, files: tuple[str, ...]) -> None:
    """Fetches the first of these files that the repository has."""
    from huggingface_hub import hf_hub_download

    for file in files:
        try:
            hf_hub_download(repo, file, cache_dir=hub_cache())
            return
        except Exception as error:
            if type(error).__name__ not in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
                raise
    layout = "open_clip's" if files != (TEXT_CONFIG,) else "transformers'"
    raise BackboneError(
        f"The repository {repo} of the Hugging Face hub has no {' or '.join(files)}: it is no model in {layout} "
        "layout. `coopt backbones` lists published models."
    )


def _from_address(url: str) -> None:
    """Fetches from a plain address, beside where the file belongs: there it is put only when it is whole."""
    target = kept_by_clip(url)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetching-", dir=target.parent) as folder:
        fetched = import_open_clip("open_clip.pretrained").download_pretrained_from_url(url, cache_dir=folder)
        os.replace(fetched, target)


@contextmanager
def _quiet_library() -> Iterator[None]:
    """Within this context the Hugging Face library does not log each of its attempts."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _hub_address(repo: str, file: str) -> str:
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}/resolve/main/{file}"


def _by_hand(repo: str, files: tuple[str, ...], url: str) -> str:
    """How to fetch the weights on another machine, and where to put them; a sentence."""
    if url:
        return f"By hand: fetch {url} and put it at {kept_by_clip(url)}."
    folder = hub_cache() / f"models--{repo.replace('/', '--')}"
    revision = folder / "refs" / "main"
    snapshot = folder / "snapshots" / (revision.read_text().strip() if revision.is_file() else "main")
    return f"By hand: fetch {' and '.join(_hub_address(repo, file) for file in files)} into the folder {snapshot}."
