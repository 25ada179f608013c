"""Opens an open_clip text tower: says what it is by its attributes, and hands out its blocks for the fast path.

Nothing here goes by a model's name. The attributes are held to account by perturbation tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, cast

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopt.backbones.protocol import Block, TextTower, Tokenizer
from coopt.errors import UnsupportedBackboneError

_BLOCK_PARTS = {"ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2"}
_TOWER_PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final")


def open_text_tower(model: Any, tokenizer: Tokenizer, name: str = "This model") -> TextTower:
    """Describe and open the text tower of an open_clip CLIP or CustomTextCLIP.

    Bidirectional towers are described too (`causal` False); refusing them is the caller's affair.

    Args:
        model: owner of the text modules, or a model whose `text` owns them.
        tokenizer: gives the start, end and padding ids where the tower itself does not say.
        name: for messages.

    Raises:
        UnsupportedBackboneError: the text tower is not of open_clip's own kind, appends a class token (CoCa),
            or pools in a way that prompts cannot use.
    """
    tower: Any = model.text if hasattr(model, "text") else model
    missing = [part for part in _TOWER_PARTS if not hasattr(tower, part)]
    if missing:
        raise UnsupportedBackboneError(
            f"{name}: its text tower is a {type(tower).__name__} without {', '.join(missing)}; "
            "coopt trains prompts for open_clip's own text towers."
        )
    if getattr(tower, "cls_emb", None) is not None:
        raise UnsupportedBackboneError(f"{name}: its text tower appends a class token after the text, as CoCa does.")
    # CLIP keeps the text modules itself, under names of its own; CustomTextCLIP's tower calls them plainly.
    own = tower is model
    pooling = _pooling(getattr(tower, "text_pool_type" if own else "pool_type", "argmax"), name)
    tower_end = getattr(tower, "text_eos_id" if own else "eos_id", None)
    causal = is_causal(tower.attn_mask)
    embedding: nn.Embedding = tower.token_embedding
    blocks = list(tower.transformer.resblocks)
    return TextTower(
        causal=causal,
        pooling=pooling,
        # After the end token a causal tower sees nothing, unless it reads its feature at the very last position.
        padding_matters=not causal or pooling == "last",
        width=embedding.embedding_dim,
        heads=int(blocks[0].attn.num_heads),
        context_length=int(tower.context_length),
        start_id=tokenizer.start_id,
        end_id=int(tower_end) if pooling == "eos" and tower_end is not None else tokenizer.end_id,
        pad_id=tokenizer.pad_id,
        token_embedding=embedding,
        positional_embedding=tower.positional_embedding,
        ln_final=tower.ln_final,
        projection=_projection(tower.text_projection),
        forward=model.encode_text,
        blocks=open_blocks(blocks),
    )


def is_causal(mask: Tensor | None) -> bool:
    """Whether an additive attention mask hides from every token exactly the tokens after it."""
    if mask is None:
        return False
    later = torch.ones_like(mask, dtype=torch.bool).triu(1)
    return bool((mask[later] == float("-inf")).all() and (mask[~later] == 0).all())


def open_blocks(blocks: list[nn.Module]) -> tuple[Block, ...] | None:
    """The blocks as the fast path takes them; None when one has parts that only its own forward knows."""
    opened = [_open_block(block) for block in blocks]
    return tuple(block for block in opened if block is not None) if all(opened) else None


def _open_block(block: nn.Module) -> Block | None:
    parts = dict(block.named_children())
    attn, mlp = parts.get("attn"), parts.get("mlp")
    if set(parts) != _BLOCK_PARTS or not isinstance(attn, nn.MultiheadAttention) or not isinstance(mlp, nn.Sequential):
        return None
    plain = attn.in_proj_weight is not None and attn.bias_k is None and not attn.add_zero_attn
    layers = dict(mlp.named_children())
    fc, proj = layers.get("c_fc"), layers.get("c_proj")
    if not plain or list(layers) != ["c_fc", "gelu", "c_proj"]:
        return None
    if not isinstance(fc, nn.Linear) or not isinstance(proj, nn.Linear):
        return None
    return Block(
        ln_1=parts["ln_1"],
        qkv_weight=cast(Tensor, attn.in_proj_weight),
        qkv_bias=attn.in_proj_bias,
        out_proj=attn.out_proj,
        scale_1=parts["ls_1"],
        ln_2=parts["ln_2"],
        fc=fc,
        activation=layers["gelu"],
        proj=proj,
        scale_2=parts["ls_2"],
    )


def _pooling(pool_type: str, name: str) -> Literal["argmax", "eos", "last"]:
    if pool_type not in ("argmax", "eos", "last"):
        raise UnsupportedBackboneError(
            f"{name}: its text tower pools at {pool_type!r}; prompts need the end token ('argmax' or 'eos')."
        )
    return cast(Literal["argmax", "eos", "last"], pool_type)


def _projection(weight: Tensor | nn.Module | None) -> Callable[[Tensor], Tensor]:
    """The text projection, which open_clip keeps as a matrix, as a Linear, or not at all."""
    if weight is None:
        return _identity
    if isinstance(weight, nn.Module):
        return weight
    matrix = weight

    def project(features: Float[Tensor, "*batch width"]) -> Float[Tensor, "*batch dim"]:
        return features @ matrix

    return project


def _identity(features: Tensor) -> Tensor:
    return features
