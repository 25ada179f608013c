"""What coopt asks of a frozen CLIP-like model.

Notation: N images, C classes, L tokens of a prompt, W text width, D width of the shared embedding space.
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coopt.backbones.preprocessing import Preprocessing, ValueRange
from coopt.errors import UnsupportedBackboneError

Precision = Literal["auto", "fp32", "bf16"]
"""Of a tower's matrix products; what is between them stays in float32. "auto": see `coopt.backbones.precision`."""

PRECISIONS: tuple[Precision, ...] = ("auto", "fp32", "bf16")


@runtime_checkable
class Tokenizer(Protocol):
    """Text to token ids and back, without the start, end and padding tokens. A `start_id` of None: there is none."""

    start_id: int | None
    end_id: int
    pad_id: int
    vocab_size: int

    def encode(self, text: str) -> list[int]: ...

    def decode(self, ids: list[int]) -> str: ...


@dataclass(frozen=True, eq=False)
class Block:
    """One residual attention block of a text tower, opened for the fast path (frozen tensors, not copies)."""

    ln_1: nn.Module
    qkv_weight: Float[Tensor, "triple_width width"]
    qkv_bias: Float[Tensor, " triple_width"] | None
    out_proj: nn.Linear
    scale_1: nn.Module
    ln_2: nn.Module
    fc: nn.Linear
    activation: nn.Module
    proj: nn.Linear
    scale_2: nn.Module


@dataclass(frozen=True, eq=False)
class TextTower:
    """A text tower and what is true of it. The text pass asks these attributes and never goes by names.

    Attributes:
        causal: a token's feature depends on earlier tokens only.
        pooling: which position is the prompt's feature: the highest id, the first `end_id`, or the last position.
        padding_matters: what stands after the end token changes the feature.
        blocks: the tower opened for the fast path; None when only the native forward knows its kind of block.
        forward: the native forward, token ids (C, L) with L the full context length to features (C, D).
        start_id, end_id, pad_id: token ids that frame a prompt, as the tower (not the tokenizer) understands them.
            `start_id` is None for towers that were trained without a start token (those with mT5's vocabulary).
    """

    causal: bool
    pooling: Literal["argmax", "eos", "last"]
    padding_matters: bool
    width: int
    heads: int
    context_length: int
    start_id: int | None
    end_id: int
    pad_id: int
    token_embedding: nn.Embedding
    positional_embedding: Float[Tensor, "context width"]
    ln_final: nn.Module
    projection: Callable[[Tensor], Tensor]
    forward: Callable[[Int[Tensor, "classes context"]], Float[Tensor, "classes dim"]]
    blocks: tuple[Block, ...] | None = field(repr=False, default=None)

    @contextmanager
    def injected(self, embeddings: Float[Tensor, "classes context width"]) -> Iterator[None]:
        """Within this context the token embedding returns `embeddings` whatever ids it is given.

        Masks and pooling still see the ids, so the native forward runs untouched on learned vectors.
        """
        handle = self.token_embedding.register_forward_hook(lambda *_: embeddings)
        try:
            yield
        finally:
            handle.remove()


class Backbone(ABC):
    """A frozen CLIP-like model. Immutable: copying one returns itself, and its weights never ask for gradients.

    Attributes:
        name: as the user writes it, e.g. "openclip:ViT-B-16/openai".
        fingerprint: SHA-256 of the architecture and all weights; two backbones with one fingerprint give one answer.
        logit_scale: the factor on the cosine similarity (already exponentiated; CLIP: about 100).
        embed_dim: D.
    """

    name: str
    fingerprint: str
    device: torch.device
    embed_dim: int
    logit_scale: float
    preprocessing: Preprocessing
    tokenizer: Tokenizer
    text: TextTower
    model: nn.Module

    @abstractmethod
    def encode_image(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n dim"]:
        """Preprocessed pixels to image features in float32, *not* normalised; runs without gradients."""

    def image_tower(self) -> nn.Module:
        """A copy of the image tower, to be trained: pixels (n, 3, h, w) to features (n, D), differentiable.

        It stays in evaluation mode: the statistics of batch normalisation are those of pre-training.

        Raises:
            UnsupportedBackboneError: this kind of backbone does not give its image tower away.
        """
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
        other = object.__new__(type(self))
        vars(other).update(vars(self))
        other.preprocessing = replace(self.preprocessing, value_range=value_range)
        return other

    def __copy__(self) -> Backbone:
        return self

    def __deepcopy__(self, memo: dict) -> Backbone:
        # scikit-learn's clone() copies parameters deeply; a frozen model need not be held twice.
        return self

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.fingerprint[:12]}>"


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


__all__ = ["Backbone", "Block", "TextTower", "Tokenizer", "fingerprint_of", "frozen"]
