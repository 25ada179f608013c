"""Text towers that open_clip takes from the package transformers: BERT, RoBERTa, XLM-R, and the encoders of mT5 and M2M100.

They are not causal, and their attention does not see padding: a prompt may be cut behind its end token, and no feature
changes. Nothing here goes by a model's name.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coopt.backbones.protocol import Tokenizer
from coopt.backbones.text_tower import AtBlock, Pooling, TextTower, Tokens
from coopt.errors import BackboneError, UnsupportedBackboneError

# What the list of blocks, and the module with the token embeddings, are called in one or the other of these encoders.
_BLOCKS = ("encoder.layer", "layers", "block")
_EMBEDDINGS = ("embeddings.word_embeddings", "embed_tokens")
_DEFAULT_LENGTH = 77
# What weights do not tell about such an encoder, by the names that transformers has for it.
_FACTS = (
    *("model_type", "num_attention_heads", "layer_norm_eps", "layer_norm_epsilon", "pad_token_id", "scale_embedding"),
    *("relative_attention_num_buckets", "relative_attention_max_distance"),
)


class HuggingFaceText(TextTower):
    """An `open_clip.hf_model.HFTextEncoder`: an encoder of transformers, pooled and projected.

    Its weights are the model's own, under the names that they have there.

    Args:
        model: open_clip's, whose `text` is such a tower. `context_length` of the tower is the most tokens of a prompt,
            where that is not more than it has positions.
        tokenizer: the one that the tower was trained with.
        name: for messages.

    Attributes:
        dim: D, of the features.

    Raises:
        UnsupportedBackboneError: the encoder's parts are not where those of known ones are, or it pools in a way that
            open_clip itself cannot compute.
        BackboneError: the tokenizer is not the tower's.
    """

    causal = False
    padding_matters = False
    any_length = True

    def __init__(self, model: Any, tokenizer: Tokenizer, name: str = "This model") -> None:
        super().__init__()
        tower = model.text
        self.transformer, self.pooler, self.proj = tower.transformer, tower.pooler, tower.proj
        self._embedding_at = _find(self.transformer, _EMBEDDINGS, name)
        self._blocks_at = _find(self.transformer, _BLOCKS, name)
        self.pooling: Pooling = _pooling(self.pooler, name)
        config = self.transformer.config
        self.pad_id = int(config.pad_token_id)
        embedding = self._embedding
        self.width = embedding.embedding_dim
        self.context_length = _length(tower)
        _refuse_wrong_tokenizer(tokenizer, embedding.num_embeddings, self.pad_id, name)
        self.depth = len(self._blocks)
        self.heads = int(config.num_attention_heads)
        self.hidden = _hidden(self._blocks[0], self.width)
        with torch.no_grad():
            self.dim = int(self.proj(torch.zeros(1, self.width, device=self.device)).shape[-1])

    @property
    def _embedding(self) -> nn.Embedding:
        return cast(nn.Embedding, self.transformer.get_submodule(self._embedding_at))

    @property
    def _blocks(self) -> nn.ModuleList:
        return cast(nn.ModuleList, self.transformer.get_submodule(self._blocks_at))

    @property
    def facts(self) -> str:
        """What the weights' names and shapes do not tell, beside what modules tell: for the fingerprint."""
        config = self.transformer.config
        return "".join(f"\ntext.{key}={getattr(config, key, None)}" for key in _FACTS)

    def embed(self, ids: Int[Tensor, "*shape"]) -> Float[Tensor, "*shape width"]:
        """Rows of the embedding table, in the size that they enter the encoder in (M2M100 scales them)."""
        return self._embedding(ids)

    def forward(
        self,
        vectors: Float[Tensor, "classes length width"],
        ids: Int[Tensor, "classes length"],
        at_block: AtBlock | None = None,
    ) -> Float[Tensor, "classes dim"]:
        """What the model's own `encode_text` computes, from the embeddings on."""
        mask = (ids != self.pad_id).long()
        padding = _padding_position(self.transformer)
        positions = {} if padding is None else {"position_ids": mask.cumsum(dim=1) * mask + padding}
        with self._replaced(at_block or {}):
            out = self.transformer(inputs_embeds=vectors, attention_mask=mask, **positions)
        return self.proj(self.pooler(out, mask))

    @contextmanager
    def _replaced(self, at_block: AtBlock) -> Iterator[None]:
        """Within this context the blocks' inputs are the given ones."""
        handles = [
            self._blocks[i].register_forward_pre_hook(functools.partial(_with_first, tokens), prepend=True)
            for i, tokens in at_block.items()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def is_hugging_face(model: Any) -> bool:
    """Whether the text tower of an open_clip model is an encoder of transformers."""
    tower = getattr(model, "text", None)
    return all(hasattr(tower, part) for part in ("transformer", "pooler", "proj", "config"))


def _with_first(tokens: Tokens, block: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
    """What a block is given, with these tokens in its first argument."""
    return (tokens.put_into(given[0]), *given[1:])


def _pooling(pooler: nn.Module, name: str) -> Pooling:
    if hasattr(pooler, "cls_token_position"):
        return "first"
    kind = type(pooler).__name__
    if (
        kind != "MeanPooler"
    ):  # open_clip's MaxPooler hides the words instead of the padding, by a mask that torch refuses
        raise UnsupportedBackboneError(
            f"{name}: its text tower pools with a {kind}; prompts need the first token or the mean of all."
        )
    return "mean"


def _find(encoder: nn.Module, names: tuple[str, ...], name: str) -> str:
    """The first of these submodules that the encoder has."""
    modules = dict(encoder.named_modules())
    found = next((one for one in names if one in modules), None)
    if found is None:
        raise UnsupportedBackboneError(
            f"{name}: its text tower is a {type(encoder).__name__} of the package transformers without a module called "
            f"{' or '.join(names)}. coopt knows BERT, RoBERTa, XLM-R, and the encoders of mT5 and M2M100."
        )
    return found


def _length(tower: Any) -> int:
    """The most tokens of a prompt: what is asked for, or what the encoder has positions for (mT5 has no such number)."""
    asked = int(tower.context_length) or _DEFAULT_LENGTH
    positions = getattr(tower.transformer.config, "max_position_embeddings", None) or asked
    padding = _padding_position(tower.transformer)
    return min(asked, positions if padding is None else positions - padding - 1)


def _padding_position(encoder: nn.Module) -> int | None:
    """The position that RoBERTa gives to padding, behind which it begins to count; None for other encoders."""
    return getattr(getattr(encoder, "embeddings", None), "padding_idx", None)


def _hidden(block: nn.Module, width: int) -> int:
    """The width of a feed-forward layer; that of both halves where one gates the other."""
    widths = [module.out_features for module in block.modules() if isinstance(module, nn.Linear)]
    return sum(one for one in widths if one > width)


def _refuse_wrong_tokenizer(tokenizer: Tokenizer, size: int, pad_id: int, name: str) -> None:
    wrong = "the configuration names the wrong tokenizer."
    if tokenizer.vocab_size > size:
        raise BackboneError(
            f"{name}: its tokenizer has {tokenizer.vocab_size} tokens and its text tower only {size}; {wrong}"
        )
    if tokenizer.framing.pad != pad_id:
        raise BackboneError(
            f"{name}: its text tower takes the token {pad_id} for padding, and its tokenizer pads with "
            f"{tokenizer.framing.pad}; {wrong}"
        )
