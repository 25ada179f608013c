"""open_clip's text towers: what they are by their attributes, and their blocks for the fast path.

Nothing here goes by a model's name. The attributes are held to account by perturbation tests.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coopt.backbones.protocol import Framing, Tokenizer
from coopt.backbones.text_tower import AtBlock, OpenBlock, OpenTower, Pooling, TextTower, pooled_at
from coopt.errors import BackboneError, UnsupportedBackboneError

_BLOCK_PARTS = {"ln_1", "attn", "ls_1", "ln_2", "mlp", "ls_2"}
_TOWER_PARTS = ("token_embedding", "positional_embedding", "transformer", "ln_final")


class OpenClipText(TextTower):
    """The text tower of an open_clip CLIP, CustomTextCLIP or CoCa, causal or not.

    CoCa's puts a class token behind the context length and reads its row. Which padding that token sees is the model's own
    affair: with `correct_cls_mask` none, in the published ones the first token of it.

    Its weights are the model's own, under the names that they have there.

    Args:
        model: owner of the text modules, or a model whose `text` owns them.
        tokenizer: the one that the tower was trained with.
        name: for messages.

    Attributes:
        dim: D, of the features.

    Raises:
        UnsupportedBackboneError: the tower is not of open_clip's own kind, or pools in a way that prompts cannot use.
        BackboneError: the tokenizer is not the tower's.
    """

    attn_mask: Tensor | None

    def __init__(self, model: Any, tokenizer: Tokenizer, name: str = "This model") -> None:
        super().__init__()
        tower: Any = model.text if hasattr(model, "text") else model
        _refuse_foreign(tower, name)
        # CLIP keeps the text modules itself, under names of its own; CustomTextCLIP's tower calls them plainly.
        inside = tower is model
        self.cls_emb: nn.Parameter | None = getattr(tower, "cls_emb", None)
        pool_type = getattr(tower, "text_pool_type" if inside else "pool_type", "argmax")
        self.pooling: Pooling = _pooling(pool_type, name) if self.cls_emb is None else "last"
        self.token_embedding: nn.Embedding = tower.token_embedding
        self.positional_embedding: Tensor = tower.positional_embedding
        self.transformer = tower.transformer
        self.ln_final = tower.ln_final
        self.text_projection = tower.text_projection
        self.register_buffer("attn_mask", tower.attn_mask, persistent=False)
        self.causal = is_causal(tower.attn_mask)
        # After the end token a causal tower sees nothing, unless it reads its feature at the very last position.
        self.padding_matters = not self.causal or self.pooling == "last"
        self.width = self.token_embedding.embedding_dim
        self.context_length = int(tower.context_length)
        self.end_id = tokenizer.framing.end
        self.pad_id = int(getattr(tower, "pad_id", tokenizer.framing.pad))
        self._sees_first_padding = not getattr(tower, "correct_cls_mask", False)
        _refuse_wrong_tokenizer(self, tokenizer, getattr(tower, "text_eos_id" if inside else "eos_id", None), name)
        self._describe_blocks()
        with torch.no_grad():
            self.dim = int(self._project(torch.zeros(1, self.width, device=self.device)).shape[-1])

    def _describe_blocks(self) -> None:
        modules = list(self.transformer.resblocks)
        blocks = open_blocks(modules)
        self.depth = len(modules) if getattr(self.transformer, "batch_first", True) else 0
        self.heads = int(modules[0].attn.num_heads)
        self.hidden = blocks[0].fc.out_features if blocks else 0
        if blocks and (not self.padding_matters if self.causal else self.attn_mask is None):
            self.open = OpenTower(
                blocks, self.heads, self.positional_embedding, self.ln_final, _projection(self.text_projection)
            )

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """Rows of the embedding table."""
        return self.token_embedding.weight[ids]

    def forward(
        self,
        vectors: Float[Tensor, "classes length width"],
        ids: Int[Tensor, "classes length"],
        at_block: AtBlock | None = None,
    ) -> Float[Tensor, "classes dim"]:
        """The same operations in the same order as in the model's own `encode_text`, from the embeddings on."""
        x, mask = vectors, self.attn_mask
        if self.cls_emb is not None:
            x = torch.cat([x, self.cls_emb.expand(len(x), 1, -1)], dim=1)
            mask = self._mask_with_class_token(ids)
        x = x + self.positional_embedding[: x.shape[1]]
        if at_block:
            for i, block in enumerate(self.transformer.resblocks):
                x = block(at_block[i].put_into(x) if i in at_block else x, attn_mask=mask)
        else:
            x = self.transformer(x, attn_mask=mask)
        if self.cls_emb is not None:
            return self._project(self.ln_final(x[:, -1]))
        x = self.ln_final(x)
        return self._project(x[torch.arange(len(x), device=x.device), pooled_at(self.pooling, ids, self.end_id)])

    def _mask_with_class_token(self, ids: Int[Tensor, "classes length"]) -> Float[Tensor, "heads_of_classes n n"]:
        """The causal mask for each prompt and head, without the padding; n is the length with the class token.

        In the published models the row that tells words from padding is shifted by one: the first token of the padding
        counts as a word, and the class token itself as the last of the padding, unless the prompt is full.
        """
        assert self.attn_mask is not None
        words, token = ids != self.pad_id, ids.new_ones(len(ids), 1, dtype=torch.bool)
        seen = torch.cat([token, words] if self._sees_first_padding else [words, token], dim=1)
        hidden = torch.zeros(seen.shape, device=ids.device).masked_fill(~seen, float("-inf"))
        return (self.attn_mask + hidden[:, None]).repeat_interleave(self.heads, dim=0)

    def _project(self, x: Float[Tensor, "n width"]) -> Float[Tensor, "n dim"]:
        return _projection(self.text_projection)(x)


