"""Context vectors: how they begin (Zhou et al., IJCV 2022, section 3.2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones.protocol import Backbone
from coopt.errors import ParameterError
from coopt.text.layout import Position, words_ids
from coopt.wording import called, counted, subject

INIT_STD = 0.02
DEFAULT_INIT = "a photo of a"
"""Where a context begins when nothing is said: at few images per class it is far ahead of a random one
(docs/results.md), and the papers after CoOp begin there too."""


def random_context(
    backbone: Backbone, n_ctx: int, n_classes: int | None, seed: int
) -> Float[Tensor, "*classes n_ctx width"]:
    """Context vectors drawn from N(0, 0.02): (M, W) for all classes, or (C, M, W) when `n_classes` is given."""
    shape = (n_ctx, backbone.text.width) if n_classes is None else (n_classes, n_ctx, backbone.text.width)
    return torch.randn(shape, generator=torch.Generator().manual_seed(int(seed))) * INIT_STD


def word_context(
    backbone: Backbone, words: str, n_classes: int | None = None, position: Position = "end"
) -> Float[Tensor, "*classes n_ctx width"]:
    """Context vectors that begin as the token embeddings of `words`, e.g. "a photo of a".

    Behind the name ("front") they are the tokens that these words have within a text, which some tokenizers tell from a beginning.

    M is the number of *tokens*. (The reference counts words split on blanks, so it cuts "itap of a", three words and
    four tokens, in the wrong place; where both counts agree, so do we.)

    Raises:
        ParameterError: `words` holds no token.
    """
    ids = words_ids(backbone, words, begins=position != "front")
    if not ids:
        raise ParameterError(f"{subject('init', 'a context')} must hold at least one word. Got {words!r} instead.")
    vectors = backbone.text.embed(torch.tensor(ids, device=backbone.device)).detach().float().cpu().clone()
    return vectors if n_classes is None else vectors.expand(n_classes, -1, -1).clone()


def embedding_rms(backbone: Backbone) -> float:
    """How large a text tower's word embeddings are: the root mean square of those of `DEFAULT_INIT`.

    Of words that occur in every model's training. The whole table would not do: most of it may never have been trained.
    """
    return float(word_context(backbone, DEFAULT_INIT).square().mean().sqrt())


def initial_context(
    backbone: Backbone,
    class_names: Sequence[str],
    n_ctx: int | None,
    class_specific: bool,
    init: str | None,
    seed: int,
    position: Position = "end",
) -> Float[Tensor, "*classes n_ctx width"]:
    """The context that training starts from: as `init` words, or `n_ctx` random vectors; neither: `DEFAULT_INIT`.

    Raises:
        ParameterError: `init` holds no token, or both are given and disagree.
    """
    n_classes = len(class_names) if class_specific else None
    if init is None and n_ctx is not None:
        return random_context(backbone, n_ctx, n_classes, seed)
    words = DEFAULT_INIT if init is None else init
    context = word_context(backbone, words, n_classes, position)
    if n_ctx not in (None, context.shape[-2]):
        raise ParameterError(
            f"The words of {called('init')}, {words!r}, are {counted(context.shape[-2], 'token')}, but "
            f"{called('n_ctx')} is {n_ctx}. Give one of the two."
        )
    return context
