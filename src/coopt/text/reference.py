"""The reference path: every prompt at the tower's full length, through the tower's own forward.

Slow and obviously right; it serves every kind of tower and is what the fast path is held against.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones.text_tower import TextTower
from coopt.text.layout import Prompts


def encode_reference(
    tower: TextTower, prompts: Prompts, context: Float[Tensor, "*shape width"] | None = None
) -> Float[Tensor, "*groups classes dim"]:
    """Text features (not normalised) of C prompts.

    Args:
        tower: the text tower.
        prompts: C prompts.
        context: the learned vectors: (M, W) for all classes, (C, M, W) class-specific, (G, M, W) for G groups (one
            per image in CoCoOp); None for hand-made templates.

    Returns:
        (C, D); with groups (G, C, D).
    """
    if context is not None and context.ndim == 3 and not prompts.class_specific:
        return torch.stack([encode_reference(tower, prompts, group) for group in context])
    device, framing = tower.device, prompts.framing
    ids = torch.full((len(prompts), tower.context_length), framing.pad, device=device)
    ids[:, : prompts.token_ids.shape[1]] = prompts.token_ids.to(device)
    embedded = tower.embed(ids)
    if context is not None:
        rows, columns = prompts.is_context.nonzero(as_tuple=True)
        index = prompts.context_index[rows, columns]
        vectors = context[rows, index] if prompts.class_specific else context[index]
        embedded = embedded.index_put((rows.to(device), columns.to(device)), vectors.to(embedded.dtype))
        ids[rows.to(device), columns.to(device)] = framing.placeholder
    return tower(embedded, ids)
