"""ProGrad: prompt-aligned gradient.

Zhu, Niu, Han, Wu, Zhang: "Prompt-aligned Gradient for Prompt Tuning", ICCV 2023, arXiv:2205.14865.
Published: base / new / harmonic mean over 11 data sets, ViT-B/16, 16 shots: 82.48 / 70.75 / 76.16; mean over 11 data sets at
1 / 2 / 4 / 8 / 16 shots: 68.20 / 71.78 / 74.21 / 77.93 / 79.20 (both as papers that followed report them).

With d the gradient of the cross-entropy and g that of the divergence KL(zero-shot | learned) for what is learned, a step takes

    d                          where d.g >= 0: what the images teach does not contradict what the model knows;
    d - lambda (d.g / g.g) g   otherwise: with lambda = 1 the part of d that leads away from the model's knowledge is taken out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import kl_div

from coopt.errors import ParameterError
from coopt.methods.combined import combined
from coopt.methods.coop import CoOp
from coopt.methods.forward import Batch, Forward
from coopt.methods.templated import HeldNearTemplates
from coopt.parameters import parameter
from coopt.training.recipe import FAST, PAPER, Recipe
from coopt.wording import subject

PASSES_PER_STEP = 5 / 3
"""One forward and two back, where a step of one loss is one of each; back costs twice as much as forward."""


class ProGrad(HeldNearTemplates, CoOp):
    """CoOp whose steps never lead away from what hand-made prompts predict.

    A step costs one pass forward through the text tower and two back. No loss has this gradient, so there is no L-BFGS: the
    recipe "fast" ends with its 16 epochs (chosen among 16, 32 and 100 on the validation parts of the bundled data sets), and one
    that sets `lbfgs` is refused. "paper" is CoOp's. `losses_` are cross-entropies.

    Attributes:
        context_, classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "prograd"
    title: ClassVar[str] = "learned prompt (ProGrad)"
    paper: ClassVar[str] = (
        "Zhu, Niu, Han, Wu, Zhang: Prompt-aligned Gradient for Prompt Tuning, ICCV 2023, arXiv:2205.14865"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, 16 shots, base": 82.48,
        "mean of 11 data sets, ViT-B/16, 16 shots, new": 70.75,
    }
    recipes: ClassVar[dict[str, Recipe]] = {"fast": replace(FAST, lbfgs=None), "paper": PAPER}

    alignment: float = parameter(
        default=1.0,
        low=0,
        help="How much of a contradiction is taken out of a step (the paper's lambda); 0 is CoOp.",
    )

    def check_parameters(self) -> None:
        """See `Declared.check_parameters`.

        Raises:
            ParameterError: also for a recipe with L-BFGS.
        """
        super().check_parameters()
        if self.recipe_.lbfgs is not None:
            raise ParameterError(
                f"{subject('recipe', 'ProGrad')} must have no 'lbfgs': ProGrad's steps are the gradient of no single loss, "
                f"which L-BFGS needs. Got {self.recipe_.lbfgs} instead; leave it out."
            )

    def _fit(self, features: Any, targets: Int[Tensor, " n"]) -> None:
        super()._fit(features, targets)
        self.text_passes_ *= PASSES_PER_STEP

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`: the cross-entropy, with the gradient that is written above."""
        known = forward.scores(forward.unchanged_text()).log_softmax(dim=1)
        scores = forward.logits()
        general = kl_div(scores.log_softmax(dim=1), known, log_target=True, reduction="batchmean")
        losses = (batch.cross_entropy(scores), general)
        return combined(losses, forward.parameters, lambda d, g: aligned(d, g, self.alignment))


def aligned(
    special: Float[Tensor, " numbers"], general: Float[Tensor, " numbers"], share: float
) -> Float[Tensor, " numbers"]:
    """The gradient `special` without (a share of) its part along `general`, where they contradict each other."""
    product, square = special @ general, general @ general
    # Without a look at the numbers, for which a GPU would have to finish first; at the start both products may be 0.
    along = torch.where((product < 0) & (square > 0), product / square.clamp_min(torch.finfo(square.dtype).tiny), 0)
    return special - share * along * general
