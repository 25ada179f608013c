"""TaskRes: a residual of its own for each class, added to the text features.

Yu, Lu, Jin, Chen, Wang: "Task Residual for Tuning Vision-Language Models", CVPR 2023, arXiv:2211.10277.
Published: ImageNet, 16 shots, ViT-B/16: 73.07.

Notation: C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.methods.capabilities import Capabilities
from coopt.methods.templated import TextAdapter
from coopt.parameters import parameter
from coopt.training.recipe import Recipe

_FAST = Recipe(lr=5e-4, epochs=100)


class TaskRes(TextAdapter):
    """Adds alpha times a learned residual, at first zero, to the text feature of each class, and normalises again.

    The recipe "paper" is Adam at 0.002 with batches of 256 on fresh augmented views, for 200 epochs; the paper takes 100 of them
    up to 4 shots, and a learning rate of 0.0002 on ImageNet. "fast" takes 100 steps on all images, and a learning rate that was
    chosen on the validation parts of the bundled data sets.

    Attributes:
        learned_: {"residual": (C, D)}.
        text_features_: the changed text features, normalised, (C, D).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "taskres"
    title: ClassVar[str] = "TaskRes"
    paper: ClassVar[str] = "Yu et al.: Task Residual for Tuning Vision-Language Models, CVPR 2023, arXiv:2211.10277"
    published: ClassVar[Mapping[str, float]] = {
        "ImageNet, 16 shots, ViT-B/16": 73.07,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(new_classes=False)
    recipes: ClassVar[dict[str, Recipe]] = {
        "fast": _FAST,
        "paper": replace(
            _FAST,
            name="paper",
            lr=0.002,
            warmup_lr=1e-5,
            batch_size=256,
            epochs=200,
            steps_per_epoch=None,
            views=0,
        ),
    }

    alpha: float = parameter(default=0.5, low=0, help="How much of the residual is added (1 for Flowers in the paper).")

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`."""
        return {"residual": torch.zeros(self.template_features_.shape)}

    def _changed(self, learned: Mapping[str, Tensor]) -> Float[Tensor, "classes dim"]:
        return self.template_features_ + self.alpha * learned["residual"]
