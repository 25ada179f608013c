"""CoOp: Context Optimization.

Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134.
Published: ImageNet, 16 shots, M = 16, class at the end, unified: 62.95 (RN50), 66.60 (RN101), 66.85 (ViT-B/32),
71.92 (ViT-B/16); zero-shot 58.18 / 61.62 / 62.05 / 66.73.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor

from coopt.methods.learned import LearnedMethod
from coopt.methods.shared_parameters import DESCRIPTIONS_BEHIND, INIT, N_CTX
from coopt.methods.sites import TextTokens
from coopt.parameters import fitted, parameter
from coopt.prompts.context import initial_context
from coopt.prompts.descriptions import Descriptions
from coopt.prompts.words import NearestWord, nearest_words
from coopt.text.layout import POSITIONS, Position
from coopt.training.recipe import CSC_RECIPES, Recipe


class CoOp(LearnedMethod):
    """Learns M context vectors around the class names by cross-entropy through the frozen text tower.

    Attributes:
        context_: the learned vectors, (M, W), or (C, M, W) with `csc`.
        classes_, class_names_: labels as given, and their names.
        precision_: "fp32" or "bf16", what `precision` came to.
        losses_, recipe_: see `LearnedMethod`.
    """

    method: ClassVar[str] = "coop"
    title: ClassVar[str] = "learned prompt"
    paper: ClassVar[str] = (
        "Zhou, Yang, Loy, Liu: Learning to Prompt for Vision-Language Models, IJCV 2022, arXiv:2109.01134"
    )
    published: ClassVar[Mapping[str, float]] = {
        "ImageNet, 16 shots, M = 16, RN50": 62.95,
        "ImageNet, 16 shots, M = 16, RN101": 66.6,
        "ImageNet, 16 shots, M = 16, ViT-B/32": 66.85,
        "ImageNet, 16 shots, M = 16, ViT-B/16": 71.92,
    }

    n_ctx: int | None = N_CTX
    csc: bool = parameter(
        default=False,
        option=True,
        shown_default=False,
        help="Vectors of its own for each class (needs more images).",
        doc="Class-specific context: every class learns vectors of its own (needs more images; no new classes).",
    )
    position: Position = parameter(
        default="end",
        choices=POSITIONS,
        option=True,
        help="Where the class name stands among the vectors.",
        doc='Where the class name stands: "end", "middle" or "front".',
    )
    init: str | None = INIT
    descriptions: Descriptions | None = DESCRIPTIONS_BEHIND
    descriptions_behind: ClassVar[bool] = True

    context_: Tensor = fitted()

    @property
    def full_recipe(self) -> Recipe:
        """See `LearnedMethod.full_recipe`; class-specific contexts are learned by recipes of their own."""
        return Recipe.of(self.recipe, CSC_RECIPES if self.csc else self.recipes)

    def sites(self) -> tuple[TextTokens]:
        """See `LearnedMethod.sites`: context vectors around the class names."""
        return (TextTokens("context", self.position, class_specific=self.csc),)

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`."""
        given = (self.n_ctx, self.csc, self.init, self.seed, self.position)
        return {"context": initial_context(self.backbone_, self.class_names_, *given)}

    def _take_state(self, state: dict[str, Tensor]) -> None:
        super()._take_state(state)
        self.context_ = self.learned_["context"]

    def nearest_words(self, top_k: int = 5) -> list[list[NearestWord]] | dict[str, list[list[NearestWord]]]:
        """The vocabulary entries nearest to each context vector, nearest first; with `csc` for each class.

        They are not the meaning of the prompt: compare the distances with `coopt.prompts.distance_scale`.
        """
        if self.context_.ndim == 2:
            return nearest_words(self.backbone_, self.context_, top_k)
        return {
            name: nearest_words(self.backbone_, context, top_k)
            for name, context in zip(self.class_names_, self.context_, strict=True)
        }
