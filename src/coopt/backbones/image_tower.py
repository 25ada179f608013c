"""Image towers: pixels to features, and tokens added at the input of a block where the tower's blocks are a ViT's.

Notation: n images, M added tokens, V width of the image tower, P width before its projection, D width of the shared
embedding space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopt.errors import ParameterError, UnsupportedBackboneError


@dataclass(frozen=True)
class Projection:
    """The linear map that an image tower ends with, from its own width P into the shared embedding space.

    Attributes:
        weight: name of its weight among the tower's `named_parameters`.
        bias: that of its bias; None where it has none.
        transposed: the weight is stored (D, P), as torch's `nn.Linear` does, instead of (P, D).
    """

    weight: str
    bias: str | None
    transposed: bool


_LINEAR_ENDS = ("attnpool.c_proj", "head.proj", "head.mlp.fc2")
"""Layers that towers end with: a ResNet's behind its attention pooling, and those that open_clip puts behind timm's towers."""

_VIT_PARTS = ("conv1", "class_embedding", "positional_embedding", "ln_pre", "transformer", "ln_post")


class ImageTower(nn.Module):
    """An image tower: pixels (n, 3, h, w) to features (n, D), not normalised.

    Args:
        visual: a module that does so, such as an open_clip model's; it may give a tuple, with the features first.

    Attributes:
        depth: number of blocks at whose input tokens can be added; 0 where the blocks are not a ViT's.
        width: V, of those tokens; 0 likewise.
    """

    def __init__(self, visual: Any) -> None:
        super().__init__()
        self.visual = visual
        known = _is_plain_vit(visual)
        self.depth = len(visual.transformer.resblocks) if known else 0
        self.width = int(visual.class_embedding.shape[-1]) if known else 0

    def forward(
        self,
        pixels: Float[Tensor, "n 3 height width"],
        at_block: Mapping[int, Tensor] | None = None,
        read: Float[Tensor, "token_width dim"] | None = None,
    ) -> Float[Tensor, "n features"]:
        """Features in float32.

        Args:
            pixels: preprocessed.
            at_block: block, counted from 0, to tokens (M, V) for all images, or (n, M, V). Those of the first block
                named are added behind the image's own, those of later ones replace them; before the tower reads out its
                feature they are dropped.
            read: a projection for the mean of the tokens, as the last block leaves them and the tower's last norm: a
                feature of their own (n, D), which then stands behind the image's, (n, 2 D). None: they are not read out.

        Raises:
            UnsupportedBackboneError: tokens were given, and the tower's blocks are not a ViT's.
            ParameterError: there is no such block, or the blocks' tokens differ in number.
        """
        if at_block:
            return self._with_tokens(pixels, at_block, read).float()
        features = self.visual(pixels)
        return (features[0] if isinstance(features, tuple) else features).float()

    @property
    def projection(self) -> Projection | None:
        """The linear map that it ends with; None where it ends otherwise (SigLIP's), or is of an unknown kind."""
        if isinstance(getattr(self.visual, "proj", None), nn.Parameter):
            return Projection("visual.proj", None, transposed=False)
        parts = dict(self.visual.named_modules())
        for name in _LINEAR_ENDS:
            if isinstance(layer := parts.get(name), nn.Linear):
                bias = None if layer.bias is None else f"visual.{name}.bias"
                return Projection(f"visual.{name}.weight", bias, transposed=True)
        return None

    def pre_norm(self, tokens: Float[Tensor, "*n width"]) -> Float[Tensor, "*n width"]:
        """What the tower does to its own tokens before the first block: for tokens that are to go through it too."""
        return self.visual.ln_pre(tokens)

    def _with_tokens(self, pixels: Tensor, at_block: Mapping[int, Tensor], read: Tensor | None) -> Tensor:
        if not self.depth:
            raise UnsupportedBackboneError(
                f"Tokens cannot be added to an image tower of the kind {type(self.visual).__name__}: its blocks are not "
                "those of CLIP's vision transformer."
            )
        _check_tokens(at_block, self.depth)
        visual = self.visual
        patches = visual.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([visual.class_embedding.expand(pixels.shape[0], 1, -1), patches], dim=1)
        x = visual.ln_pre(x + visual.positional_embedding)
        length = x.shape[1]
        for i, block in enumerate(visual.transformer.resblocks):
            if i in at_block:
                tokens = at_block[i].to(x.dtype).expand(x.shape[0], -1, -1)
                x = torch.cat([x[:, :length], tokens], dim=1)
            x = block(x)
        own = _read_out(visual, x[:, :length])
        if read is None:
            return own
        return torch.cat([own, visual.ln_post(x[:, length:]).mean(dim=1) @ read], dim=1)


def _check_tokens(at_block: Mapping[int, Tensor], depth: int) -> None:
    wrong = sorted(set(at_block) - set(range(depth)))
    if wrong:
        raise ParameterError(f"There is no block {wrong[0]} in an image tower of {depth} blocks, counted from 0.")
    counts = {tokens.shape[-2] for tokens in at_block.values()}
    if len(counts) > 1:
        raise ParameterError(f"All blocks must be given as many tokens. Got {sorted(counts)}.")


def _is_plain_vit(visual: Any) -> bool:
    """Whether the tower is CLIP's vision transformer in all that `_with_tokens` does itself."""
    if not all(hasattr(visual, part) for part in _VIT_PARTS) or getattr(visual, "attn_pool", None) is not None:
        return False
    batch_first = getattr(visual.transformer, "batch_first", True)
    return batch_first and visual.pool_type in ("tok", "avg") and hasattr(visual.transformer, "resblocks")


def _read_out(visual: Any, x: Float[Tensor, "n length width"]) -> Float[Tensor, "n dim"]:
    """The feature from what the last block gives: pooled and normed, in the tower's own order, and projected."""
    norm_last = getattr(visual, "final_ln_after_pool", False)
    x = x if norm_last else visual.ln_post(x)
    pooled = x[:, 1:].mean(dim=1) if visual.pool_type == "avg" else x[:, 0]
    pooled = visual.ln_post(pooled) if norm_last else pooled
    return pooled if visual.proj is None else pooled @ visual.proj
