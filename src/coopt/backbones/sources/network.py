"""The network, where the user has asked for it: quick to say that there is none, and never half a file."""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from coopt.backbones.caches import hub_cache
from coopt.errors import BackboneError

# Seconds that the one question may take whether an address can be reached.
_PATIENCE = 6.0


def fetch_by_any(what: str, ways: Sequence[tuple[str, Callable[[], None]]], by_hand: str) -> None:
    """Fetches in the first way whose address can be reached.

    Args:
        what: is fetched, as the subject of a sentence.
        ways: an address to be asked for, and what fetches.
        by_hand: how to do it without, a sentence.

    Raises:
        BackboneError: it could not be fetched: says why, and how to do it by hand; or what a way says itself.
    """
    faults: list[str] = []
    if is_offline():
        faults.append("HF_HUB_OFFLINE is set; unset it to use the network")
    else:
        try:
            for address, fetch in ways:
                if not cannot_reach(address, faults):
                    with quiet_library():
                        fetch()
                    return
        except BackboneError:
            raise
        except Exception as error:  # whatever the network or the disk does midway
            faults.append(first_line(error))
    raise BackboneError(f"{what} could not be fetched: {'; '.join(faults)}. {by_hand}")


def cannot_reach(address: str, faults: list[str]) -> bool:
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


def from_hub(repo: str, files: tuple[str, ...]) -> Path | None:
    """Fetches the first of these files that a repository of the Hugging Face hub has, into its cache; None without one.

    Raises whatever the network or the disk does midway.
    """
    from huggingface_hub import hf_hub_download

    for file in files:
        try:
            return Path(hf_hub_download(repo, file, cache_dir=hub_cache()))
        except Exception as error:
            if type(error).__name__ not in ("EntryNotFoundError", "RemoteEntryNotFoundError"):
                raise
    return None


@contextmanager
def quiet_library() -> Iterator[None]:
    """Within this context the Hugging Face library does not log each of its attempts."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def hub_address(repo: str, file: str) -> str:
    """Where a file of a hub's repository is."""
    from huggingface_hub import constants

    return f"{constants.ENDPOINT}/{repo}/resolve/main/{file}"


def is_offline() -> bool:
    """Whether the Hugging Face library is told to use no network."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE


def snapshot_of(repo: str) -> Path:
    """The folder of the Hugging Face cache in which a repository's files are looked for."""
    folder = hub_cache() / f"models--{repo.replace('/', '--')}"
    revision = folder / "refs" / "main"
    return folder / "snapshots" / (revision.read_text().strip() if revision.is_file() else "main")


def first_line(error: Exception) -> str:
    """What a library says, on one line."""
    return str(error).strip().partition("\n")[0] or type(error).__name__
