"""The text pass as a plain module: no gradient of its own, no hooks, nothing but torch's own layers, so it can be exported.

The same mathematics as in `fast.py`, and the readable version of it: what all classes share runs once, and each class runs
its own tokens against it. But tails are padded to the longest one, and attention is torch's.

Notation: G groups, C classes, P prefix tokens, T tokens of the longest tail, M context vectors, W width, H heads, D output
width.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from coopt.backbones.protocol import Backbone
from coopt.backbones.text_tower import OpenBlock
from coopt.errors import UnsupportedBackboneError
from coopt.text.layout import Prompts


class PlainText(nn.Module):
    """Contexts to the text features of fixed prompts.

    Args:
        backbone: whose text tower takes the fast path.
        prompts: C prompts, whose context is not class-specific.

    Raises:
        UnsupportedBackboneError: the text tower does not take the fast path, or the prompts are class-specific: their
            features are what there is to export.
    """

    def __init__(self, backbone: Backbone, prompts: Prompts) -> None:
        super().__init__()
        opened = backbone.text.open
        if opened is None or backbone.text.text_path != "fast" or prompts.class_specific:
            what = "class-specific prompts" if prompts.class_specific else f"the text tower of {backbone.name}"
            raise UnsupportedBackboneError(
                f"There is no plain text pass of {what}. Use the features of the classes, which do not change."
            )
        self.tower = backbone.text  # its weights are this module's
        self.heads, self.blocks = opened.heads, opened.blocks
        self.final_norm, self.projection = opened.final_norm, opened.projection
        shared, lengths = prompts.shared, prompts.lengths
        self.shared, longest = shared, int(lengths.max())
        index, device = prompts.context_index[:, :longest], backbone.device
        with torch.no_grad():
            rows = backbone.text.embed(prompts.token_ids[:, :longest].to(device))
            rows = rows * (index < 0)[..., None].to(device) + opened.positions[:longest]
        self.register_buffer("prefix", rows[0, :shared].clone())
        self.register_buffer("tails", rows[:, shared:].clone())
        # One row for each slot: which vector it takes is a product with a matrix of ones and zeros.
        slots = F.one_hot(index.clamp(min=0), int(index.max()) + 1 if int(index.max()) >= 0 else 1)
        slots = (slots * (index >= 0)[..., None]).to(device, rows.dtype)
        self.register_buffer("prefix_slots", slots[0, :shared].clone())
        self.register_buffer("tail_slots", slots[:, shared:].clone())
        ends = F.one_hot(lengths - shared - 1, longest - shared)
        self.register_buffer("ends", ends.to(device, rows.dtype))
        self.register_buffer("seen", _seen(shared, longest - shared).to(device))

    def forward(self, context: Float[Tensor, "*groups n_ctx width"]) -> Float[Tensor, "*groups classes dim"]:
        """Features (not normalised) for a context (M, W), or one for each group (G, M, W)."""
        contexts = context if context.ndim == 3 else context[None]
        prefix = self.get_buffer("prefix") + self.get_buffer("prefix_slots") @ contexts  # (G, P, W)
        tails = self.get_buffer("tails") + self.get_buffer("tail_slots") @ contexts[:, None]  # (G, C, T, W)
        for block in self.blocks:
            prefix, tails = self._block(block, prefix, tails)
        x = (self.get_buffer("ends")[:, None] @ tails).squeeze(-2)  # (G, C, W): the rows of the end tokens
        features = self.projection(self.final_norm(x))
        return features if context.ndim == 3 else features[0]

    def _block(
        self, block: OpenBlock, prefix: Float[Tensor, "G P W"], tails: Float[Tensor, "G C T W"]
    ) -> tuple[Float[Tensor, "G P W"], Float[Tensor, "G C T W"]]:
        query, key, value = self._project(block, prefix)  # each (G, H, P, W / H)
        attended = F.scaled_dot_product_attention(query, key, value, is_causal=True) if self.shared else query
        tail_query, tail_key, tail_value = self._project(block, tails)  # each (G, C, H, T, W / H)
        keys = torch.cat([_for_each(key, tail_key), tail_key], dim=-2)  # (G, C, H, P + T, W / H)
        values = torch.cat([_for_each(value, tail_value), tail_value], dim=-2)
        tail_attended = F.scaled_dot_product_attention(tail_query, keys, values, attn_mask=self.get_buffer("seen"))
        return _rest(block, prefix, attended), _rest(block, tails, tail_attended)

    def _project(self, block: OpenBlock, x: Float[Tensor, "*rows W"]) -> tuple[Tensor, ...]:
        """Queries, keys and values, head by head."""
        rows = F.linear(block.ln_1(x), block.qkv_weight, block.qkv_bias)
        return tuple(part.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for part in rows.chunk(3, dim=-1))


def _rest(block: OpenBlock, x: Float[Tensor, "*rows W"], attended: Tensor) -> Float[Tensor, "*rows W"]:
    """What follows attention in a block."""
    x = x + block.scale_1(block.out_proj(attended.transpose(-2, -3).flatten(-2)))
    return x + block.scale_2(block.proj(block.activation(block.fc(block.ln_2(x)))))


def _for_each(of_prefix: Float[Tensor, "G H P d"], like: Float[Tensor, "G C H T d"]) -> Float[Tensor, "G C H P d"]:
    """The prefix's keys or values for each of the classes."""
    return of_prefix[:, None].expand(-1, like.shape[1], -1, -1, -1)


def _seen(prefix: int, tail: int) -> Bool[Tensor, "T P_and_T"]:
    """What each row of a tail sees: the whole prefix, itself and what stands before it."""
    return torch.cat([torch.ones(tail, prefix), torch.ones(tail, tail).tril()], dim=1).bool()
