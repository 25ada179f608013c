"""KgCoOp: Knowledge-guided Context Optimization.

Yao, Zhang, Xu: "Visual-Language Prompt Tuning with Knowledge-guided Context Optimization", CVPR 2023, arXiv:2303.13283.
Published: base / new / harmonic mean over 11 data sets, ViT-B/16, 16 shots: 80.73 / 73.6 / 77.0 (CoOp 82.63 / 67.99 /
74.60 there).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from coopt.methods.coop import CoOp
from coopt.methods.forward import Batch, Forward
from coopt.methods.templated import HeldNearTemplates
from coopt.parameters import parameter
from coopt.training.recipe import KGCOOP_RECIPES, Recipe


class KgCoOp(HeldNearTemplates, CoOp):
    """CoOp whose prompts are held near hand-made ones, for the sake of classes that are not learned from.

    To CoOp's loss it adds `guide_weight` times the squared distance between the normalised text features of a class's
    learned and hand-made prompts, averaged over the classes.

    Attributes:
        context_, classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "kgcoop"
    title: ClassVar[str] = "learned prompt (KgCoOp)"
    paper: ClassVar[str] = (
        "Yao, Zhang, Xu: Visual-Language Prompt Tuning with Knowledge-guided Context Optimization, CVPR 2023, arXiv:2303.13283"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, 16 shots, base": 80.73,
        "mean of 11 data sets, ViT-B/16, 16 shots, new": 73.6,
    }

    recipes: ClassVar[dict[str, Recipe]] = KGCOOP_RECIPES

    guide_weight: float = parameter(default=8.0, low=0, help="The paper's lambda; 0 is CoOp.")

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`."""
        distance = (forward.text() - forward.unchanged_text()).square().sum(dim=1).mean()
        return super().loss(forward, batch) + self.guide_weight * distance