def is_causal(mask: Tensor | None) -> bool:
    """Whether an additive attention mask hides from every token exactly the tokens after it."""
    if mask is None:
        return False
    later = torch.ones_like(mask, dtype=torch.bool).triu(1)
    return bool((mask[later] == float("-inf")).all() and (mask[~later] == 0).all())


def open_blocks(blocks: list[nn.Module]) -> tuple[OpenBlock, ...] | None:
    """The blocks as the fast path takes them; None when one has parts that only its own forward knows."""
    opened = [_open_block(block) for block in blocks]
    return tuple(block for block in opened if block is not None) if all(opened) else None


def _open_block(block: nn.Module) -> OpenBlock | None:
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
    return OpenBlock(
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


def _refuse_foreign(tower: Any, name: str) -> None:
    missing = [part for part in _TOWER_PARTS if not hasattr(tower, part)]
    if missing:
        raise UnsupportedBackboneError(
            f"{name}: its text tower is a {type(tower).__name__} without {', '.join(missing)}; "
            "coopt trains prompts for open_clip's own text towers."
        )
    if getattr(tower, "use_pad_mask", False):  # no configuration of open_clip asks for it
        raise UnsupportedBackboneError(f"{name}: its text tower makes a mask of the padding, which is not supported.")


def _pooling(pool_type: str, name: str) -> Pooling:
    if pool_type not in ("argmax", "eos", "last"):
        raise UnsupportedBackboneError(
            f"{name}: its text tower pools at {pool_type!r}; prompts need the end token ('argmax' or 'eos') or the last "
            "position ('last')."
        )
    return cast(Pooling, pool_type)


def _refuse_wrong_tokenizer(tower: OpenClipText, tokenizer: Tokenizer, end_id: int | None, name: str) -> None:
    """A tokenizer that the tower was not trained with gives features of something else, without an error."""
    framing: Framing = tokenizer.framing
    wrong = "the configuration names the wrong tokenizer."
    size = tower.token_embedding.num_embeddings
    if tokenizer.vocab_size > size:
        raise BackboneError(
            f"{name}: its tokenizer has {tokenizer.vocab_size} tokens and its text tower only {size}; {wrong}"
        )
    if tower.cls_emb is not None and framing.pad != tower.pad_id:
        raise BackboneError(
            f"{name}: its text tower takes the token {tower.pad_id} for padding, and its tokenizer pads with {framing.pad}; "
            f"{wrong}"
        )
    if tower.pooling == "eos" and end_id not in (None, framing.end):
        raise BackboneError(
            f"{name}: its text tower reads out at the token {end_id}, and its tokenizer ends with {framing.end}; {wrong}"
        )


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
