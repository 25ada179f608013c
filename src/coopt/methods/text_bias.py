"""Text bias: a learned bias on the text features, the strongest of the fine-tuning baselines that CoOp is compared with.

Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134, table 5.
Published: ImageNet, 16 shots, RN50: 60.93 (zero-shot 58.18, CoOp 62.95).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.protocol import Precision
from coopt.data import FeatureCache
from coopt.errors import ParameterError
from coopt.methods.templated import TextAdapter
from coopt.prompts.templates import DEFAULT_TEMPLATE
from coopt.text.encode import TextPath
from coopt.text.memory import Memory
from coopt.training.recipe import FAST, PAPER, Recipe
from coopt.wording import on_command_line


class TextBias(TextAdapter):
    """Adds a learned bias, at first zero, to the normalised text features, and normalises again.

    The paper says only that a bias term is added to the text encoder's output. Here it is by default one vector for all
    classes, as the bias of a layer is; then it works through the second normalisation alone, since the same vector in
    every class moves all cosines of an image alike. With `csc` every class has its own, and no new classes.

    Args:
        csc: a bias for each class; these are many numbers, for which `recipe={"lr": 0.0005}` does better.
        backbone, templates: see `coopt.ZeroShot`.
        recipe, seed, class_names, text_path, precision, memory, device, cache, on_bad_image, checkpoint, verbose: see
            `coopt.CoOp`.

    Attributes:
        learned_: {"bias": (D,)}, or (C, D) with `csc`.
        text_features_: the changed text features, normalised, (C, D).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "text_bias"
    recipes: ClassVar[dict[str, Recipe]] = {"fast": replace(FAST, lr=0.002, warmup_lr=1e-5, epochs=100), "paper": PAPER}

    def __init__(
        self,
        backbone: str | Backbone = "bundled",
        *,
        csc: bool = False,
        templates: str | Sequence[str] = DEFAULT_TEMPLATE,
        recipe: str | dict[str, Any] | Recipe = "fast",
        seed: int = 1,
        class_names: Sequence[str] | None = None,
        text_path: TextPath = "auto",
        precision: Precision = "fp32",
        memory: Memory = "auto",
        device: str = "auto",
        cache: bool | FeatureCache = True,
        on_bad_image: Literal["fail", "skip"] = "fail",
        checkpoint: str | Path | None = None,
        verbose: bool = False,
    ) -> None:
        super().__init__(
            backbone,
            templates=templates,
            recipe=recipe,
            seed=seed,
            class_names=class_names,
            text_path=text_path,
            precision=precision,
            memory=memory,
            device=device,
            cache=cache,
            on_bad_image=on_bad_image,
            checkpoint=checkpoint,
            verbose=verbose,
        )
        self.csc = csc

    def _check_parameters(self) -> None:
        super()._check_parameters()
        self._require("csc", isinstance(self.csc, bool), "True or False")

    def _initial(self) -> dict[str, Tensor]:
        n_classes, dim = self.template_features_.shape
        return {"bias": torch.zeros((n_classes, dim) if self.csc else dim)}

    def _changed(self, learned: dict[str, Tensor]) -> Float[Tensor, "classes dim"]:
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
