"""What a backbone's name refers to: the source that serves it, and what is wrong with it, before torch is imported.

A name is the scheme of a source and what this source makes of the rest: "openclip:ViT-B-16/openai"; or the scheme alone,
as in "bundled". Sources are found by name, coopt's own in `sources/` and those of other packages alike.
"""

from __future__ import annotations

import difflib
import functools
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

from coopt.backbones.file_formats import WEIGHT_SUFFIXES, how_to_name, in_folder, looks_like_path, on_hub
from coopt.backbones.source import BackboneInfo, LocalBackbone, Source, did_you_mean
from coopt.errors import (
    BackboneError,
    CooptError,
    CooptWarning,
    ParameterError,
    UnsupportedBackboneError,
    WeightsNotFoundError,
)
from coopt.registry import Registry

Row = TypeVar("Row")

_BUILTIN = {
    "bundled": "coopt.backbones.sources.bundled:BundledSource",
    "openclip": "coopt.backbones.sources.openclip:OpenClip",
    "openai": "coopt.backbones.sources.openai:OpenAI",
    "transformers": "coopt.backbones.sources.transformers:Transformers",
}

SOURCES = Registry("coopt.backbones", _BUILTIN, what="source of backbones")
"""Scheme to source, each a `Source` or a class of it."""


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
    source, spec = find_source(name)
    source.check(spec, download)


def find_source(name: str) -> tuple[Source, str]:
    """The source that serves a name, and what stands behind the scheme.

    Raises:
        BackboneError: no source does; says what may have been meant. Or the source is another package's, and broken.
        ParameterError: it is not a name.
    """
    if not isinstance(name, str):
        raise ParameterError(f"A backbone must be a name or a Backbone. Got {type(name).__name__} instead.")
    scheme, colon, spec = name.partition(":")
    if scheme in SOURCES:
        source = _source(scheme)
        if (not colon) if source.alone else spec:
            return source, spec
    raise unknown_name(name)


def list_backbones() -> list[BackboneInfo]:
    """Every model that the sources list: those of the installed open_clip, and of other packages. Fast: no torch."""
    return _asked(lambda source: [replace(row, scheme=source.scheme) for row in source.list()])


def local_backbones() -> tuple[LocalBackbone, ...]:
    """The published models whose weights are on this machine, best first, source by source. Fast: no torch."""
    return tuple(_asked(lambda source: source.local()))


def unknown_name(name: str) -> BackboneError:
    """For a name that no source serves: says what it may have meant."""
    path = Path(name).expanduser()
    if name and path.is_dir():
        return BackboneError(f"The backbone {name!r} is a folder. {in_folder(path)}")
    if name and path.is_file():
        return BackboneError(f"The backbone {name!r} is a file. {how_to_name(path)}")
    if near := _meant(name):
        return BackboneError(f"There is no backbone {name!r}. {did_you_mean(near)}`coopt backbones` lists names.")
    for row in list_backbones():
        if row.name == name.partition("/")[0] and not row.supported:
            title = _source(row.scheme).title or row.scheme
            return UnsupportedBackboneError(
                f"There is no backbone {name!r}, and as to {title}'s model: {row.reason}. {_how_to_write()}"
            )
    if re.fullmatch(r"[\w.-]+/[\w.-]+", name) and not name.endswith(WEIGHT_SUFFIXES):
        return BackboneError(
            f"There is no backbone {name!r}. For a model on the Hugging Face hub: {on_hub(name)!r}, or "
            f"'transformers:{name}' in the format of that package."
        )
    if looks_like_path(name) and "://" not in name:
        return WeightsNotFoundError(
            f"The backbone {name!r} is neither a name nor a path that exists. {_how_to_write()}"
        )
    return BackboneError(f"There is no backbone {name!r}. {_how_to_write()}")


def _meant(name: str) -> list[str]:
    """The names that one of no known scheme may have meant."""
    kind, colon, spec = name.partition(":")
    plain = {_letters(scheme): scheme for scheme in SOURCES}
    scheme = next((plain[one] for one in difflib.get_close_matches(_letters(kind), plain, n=1, cutoff=0.6)), "")
    if scheme and _source(scheme).alone:
        return [scheme]
    if scheme and colon and not spec:  # the kind alone says nothing
        return []
    if scheme and colon and scheme not in _BUILTIN:
        return list(_source(scheme).suggest(name)) or [f"{scheme}:{spec}"]
    near = _asked(lambda source: source.suggest(name))
    near.sort(key=lambda one: one.partition(":")[2] != name)
    return near[:3] or ([f"{scheme}:{spec}"] if scheme else [])


def _letters(kind: str) -> str:
    return re.sub(r"[^a-z]", "", kind.lower())


def _how_to_write() -> str:
    others = [scheme for scheme in SOURCES if scheme not in _BUILTIN]
    also = f" Installed packages serve {', '.join(f'{one}:...' for one in others)} too." if others else ""
    return (
        "Write 'bundled', 'openclip:MODEL/TAG' (`coopt backbones` lists them), 'openclip:local-dir:/path', "
        f"'openclip:hf-hub:ORG/NAME', 'transformers:ORG/NAME', 'transformers:/path' or 'openai:/path/ViT-B-16.pt'.{also}"
    )


def _asked(question: Callable[[Source], Sequence[Row]]) -> list[Row]:
    """What all sources answer. One of another package that is broken is left out with a warning: it disturbs no other."""
    answers: list[Row] = []
    for scheme in SOURCES:
        try:
            answers += question(_source(scheme))
        except Exception as error:  # somebody else's code: whatever it raises
            if scheme in _BUILTIN:
                raise
            warnings.warn(f"The backbones of {scheme!r} are left out. {error}", CooptWarning, stacklevel=2)
    return answers


def _source(scheme: str) -> Source:
    try:
        source = _made(SOURCES.get(scheme))
    except (CooptError, TypeError) as error:  # TypeError: a class that lacks a method, or asks for arguments
        raise BackboneError(str(error)) from error
    if not isinstance(source, Source) or getattr(source, "scheme", "") != scheme:
        raise BackboneError(
            f"The source of backbones {scheme!r} of the package {SOURCES.origin(scheme)} must be a "
            f"coopt.backbones.Source with the scheme {scheme!r}. Got {source!r} instead. Update that package, or "
            "uninstall it."
        )
    return source


@functools.cache
def _made(source: Any) -> Any:
    """A source, or the one instance of its class."""
    return source() if isinstance(source, type) else source
