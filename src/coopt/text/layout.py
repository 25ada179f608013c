"""Prompts as slots: at each position of a prompt stands a constant token or a learned context vector.

CoOp (Zhou et al., IJCV 2022), eq. 2 and 4, with M context vectors [V] and the class name anywhere:

    end     start [V]1 ... [V]M name . end
    middle  start [V]1 ... [V]M/2 name [V]M/2+1 ... [V]M . end
    front   start name [V]1 ... [V]M . end

Hand-made templates are the same thing without context vectors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache
from itertools import chain
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import Tensor

from coopt.backbones.protocol import Backbone, Framing
from coopt.errors import ClassNameWarning, DataError, ParameterError, PromptTooLongError
from coopt.wording import on_command_line, subject

Position = Literal["end", "middle", "front"]
POSITIONS: tuple[Position, ...] = ("end", "middle", "front")


@dataclass(frozen=True)
class Prompts:
    """C prompts of up to L tokens, described by slots.

    Attributes:
        token_ids: the constant token at each position; the pad id after the end and at context positions.
        context_index: which context vector stands at a position; -1 where a constant token (or padding) does.
        lengths: tokens of each prompt, start and end included.
        framing: the tokens around them, and what fills them up.
        class_specific: each class has context vectors of its own, so context positions are never shared.
        enters: the block at whose input the context slots are put in; before it they are not there, and prompts are as much
            shorter. 0: they are there from the beginning.
    """

    token_ids: Int[Tensor, "classes length"]
    context_index: Int[Tensor, "classes length"]
    lengths: Int[Tensor, " classes"]
    framing: Framing
    class_specific: bool = False
    enters: int = 0

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, classes: Int[Tensor, " chosen"]) -> Prompts:
        """Some of the prompts."""
        return replace(
            self,
            token_ids=self.token_ids[classes],
            context_index=self.context_index[classes],
            lengths=self.lengths[classes],
        )

    @cached_property
    def shared(self) -> int:
        """P, the number of leading positions that are the same for all classes (at most: all but the end token)."""
        same = (self.token_ids == self.token_ids[:1]) & (self.context_index == self.context_index[:1])
        if self.class_specific:
            same = same & (self.context_index < 0)
        shared = int(same.all(dim=0).long().cumprod(dim=0).sum())
        return min(shared, int(self.lengths.min()) - 1)

    @cached_property
    def before(self) -> Prompts:
        """The prompts as they are before their context slots are put in, which stand at the same positions in all of them."""
        there = self.context_index[0] < 0
        slots = int((~there).sum())
        return replace(
            self,
            token_ids=self.token_ids[:, there],
            context_index=self.context_index[:, there],
            lengths=self.lengths - slots,
            enters=0,
        )

    @cached_property
    def is_context(self) -> Bool[Tensor, "classes length"]:
        """True where a context vector stands."""
        return self.context_index >= 0


def _pack(backbone: Backbone, rows: Sequence[Sequence[tuple[int, int]]], class_specific: bool) -> Prompts:
    """Rows of (token id, context index) pairs as padded tensors."""
    lengths = torch.tensor([len(row) for row in rows])
    stands = torch.arange(int(lengths.max())) < lengths[:, None]
    # Through NumPy: torch reads a long list of numbers ten times slower.
    slots = torch.from_numpy(np.fromiter(chain.from_iterable(chain.from_iterable(rows)), np.int64)).view(-1, 2)
    framing = backbone.tokenizer.framing
    token_ids, context_index = torch.full(stands.shape, framing.pad), torch.full(stands.shape, -1)
    token_ids[stands], context_index[stands] = slots.unbind(1)
    return Prompts(token_ids, context_index, lengths, framing, class_specific)


def _start(backbone: Backbone) -> list[tuple[int, int]]:
    """The start token's slot; a few multilingual towers were trained without one."""
    start = backbone.tokenizer.framing.start
    return [] if start is None else [(start, -1)]


def clean_name(name: str) -> str:
    """A class name as it goes into a prompt: underscores become blanks, as in the reference."""
    return name.replace("_", " ")


@lru_cache(maxsize=1 << 17)
def _encoded(encode: Callable[[str], list[int]], text: str) -> tuple[int, ...]:
    """What a tokenizer's `encode` makes of a text: asked for again and again, and it takes a second for 15,000 names."""
    return tuple(encode(text))


def _continued(encode: Callable[[str], list[int]], text: str) -> tuple[int, ...]:
    """What a text is encoded to behind other words: some tokenizers (RoBERTa's, SigLIP 2's) tell a word that begins a text
    from one behind a blank."""
    word = _encoded(encode, "a")
    if _encoded(encode, "a cat") == word + _encoded(encode, "cat"):  # CLIP's does not
        return _encoded(encode, text)
    both = _encoded(encode, f"a {text}")
    rest = both[len(word) :] if both[: len(word)] == word else ()
    return rest or _encoded(encode, text)


def words_ids(backbone: Backbone, words: str, begins: bool) -> tuple[int, ...]:
    """Token ids of some words of a prompt; `begins`: nothing stands before them."""
    return (_encoded if begins else _continued)(backbone.tokenizer.encode, clean_name(words))


def _name_ids(backbone: Backbone, name: str, begins: bool) -> tuple[tuple[int, ...], int]:
    """Token ids of "name.", and how many of them stand before what follows the name.

    The period belongs to the text, because some names swallow it ("crane (bird)."); their last token stays with the name,
    since the length of the bare name decides.

    Args:
        backbone: whose tokenizer is used.
        name: of the class.
        begins: nothing stands before it.
    """
    ids = words_ids(backbone, f"{name}.", begins)
    _refuse_special_tokens(backbone, name, ids)
    return ids, len(words_ids(backbone, name, begins))


