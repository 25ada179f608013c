"""Text bias: a learned bias on the text features, the strongest of the fine-tuning baselines that CoOp is compared with.

Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134, table 5.
Published: ImageNet, 16 shots, RN50: 60.93 (zero-shot 58.18, CoOp 62.95).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.errors import ParameterError
from coopt.methods.templated import TextAdapter
from coopt.parameters import parameter
from coopt.training.recipe import PAPER, Recipe
from coopt.wording import on_command_line


class TextBias(TextAdapter):
    """Adds a learned bias, at first zero, to the normalised text features, and normalises again.

    The paper says only that a bias term is added to the text encoder's output. Here it is by default one vector for all
    classes, as the bias of a layer is; then it works through the second normalisation alone, since the same vector in
    every class moves all cosines of an image alike. With `csc` every class has its own, and no new classes.

    Attributes:
        learned_: {"bias": (D,)}, or (C, D) with `csc`.
        text_features_: the changed text features, normalised, (C, D).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "text_bias"
    title: ClassVar[str] = "text bias"
    paper: ClassVar[str] = (
        "Zhou, Yang, Loy, Liu: Learning to Prompt for Vision-Language Models, IJCV 2022, arXiv:2109.01134, table 5"
    )
    published: ClassVar[Mapping[str, float]] = {
        "ImageNet, 16 shots, RN50": 60.93,
    }
    recipes: ClassVar[dict[str, Recipe]] = {"fast": Recipe(lr=0.002, warmup_lr=1e-5, epochs=100), "paper": PAPER}

    csc: bool = parameter(
        default=False,
        option=True,
        shown_default=False,
        help="A bias of its own for each class (needs more images).",
        doc='A bias for each class; these are many numbers, for which `recipe={"lr": 0.0005}` does better.',
    )

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`."""
        n_classes, dim = self.template_features_.shape
        return {"bias": torch.zeros((n_classes, dim) if self.csc else dim)}

    def _changed(self, learned: Mapping[str, Tensor]) -> Float[Tensor, "classes dim"]:
        return self.template_features_ + learned["bias"]

    def with_classes(self, class_names: Sequence[str]) -> TextAdapter:
        """The same bias on the text features of other class names: a new fitted estimator; this one is unchanged.

        Raises:
            ParameterError: every class has its own bias.
            DataError: fewer than two names, or blank ones.
        """
        if self.csc:
            raise ParameterError(
                "A bias for each class belongs to its classes. Fit one for the new classes, or one for all classes "
                f"({'`coopt fit` without --csc' if on_command_line() else 'csc=False'})."
            )
        return super().with_classes(class_names)
