"""Sites: where in the frozen model a method puts what it learns. `Forward` runs the model with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from coopt.text.layout import Position


@dataclass(frozen=True)
class TextTokens:
    """Context vectors around the class names of all prompts.

    Attributes:
        tensor: the learned tensor, (M, W), or (C, M, W) where it is class-specific.
        position: where the class name stands.
        class_specific: every class has vectors of its own.
        per_image: every image gives the vectors other values, so it has class features of its own.
    """

    tensor: str = "context"
    position: Position = "end"
    class_specific: bool = False
    per_image: bool = False


@dataclass(frozen=True)
class TextBlocks:
    """Vectors that replace those at the context slots at the input of a block of the text tower (deep prompts).

    Attributes:
        block: counted from 0; from 1 on.
        tensor: the learned tensor, (M, W), or (C, M, W) for each class.
        per_class: every class has vectors of its own, in this and all later blocks.
    """

    block: int
    tensor: str
    per_class: bool = False


@dataclass(frozen=True)
class TextInserted:
    """Vectors that are put in behind the start token of hand-made prompts at the input of a block of the text tower.

    From there on prompts are that much longer; `TextBlocks` of later blocks replace them.

    Attributes:
        block: counted from 0; from 1 on.
        tensor: the learned tensor, (M, W).
    """

    block: int
    tensor: str


@dataclass(frozen=True)
class ImageBlocks:
    """Tokens that are added to an image's at the input of a block of the image tower; see `ImageTower`.

    Attributes:
        block: counted from 0.
        tensor: the learned tensor, (M, V).
    """

    block: int
    tensor: str


@dataclass(frozen=True)
class ImageReadOut:
    """A second feature of each image: the mean of what the last block makes of the tokens that were added, projected.

    Image features are then twice as long: the image's own, and this one behind it.

    Attributes:
        tensor: the projection, (P, D).
    """

    tensor: str


@dataclass(frozen=True)
class WeightDelta:
    """Weights of a tower that others stand for; the method's `weights` says which, given what it learned.

    Attributes:
        tower: whose.
        names: of the weights, as in the tower's `named_parameters`.
    """

    tower: Literal["text", "image"]
    names: tuple[str, ...]


Site = TextTokens | TextBlocks | TextInserted | ImageBlocks | ImageReadOut | WeightDelta


def text_tokens(sites: Sequence[Site]) -> TextTokens | None:
    """The site of the context vectors, if there is one."""
    return next((one for one in sites if isinstance(one, TextTokens)), None)


def text_inserted(sites: Sequence[Site]) -> TextInserted | None:
    """The site of the vectors that are put in between blocks, if there is one."""
    return next((one for one in sites if isinstance(one, TextInserted)), None)


def deep_vectors(sites: Sequence[Site]) -> list[TextBlocks | TextInserted]:
    """The sites of vectors at the input of blocks of the text tower."""
    return [one for one in sites if isinstance(one, TextBlocks | TextInserted)]


def changes_text(sites: Sequence[Site]) -> bool:
    """Whether prompts must go through the text tower in every step."""
    return any(isinstance(one, TextTokens | TextBlocks | TextInserted) or _is_weight(one, "text") for one in sites)


def changes_images(sites: Sequence[Site]) -> bool:
    """Whether images must go through the image tower in every step."""
    return any(isinstance(one, ImageBlocks) or _is_weight(one, "image") for one in sites)


def class_specific(sites: Sequence[Site]) -> set[str]:
    """Names of the tensors that hold something for each class."""
    return {
        one.tensor
        for one in sites
        if (isinstance(one, TextTokens) and one.class_specific) or (isinstance(one, TextBlocks) and one.per_class)
    }


def weights_in(sites: Sequence[Site], tower: str) -> tuple[str, ...]:
    """Names of the weights of a tower that others stand for."""
    return tuple(name for one in sites if isinstance(one, WeightDelta) and one.tower == tower for name in one.names)


def _is_weight(site: Site, tower: str) -> bool:
    return isinstance(site, WeightDelta) and site.tower == tower
