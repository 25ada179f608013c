"""PromptSRC: prompts that regulate themselves.

Khattak, Wasim, Naseer, Khan, Yang, Khan: "Self-regulating Prompts: Foundational Model Adaptation without Forgetting", ICCV
2023, arXiv:2307.06948.
Published: base / new / harmonic mean over 11 data sets, ViT-B/16, 16 shots: 84.26 / 76.10 / 79.97 (MaPLe 82.28 / 75.14 / 78.55).

Notation: n images, C classes, D dimension of the shared embedding space, M vectors of widths W (text) and V (images), J blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from coopt.methods.deep_prompts import DeepPrompts
from coopt.methods.forward import Batch, Forward
from coopt.methods.templated import HeldNearTemplates
from coopt.parameters import parameter
from coopt.prompts.context import INIT_STD
from coopt.prompts.templates import template_list
from coopt.training.batches import generator_for
from coopt.training.recipe import PROMPTSRC_RECIPES, Recipe


class PromptSRC(HeldNearTemplates, DeepPrompts):
    """Learns vectors in the first blocks of both towers, and keeps what they make of images and classes near the frozen model's.

    To the cross-entropy are added: `image_weight` times the mean absolute difference of the images' normalised features from
    those that the frozen tower makes of the same pixels; `text_weight` times that of the classes' normalised features from the
    mean of hand-made prompts; and `logit_weight` times the divergence KL(frozen, learned) of the class probabilities, averaged
    over images and classes. What was learned is a mean over the epochs, as the recipe weighs them (`average_mean`).

    Every image passes through the image tower in each step, with the learned tokens and without them, so features that were
    computed before are refused. The recipe "paper" is the published one for base and new classes.

    Attributes:
        context_: the learned context vectors, (M, W).
        learned_: "context"; "deep", those of later blocks, (J - 1, M, W); "image" (J, M, V).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "promptsrc"
    title: ClassVar[str] = "PromptSRC"
    paper: ClassVar[str] = (
        "Khattak et al.: Self-regulating Prompts: Foundational Model Adaptation without Forgetting, ICCV 2023, arXiv:2307.06948"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, 16 shots, base": 84.26,
        "mean of 11 data sets, ViT-B/16, 16 shots, new": 76.10,
    }
    recipes: ClassVar[dict[str, Recipe]] = PROMPTSRC_RECIPES

    n_ctx: int = parameter(
        default=4,
        low=1,
        help='M, the number of vectors in each block of either tower; the text\'s first begin as words of "a photo of a".',
    )
    image_weight: float = parameter(default=10.0, low=0, help="How strongly images are held at their frozen features.")
    text_weight: float = parameter(default=25.0, low=0, help="How strongly classes are held at hand-made prompts.")
    logit_weight: float = parameter(default=1.0, low=0, help="How strongly probabilities are held at the frozen ones.")
    templates: str | Sequence[str] = parameter(
        default="ensemble-80",
        check=lambda templates: template_list(templates) is not None,  # which says itself what is wrong
        help='Hand-made prompts that the classes are held near: one, several, or "ensemble", or "ensemble-80".',
    )

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`."""
        drawn = torch.randn((self.blocks, self.n_ctx, self._image.width), generator=generator_for(self.seed, 15))
        return {**self._text_vectors(self.n_ctx), "image": INIT_STD * drawn}

    def put_in(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `LearnedMethod.put_in`: the vectors of each block."""
        return self._placed(learned, learned["image"])

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`."""
        scores, images, text = forward.logits(), forward.unchanged_images(), forward.unchanged_text()
        of_images = (forward.images() - images).abs().mean()
        of_text = (forward.text() - text).abs().mean()
        frozen = forward.scores(text, images).log_softmax(dim=1)
        of_scores = (frozen.exp() * (frozen - scores.log_softmax(dim=1))).mean()
        return (
            batch.cross_entropy(scores)
            + self.image_weight * of_images
            + self.text_weight * of_text
            + self.logit_weight * of_scores
        )
