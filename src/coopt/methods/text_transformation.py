"""Text transformation: a learned linear layer on the text features, one of the baselines that CoOp is compared with.

Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134, table 5.
Published: ImageNet, 16 shots, RN50: 58.86 (zero-shot 58.18, CoOp 62.95).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.methods.templated import TextAdapter
from coopt.training.recipe import PAPER, Recipe


class TextTransformation(TextAdapter):
    """Multiplies the normalised text features by a learned D x D matrix, and normalises again.

    The paper says only that a transformation layer is added to the text encoder's output. Here it is linear, without a
    bias, and begins as the identity, so that training starts from zero-shot. A saved file holds the matrix: 1 MB at
    D = 512. The recipe "fast" learns at 0.0001 here: D x D numbers are many for a few images.

    Attributes:
        learned_: {"matrix": (D, D)}, applied as text features @ matrix.
        text_features_: the changed text features, normalised, (C, D).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "text_transformation"
    title: ClassVar[str] = "text transformation"
    paper: ClassVar[str] = (
        "Zhou, Yang, Loy, Liu: Learning to Prompt for Vision-Language Models, IJCV 2022, arXiv:2109.01134, table 5"
    )
    published: ClassVar[Mapping[str, float]] = {
        "ImageNet, 16 shots, RN50": 58.86,
    }
    recipes: ClassVar[dict[str, Recipe]] = {"fast": Recipe(lr=1e-4, warmup_lr=1e-5, epochs=100), "paper": PAPER}

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`."""
        return {"matrix": torch.eye(self.backbone_.embed_dim)}

    def _changed(self, learned: Mapping[str, Tensor]) -> Float[Tensor, "classes dim"]:
        return self.template_features_ @ learned["matrix"]
