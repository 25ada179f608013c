"""Where backbones come from: a source serves the names that begin with its scheme, such as "openclip:" or "openai:".

Another package announces a source of its own in its pyproject.toml:

    [project.entry-points."coopt.backbones"]
    mine = "my_package.source:MySource"

Then "mine:NAME" goes wherever the name of a backbone goes. What is wrong with a name is said before torch is imported, so
neither this file nor the module of a source imports torch, or anything that does; `Source.load` imports what it needs.
"""

from __future__ import annotations

import difflib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from coopt.errors import BackboneError, UnsupportedBackboneError
from coopt.wording import on_command_line, setting

if TYPE_CHECKING:
    import torch

    from coopt.backbones.protocol import Backbone


@dataclass(frozen=True)
class BackboneInfo:
    """One row of `coopt backbones`.

    Attributes:
        name: the model, as in "openclip:NAME/TAG", or in "mine:NAME" where there are no tags.
        tags: its published weights.
        supported: whether coopt trains prompts for it.
        reason: why not; empty when supported.
        context_length: of the text tower, in tokens; 0 where the source does not tell.
        text_path: how fast prompts run: "fast"; "packed" where each prompt runs at its own length; or "reference" where all
            run at the full length; empty when not supported, or where the source does not tell.
        why: the fast path does not serve it; empty where it does, or where the source does not tell.
        scheme: of the source that serves it; `list_backbones` puts it in.
    """

    name: str
    tags: tuple[str, ...] = ()
    supported: bool = True
    reason: str = ""
    context_length: int = 0
    text_path: str = ""
    why: str = ""
    scheme: str = ""

    @property
    def specs(self) -> tuple[str, ...]:
        """What may stand behind the scheme in a backbone's name."""
        return tuple(f"{self.name}/{tag}" for tag in self.tags) or (self.name,)


@dataclass(frozen=True)
class LocalBackbone:
    """A published model whose weights are on this machine.

    Attributes:
        name: what to write after --backbone.
        path: the weights.
        bytes: their size.
        imagenet: its published zero-shot accuracy on ImageNet in percent; None where it is not known here.
    """

    name: str
    path: Path
    bytes: int
    imagenet: float | None = None


class Source(ABC):
    """Serves the backbones whose names begin with its scheme: "SCHEME:SPEC".

    `scheme` and `load` are all that a source must have. One that lists its models has its names checked, with the close
    ones for a wrong one, and shows them in `coopt backbones`; a source whose names cannot be listed, since they are paths
    for instance, writes a `check` of its own.

    Attributes:
        scheme: the entry point's name.
        title: what messages call what its models come from; empty: the scheme.
        alone: the scheme itself is the name of its only backbone, as "bundled" is; nothing stands behind it.
    """

    scheme: str
    title: str = ""
    alone: bool = False

    @abstractmethod
    def load(self, spec: str, device: torch.device, download: bool = False) -> Backbone:
        """The backbone "SCHEME:SPEC", frozen, with this name. Called for what `check` has let pass.

        Args:
            spec: what stands behind the scheme.
            device: where it is to live.
            download: whether the network may be used.

        Raises:
            BackboneError: it cannot be loaded.
            WeightsNotFoundError: its weights are not on this machine (`how_to_get` says how to allow the network).
        """

    def check(self, spec: str, download: bool = False) -> None:
        """Says what is wrong with "SCHEME:SPEC", as far as that can be told fast, without torch and without the network.

        Raises:
            BackboneError: there is no such model.
            UnsupportedBackboneError: prompts cannot be learned for it.
            WeightsNotFoundError: its weights are not on this machine, and `download` does not allow to fetch them.
        """
        rows = self.list()
        row = next((row for row in rows if spec in row.specs), None)
        if row is not None and not row.supported:
            raise unsupported(f"{self.scheme}:{spec}", row.reason)
        if rows and row is None:
            known = [known for row in rows for known in row.specs if row.supported]
            listed = ", ".join(known[:8]) + (f" and {len(known) - 8} more" if len(known) > 8 else "")
            raise BackboneError(
                f"{self.title or self.scheme} has no model {spec!r}. {did_you_mean(self.suggest(spec))}"
                f"It has {listed}: `coopt backbones` lists all."
            )

    def list(self) -> Sequence[BackboneInfo]:
        """Its models, fast, without torch; none where they cannot be listed."""
        return ()

    def local(self) -> Sequence[LocalBackbone]:
        """Those of its published models whose weights are on this machine, best first; fast, without torch."""
        return ()

    def suggest(self, name: str) -> Sequence[str]:
        """The names of its models that a wrong one may have meant, best first: that of no source, or a wrong spec."""
        known = [spec for row in self.list() for spec in row.specs if row.supported]
        return [f"{self.scheme}:{near}" for near in close_to(name.rpartition(":")[2], known)]


def unsupported(name: str, reason: str) -> UnsupportedBackboneError:
    """For a model that prompts cannot be learned for."""
    return UnsupportedBackboneError(
        f"{name}: {reason}, so prompts cannot be learned for it. `coopt backbones` lists the models that work."
    )


def how_to_get() -> str:
    """How to allow the network, in the words of the command line or of Python; a sentence."""
    given = setting("download", True)
    how = f"add {given} to the command" if on_command_line() else f"load_backbone(..., {given})"
    return f"To fetch it once with the network: {how}."


def did_you_mean(names: Sequence[str]) -> str:
    """A question, with a blank after it; "" without names."""
    return f"Did you mean {' or '.join(map(repr, names))}? " if names else ""


def close_to(word: str, words: Sequence[str]) -> list[str]:
    """Up to three of the words that are like one, or that begin with it: laion2b_s34b_b88k for laion2b."""
    if word and (longer := [candidate for candidate in words if candidate.lower().startswith(f"{word.lower()}_")]):
        return longer[:3]
    lowered = {candidate.lower(): candidate for candidate in words}
    return [lowered[match] for match in difflib.get_close_matches(word.lower(), list(lowered), n=3, cutoff=0.6)]
