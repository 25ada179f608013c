"""CoOp: Context Optimization.

Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134.
Published: ImageNet, 16 shots, M = 16, class at the end, unified: 62.95 (RN50), 66.60 (RN101), 66.85 (ViT-B/32),
71.92 (ViT-B/16); zero-shot 58.18 / 61.62 / 62.05 / 66.73.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from coopt.backbones import Backbone
from coopt.errors import ParameterError, SavedFileError
from coopt.methods.learned import LearnedMethod, Objective
from coopt.methods.shared_parameters import INIT, N_CTX
from coopt.parameters import fitted, parameter
from coopt.prompts.context import initial_context
from coopt.prompts.words import NearestWord, nearest_words
from coopt.text.directions import text_directions
from coopt.text.encode import TextEncoder
from coopt.text.layout import POSITIONS, Position, context_prompts
from coopt.training.recipe import CSC_RECIPES, Recipe
from coopt.wording import on_command_line


class CoOp(LearnedMethod):
    """Learns M context vectors around the class names by cross-entropy through the frozen text tower.

    Attributes:
        context_: the learned vectors, (M, W), or (C, M, W) with `csc`.
        classes_, class_names_: labels as given, and their names.
        precision_: "fp32" or "bf16", what `precision` came to.
        losses_, recipe_: see `LearnedMethod`.
    """

    method: ClassVar[str] = "coop"
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

    context_: Tensor = fitted()
    text_features_: Tensor = fitted()

    @property
    def full_recipe(self) -> Recipe:
        """See `LearnedMethod.full_recipe`; class-specific contexts are learned by recipes of their own."""
        return Recipe.of(self.recipe, CSC_RECIPES if self.csc else self.recipes)

    def _initial(self) -> dict[str, Tensor]:
        return {
            "context": initial_context(self.backbone_, self.class_names_, self.n_ctx, self.csc, self.init, self.seed)
        }

    def _objective(self, learned: dict[str, Tensor]) -> Objective:
        encode = self._encoder(learned["context"].shape[-2], self.recipe_.batch_size)
        scale = self.backbone_.logit_scale
        penalty = self._penalty()

        def loss_of(features: Tensor, targets: Tensor) -> Tensor:
            text = normalize(encode(learned["context"]), dim=-1)
            return cross_entropy(scale * normalize(features, dim=-1) @ text.T, targets) + penalty(text)

        return Objective(loss_of, encode.operations, encode.shrink)

    def _penalty(self) -> Callable[[Float[Tensor, "classes dim"]], Tensor | float]:
        """What a relative of CoOp adds to the loss, given the normalised text features of the learned prompts."""
        return lambda text: 0.0

    def step_bytes(self, backbone: Backbone, class_names: Sequence[str]) -> int:
        """See `LearnedMethod.step_bytes`."""
        other = self._before_fit(backbone, class_names)
        assert isinstance(other, CoOp)
        return other._encoder(other._initial()["context"].shape[-2], other.recipe_.batch_size).estimate().total

    def _encoder(self, n_ctx: int, batch: int) -> TextEncoder:
        """For steps of so many images; for none, only features are asked for."""
        prompts = context_prompts(self.backbone_, self.class_names_, n_ctx, self.position, self.csc)
        return TextEncoder(self.backbone_, prompts, **self._text_options, batch=batch, learning=batch > 0)

    def _logits(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        return self.backbone_.logit_scale * normalize(features, dim=-1) @ self.text_features_.T

    def _state(self) -> dict[str, Tensor]:
        return {"context": self.context_}

    def _check_state(self, state: dict[str, Tensor]) -> None:
        context, width, classes = state["context"], self.backbone_.text.width, len(self.class_names_)
        ndim = 3 if self.csc else 2
        if context.ndim != ndim or context.shape[-1] != width or (self.csc and len(context) != classes):
            raise SavedFileError(
                f"The saved context has shape {tuple(context.shape)}; expected "
                f"{'(classes, n_ctx, width)' if self.csc else '(n_ctx, width)'} with {classes} classes and width {width}."
            )

    def _take_state(self, state: dict[str, Tensor]) -> None:
        self.context_ = state["context"].float().cpu()
        with torch.no_grad():
            encoded = self._encoder(self.context_.shape[-2], 0)(self.context_.to(self.backbone_.device))
        self.text_features_ = text_directions(encoded, self.backbone_, self.class_names_, self.precision_)

    def with_classes(self, class_names: Sequence[str]) -> CoOp:
        """The same learned context for other class names: a new fitted estimator; this one is unchanged.

        Raises:
            ParameterError: the context is class-specific.
            DataError: fewer than two names, or blank ones.
        """
        if self.csc:
            raise ParameterError(
                "A class-specific context belongs to its classes. Fit one for the new classes, or one for all classes "
                f"({'`coopt fit` without --csc' if on_command_line() else 'csc=False'})."
            )
        other = self._copy_with(class_names)
        other._set_state({"context": self.context_})
        assert isinstance(other, CoOp)
        return other

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
