"""What coopt asks of a frozen CLIP-like model.

Notation: N images, C classes, L tokens of a prompt, W text width, D width of the shared embedding space.
"""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopt.backbones.image_tower import ImageTower
from coopt.backbones.pickled import PickledBackbone, unpickled
from coopt.backbones.preprocessing import Preprocessing, ValueRange
from coopt.backbones.text_tower import TextTower
from coopt.errors import UnsupportedBackboneError


@dataclass(frozen=True)
class Framing:
    """What stands around the tokens of a text.

    Attributes:
        start: the id before them; None for tokenizers without one (mT5's).
        end: the id behind them.
        pad: the id that fills a prompt up to the tower's context length.
    """

    start: int | None
    end: int
    pad: int

    @property
    def placeholder(self) -> int:
        """An id that masks and pooling take for a word of no account: it stands where a learned vector does."""
        # Low, since some towers read out at the highest id.
        return min({0, 1, 2} - {self.end, self.pad})


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back, without the tokens that frame it."""

    framing: Framing
    vocab_size: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


Link = Literal["softmax", "sigmoid"]
"""What makes probabilities of scores."""


def probabilities_of(scores: Float[Tensor, "n classes"], link: Link) -> Float[Tensor, "n classes"]:
    """Probabilities of the classes: with "sigmoid" of each by itself, so that they need not add up to 1."""
    return scores.sigmoid() if link == "sigmoid" else scores.softmax(dim=-1)


@dataclass(frozen=True)
class ScoreHead:
    """How a model was trained to compare images with texts.

    Attributes:
        scale: the factor on the cosine similarity (already exponentiated; CLIP: about 100).
        bias: what is added to every score (SigLIP: about -10).
        link: what makes probabilities of scores: "softmax" over the classes, or "sigmoid" of each (SigLIP).
    """

    scale: float
    bias: float = 0.0
    link: Link = "softmax"

    def __call__(
        self, images: Float[Tensor, "n dim"], text: Float[Tensor, "*sets classes dim"]
    ) -> Float[Tensor, "n classes"]:
        """Scores of normalised features.

        Args:
            images: one row for each image.
            text: one row for each class, or (n, C, D): for each image classes of its own.
        """
        if text.ndim == 2:
            scores = self.scale * images @ text.T
        else:
            scores = self.scale * torch.einsum("ncd,nd->nc", text, images)
        return scores + self.bias if self.bias else scores

    def probabilities(self, scores: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """Of the classes, given scores."""
        return probabilities_of(scores, self.link)


class Backbone(ABC):
    """A frozen CLIP-like model. Immutable: copying one returns itself, and its weights never ask for gradients.

    A pickle of one holds its name and fingerprint and no weights: who unpickles it loads it by that name, and is refused
    other weights. Only a model that was made from weights at hand, and so cannot be loaded, is pickled whole.

    Attributes:
        name: as the user writes it, e.g. "openclip:ViT-B-16/openai".
        fingerprint: SHA-256 of the architecture and all weights; two backbones with one fingerprint give one answer.
        embed_dim: D.
        preprocessing: of images, before `encode_image`.
        tokenizer, text: of prompts.
        image: the image tower; None where a backbone does not give it away.
        score_head: how it compares images with texts.
        load_again: loads it by its name as it was loaded (`load_backbone` sets it); None: no name does.
    """

    name: str
    fingerprint: str
    device: torch.device
    embed_dim: int
    score_head: ScoreHead
    preprocessing: Preprocessing
    tokenizer: Tokenizer
    text: TextTower
    image: ImageTower | None = None
    model: nn.Module
    load_again: Callable[[], Backbone] | None = None

    @property
    def logit_scale(self) -> float:
        """The factor on the cosine similarity: that of `score_head`."""
        return self.score_head.scale

    @abstractmethod
    def encode_image(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        """Preprocessed pixels to image features in float32, *not* normalised; runs without gradients."""

    def image_tower(self) -> ImageTower:
        """A copy of the image tower, to be trained: pixels (n, 3, h, w) to features (n, D), differentiable.

        It stays in evaluation mode: the statistics of batch normalisation are those of pre-training.

        Raises:
            UnsupportedBackboneError: this kind of backbone does not give its image tower away.
        """
        if self.image is not None:
            return copy.deepcopy(self.image).eval().requires_grad_(True)
        raise UnsupportedBackboneError(f"{self.name}: the image tower of a {type(self).__name__} cannot be trained.")

    def with_image_tower(self, tower: nn.Module) -> Backbone:
        """The same model with a tower that came from `image_tower`, frozen here: a backbone with its own fingerprint.

        Raises:
            UnsupportedBackboneError: see `image_tower`.
        """
        raise UnsupportedBackboneError(f"{self.name}: the image tower of a {type(self).__name__} cannot be exchanged.")

    def with_value_range(self, value_range: ValueRange) -> Backbone:
        """The same model with images of more than 8 bits per value scaled so that these two are black and white.

        Raises:
            ParameterError: they are not two different finite numbers.
        """
        return self.with_preprocessing(replace(self.preprocessing, value_range=value_range))

    def with_preprocessing(self, preprocessing: Preprocessing) -> Backbone:
        """The same model with images prepared in another way."""
        other = _with_attributes(type(self), vars(self))
        other.preprocessing = preprocessing
        return other

    def __copy__(self) -> Backbone:
        return self

    def __deepcopy__(self, memo: dict) -> Backbone:
        # scikit-learn's clone() copies parameters deeply; a frozen model need not be held twice.
        return self

    def _made_by(self) -> tuple[Callable[..., Backbone], tuple[Any, ...]]:
        """A function and arguments, all of which can be pickled, that make this backbone from its weights."""
        return _with_attributes, (type(self), vars(self))

    def __reduce__(self) -> tuple[Any, ...]:
        return unpickled, (PickledBackbone.of(self, *self._made_by()),)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.fingerprint[:12]}>"


def _with_attributes(cls: type[Backbone], attributes: dict[str, Any]) -> Backbone:
    made = object.__new__(cls)
    vars(made).update(attributes)
    return made


def fingerprint_of(model: nn.Module, architecture: str) -> str:
    """SHA-256 (hex) over a description of the architecture and every tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(architecture.encode())
    for name, tensor in sorted(model.state_dict().items()):
        data = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {data.dtype} {tuple(data.shape)}\n".encode())
        digest.update(data.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def frozen(model: nn.Module) -> nn.Module:
    """The model in evaluation mode with no parameter asking for gradients (changed in place)."""
    return model.eval().requires_grad_(False)


__all__ = ["Backbone", "Framing", "ScoreHead", "TextTower", "Tokenizer", "fingerprint_of", "frozen"]
