"""The reference path: every prompt at the tower's full length, through the tower's own forward.

Slow and obviously right; it serves every kind of tower and is what the fast path is held against.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.func import functional_call

from coopt.backbones.text_tower import TextTower, Tokens
from coopt.text.fast import Learned
from coopt.text.layout import Prompts


def encode_reference(
    tower: TextTower,
    prompts: Prompts,
    learned: Mapping[int, Learned],
    weights: Mapping[str, Tensor] | None = None,
    length: int | None = None,
) -> Float[Tensor, "*groups classes dim"]:
    """Text features (not normalised) of C prompts.

    Args:
        tower: the text tower.
        prompts: C prompts.
        learned: the vectors of context slots at the input of blocks; those of block 0 are the context.
        weights: what stands for some of the tower's weights, by name.
        length: tokens of a prompt that go through the tower; None: its context length.

    Returns:
        (C, D); where there are vectors for each group (G, C, D).
    """
    grouped = {block: one for block, one in learned.items() if one.vectors.ndim == 3 and not one.class_specific}
    if grouped:
        groups = len(next(iter(grouped.values())).vectors)
        of_group = [
            {**learned, **{block: Learned(one.vectors[g], False) for block, one in grouped.items()}}
            for g in range(groups)
        ]
        return torch.stack([encode_reference(tower, prompts, one, weights, length) for one in of_group])
    device = tower.device
    ids = padded_ids(prompts, length or tower.context_length).to(device)
    entering = prompts.enters
    embedded = tower.embed(padded_ids(prompts.before, ids.shape[1]).to(device) if entering else ids)
    rows, columns = prompts.is_context.nonzero(as_tuple=True)
    index = prompts.context_index[rows, columns]
    at_block = {}
    for block, (vectors, class_specific) in learned.items():
        chosen = vectors[rows, index] if class_specific else vectors[index]
        at_block[block] = Tokens(rows.to(device), columns.to(device), chosen, entering > 0 and block == entering)
    if 0 in at_block:  # before positions are added, as a token's embedding would be
        embedded = at_block.pop(0).put_into(embedded)
    if entering or 0 in learned:
        ids[rows.to(device), columns.to(device)] = prompts.framing.placeholder
    arguments = (embedded, ids, at_block) if at_block else (embedded, ids)
    return functional_call(tower, dict(weights), arguments) if weights else tower(*arguments)


def padded_ids(prompts: Prompts, length: int) -> Int[Tensor, "classes length"]:
    """Token ids of prompts at one length that none exceeds; padding where context vectors stand."""
    ids = torch.full((len(prompts), length), prompts.framing.pad)
    stored = min(length, prompts.token_ids.shape[1])
    ids[:, :stored] = prompts.token_ids[:, :stored]
    return ids