def _refuse_special_tokens(backbone: Backbone, text: str, ids: Sequence[int]) -> None:
    special = {backbone.tokenizer.framing.start, backbone.tokenizer.framing.end} & set(ids)
    if special:
        raise DataError(
            f"{text!r} contains the text tower's start or end token (id {special.pop()}), which would cut the prompt. "
            "Rename the class or the template."
        )


def check_class_names(backbone: Backbone, class_names: Sequence[str]) -> None:
    """Refuses names without content and warns of names that the text tower cannot tell apart.

    Raises:
        DataError: a name is empty or blank.
    """
    seen: dict[tuple[int, ...], str] = {}
    alike: list[tuple[str, str]] = []
    for name in class_names:
        if not any(letter.isprintable() and not letter.isspace() for letter in clean_name(name)):
            raise DataError(f"A class name must have at least one visible character. Got {name!r}; rename the class.")
        ids = _encoded(backbone.tokenizer.encode, clean_name(name))
        if ids in seen:
            alike.append((seen[ids], name))
        seen.setdefault(ids, name)
    if alike:
        one, other = alike[0]
        more = f" ({len(alike)} such pairs)" if len(alike) > 1 else ""
        warnings.warn(
            f"Classes {one!r} and {other!r} have the same tokens, so a prompt cannot tell them apart{more}. "
            f"Rename one, or use class-specific context ({'`coopt fit --csc`' if on_command_line() else 'csc=True'}).",
            ClassNameWarning,
            stacklevel=2,
        )


def context_prompts(
    backbone: Backbone,
    class_names: Sequence[str],
    n_ctx: int,
    position: Position = "end",
    class_specific: bool = False,
) -> Prompts:
    """Prompts with `n_ctx` learned vectors around each class name.

    Raises:
        ParameterError: `position` is none of end, middle, front.
        PromptTooLongError: a prompt does not fit the text tower.
        DataError: a class name is not usable.
    """
    if position not in POSITIONS:
        raise ParameterError(
            f"{subject('position', 'a prompt')} must be one of {', '.join(POSITIONS)}. Got {position!r} instead."
        )
    framing = backbone.tokenizer.framing
    context = [(framing.pad, index) for index in range(n_ctx)]
    start, end = _start(backbone), (framing.end, -1)
    before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
    rows = []
    for name in class_names:
        tokens, split = _name_ids(backbone, name, begins=before == 0)
        ids = [(token, -1) for token in tokens]
        if position == "end":
            row = [*start, *context, *ids, end]
        else:
            row = [*start, *context[:before], *ids[:split], *context[before:], *ids[split:], end]
        limit = backbone.text.context_length
        if len(row) > limit:
            raise PromptTooLongError(
                f"The prompt of class {name!r} has {len(row)} tokens ({n_ctx} context vectors, {len(ids)} for the name, "
                f"start and end), but {backbone.name} takes {limit}. Shorten the name or lower n_ctx by {len(row) - limit}."
            )
        rows.append(row)
    return _pack(backbone, rows, class_specific)


def template_prompts(backbone: Backbone, class_names: Sequence[str], template: str) -> Prompts:
    """Prompts of one hand-made template such as "a photo of a {}, a type of pet.".

    Raises:
        ParameterError: the template does not hold exactly one "{}".
        PromptTooLongError: a prompt does not fit the text tower.
    """
    if template.count("{}") != 1:
        raise ParameterError(f"A template must hold '{{}}' exactly once, for the class name. Got {template!r}.")
    rows = []
    for name in class_names:
        text = template.replace("{}", clean_name(name))
        ids = _encoded(backbone.tokenizer.encode, text)
        _refuse_special_tokens(backbone, text, ids)
        limit = backbone.text.context_length
        row = [*_start(backbone), *((token, -1) for token in (*ids, backbone.tokenizer.framing.end))]
        if len(row) > limit:
            raise PromptTooLongError(
                f"The prompt {text!r} has {len(row)} tokens, but {backbone.name} takes {limit}. "
                "Shorten the class name or the template."
            )
        rows.append(row)
    return _pack(backbone, rows, False)


def inserted_prompts(backbone: Backbone, class_names: Sequence[str], template: str, n_ctx: int, block: int) -> Prompts:
    """Prompts of a hand-made template, into which `n_ctx` slots are put behind the start token at the input of a block.

    Args:
        backbone: whose tokenizer is used.
        class_names: C names.
        template: such as "a photo of a {}.".
        n_ctx: how many slots.
        block: counted from 0; from 1 on.

    Raises:
        PromptTooLongError: a prompt does not fit the text tower with them.
        CooptError: see `template_prompts`.
    """
    prompts, at = template_prompts(backbone, class_names, template), len(_start(backbone))
    longest, limit = int(prompts.lengths.argmax()), backbone.text.context_length
    if (length := int(prompts.lengths[longest]) + n_ctx) > limit:
        raise PromptTooLongError(
            f"The prompt of class {class_names[longest]!r} has {length} tokens, {n_ctx} of them put in between blocks, but "
            f"{backbone.name} takes {limit}. Shorten the name, the template or the number of tokens by {length - limit}."
        )

    def widened(table: Tensor, slots: Tensor) -> Tensor:
        return torch.cat([table[:, :at], slots.expand(len(table), -1), table[:, at:]], dim=1)

    pads = torch.full((n_ctx,), backbone.tokenizer.framing.pad)
    return replace(
        prompts,
        token_ids=widened(prompts.token_ids, pads),
        context_index=widened(prompts.context_index, torch.arange(n_ctx)),
        lengths=prompts.lengths + n_ctx,
        enters=block,
    )
