"""What those methods share that learn from image features at once, beside hand-made prompts, without a recipe.

Notation: N images, C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from coopt.backbones.protocol import Link
from coopt.methods.shared_parameters import SEED
from coopt.methods.templated import WithTemplates
from coopt.methods.validation import ValidatedMethod
from coopt.parameters import fitted
from coopt.training.batches import generator_for
from coopt.wording import counted

FOLDS = 4
"""Parts into which the images of a class are dealt, of which one after the other is held out."""


class FeatureAdapter(WithTemplates):
    """Base of the methods that learn beside the text features of hand-made prompts, from all image features at once.

    Attributes:
        template_features_: normalised text features of the hand-made prompts, (C, D).
    """

    @property
    def links(self) -> tuple[Link, ...]:
        """What is added to the backbone's scores takes the meaning from its bias."""
        return ("softmax",)

    def _text(self) -> Float[Tensor, "classes dim"]:
        """The text features, for arithmetic in float64."""
        return in_double(self.template_features_)


@dataclass(frozen=True)
class Trial:
    """What came of each of some settings on images that were not learned from.

    Attributes:
        hits: how many images each recognised.
        losses: sums of its cross-entropies.
        on: which images these were, in words.
    """

    hits: Float[Tensor, " settings"]
    losses: Float[Tensor, " settings"]
    on: str


Scores = Callable[[Tensor, Tensor, Tensor], Iterable[Tensor]]
"""Given normalised features to learn from (N, D), their classes (N,), and features of other images (n, D): the scores (n, C) of
these images under one setting after the other."""


class SearchingAdapter(ValidatedMethod, FeatureAdapter):
    """Base of those that choose numbers on images that they did not learn from.

    These are the validation images given to `fit`; or else training images are held out, a part of every class after the
    other. A class with a single image is always learned from. Which images make a part depends on the seed and on the
    images themselves, not on their order or that of the classes.

    Attributes:
        chosen_: how the numbers came about, in words.
    """

    seed: int = SEED

    chosen_: str = fitted()

    def _trial(self, x: Float[Tensor, "n dim"], targets: Int[Tensor, " n"], scores: Scores) -> Trial | None:
        """What came of each setting; None: there is nothing to hold out."""
        if (given := self._validation()) is not None:
            others, wanted = directions(given.features), given.targets.to(x.device)
            return Trial(*_counted(scores(x, targets, others), wanted), counted(len(wanted), "validation image"))
        parts = held_out(x, targets, self.seed)
        if not parts:
            return None
        results = []
        for out in parts:
            results.append(torch.stack(_counted(scores(x[~out], targets[~out], x[out]), targets[out])))
        hits, losses = torch.stack(results).sum(dim=0)
        return Trial(hits, losses, f"training images held out, in {counted(len(parts), 'part')}")


def _counted(scores: Iterable[Tensor], targets: Int[Tensor, " n"]) -> tuple[Tensor, Tensor]:
    pairs = [((s.argmax(dim=1) == targets).sum(), cross_entropy(s, targets, reduction="sum")) for s in scores]
    return torch.stack([hits for hits, _ in pairs]).double(), torch.stack([loss for _, loss in pairs])


def held_out(x: Float[Tensor, "n dim"], targets: Int[Tensor, " n"], seed: int) -> list[Tensor]:
    """Which images are held out together: masks (N,), at most `FOLDS`; none where no class has two images.

    Those of a class are lined up along a random direction and dealt to the parts in turn, so that what is dealt where does not
    depend on the order in which images or classes are given.

    Args:
        x: the images' features.
        targets: their classes.
        seed: of the direction.
    """
    along = torch.randn(x.shape[1], generator=generator_for(seed), dtype=torch.float64)
    position = (x.cpu().double() * along).sum(dim=1)
    part = torch.full((len(x),), -1)
    for target in targets.unique().tolist():
        members = (targets.cpu() == target).nonzero().flatten()
        if len(members) > 1:
            part[members[position[members].argsort()]] = torch.arange(len(members)) % FOLDS
    return [(part == i).to(x.device) for i in range(FOLDS) if bool((part == i).any())]


def in_double(tensor: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """A tensor in float64, where the device has it; or else on the CPU."""
    device = tensor.device if tensor.device.type in ("cpu", "cuda") else torch.device("cpu")
    return tensor.to(device).double()


def directions(features: Float[Tensor, "n dim"]) -> Float[Tensor, "n dim"]:
    """Image features normalised, in float64."""
    return normalize(in_double(features), dim=-1)
