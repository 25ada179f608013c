"""2SFS: few-shot adaptation in two stages, layer norms of both towers and then a linear classifier.

Farina, Mancini, Iacca, Ricci: "Rethinking Few-Shot Adaptation of Vision-Language Models in Two Stages", CVPR 2025,
arXiv:2503.11609.
Published: base / new / harmonic mean over 11 data sets, ViT-B/16, 16 shots: 85.55 / 75.48 / 80.20 (PromptSRC 84.26 / 76.10 / 79.97).

First stage, a share of the steps (60%): the weights and biases theta of all layer norms of both towers, by

    CE(s f(theta) . t_c(theta)),   f an image's normalised feature, t_c that of the class's hand-made prompt, s the logit scale.

Second stage: theta stays where it is, and the rows w_c of a linear classifier on f are learned by CE(s f . w_c). They begin at
t_c, so what is learned is their difference d_c from it: w_c = t_c + d_c with d_c = 0 at first.

The classes that were learned from are predicted by w_c, and new ones by t_c(theta), side by side.

Notation: C classes, B of them learned from, D dimension of the shared embedding space.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from coopt.backbones import Backbone
from coopt.backbones.precision import UsedPrecision
from coopt.errors import UnsupportedBackboneError
from coopt.methods.capabilities import Capabilities
from coopt.methods.forward import Batch, Forward, frozen_images
from coopt.methods.own_classes import KnowsItsClasses
from coopt.methods.shared_parameters import TEMPLATE
from coopt.methods.sites import WeightDelta
from coopt.parameters import parameter
from coopt.training.recipe import TWO_STAGE_RECIPES, Recipe

TOWERS = ("text", "image")


class TwoStage(KnowsItsClasses):
    """Learns the layer norms of both towers, and then, with these as they are, a linear classifier that begins at the text features.

    The text tower of CLIP's kind runs on the fast path all the same, and in the second stage once. The stages change between
    epochs. The learning rates fall over both of them as over one. Weight decay draws the classifier to the text features.

    Every image passes through the image tower in each step, in the second stage forward alone, so features that were computed
    before are refused. The recipe "paper" takes 300 steps for each image of a class, in batches of 32.

    Attributes:
        learned_: "TOWER:NAME" for the weight and bias of every layer norm, and "classifier" (B, D), how far each row of it is
            from the text feature of its class.
        learned_from_: a number for each class that was learned from, made of its name.
        text_features_: the classifier's rows, and for new classes text features, (C, D).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "two_stage"
    title: ClassVar[str] = "2SFS"
    paper: ClassVar[str] = (
        "Farina et al.: Rethinking Few-Shot Adaptation of Vision-Language Models in Two Stages, CVPR 2025, arXiv:2503.11609"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, 16 shots, base": 85.55,
        "mean of 11 data sets, ViT-B/16, 16 shots, new": 75.48,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(features_only=False, image_tower=True)
    recipes: ClassVar[dict[str, Recipe]] = TWO_STAGE_RECIPES

    first_stage: float = parameter(
        default=0.6, low=0, high=1, help="The share of the epochs, rounded up, in which layer norms are learned."
    )
    template: str = TEMPLATE

    _first_epochs: int | None = None
    _first_until: float = math.inf

    @property
    def prompt_template(self) -> str:
        """See `SitedMethod.prompt_template`."""
        return self.template

    def _set_classes(
        self, backbone: Backbone, names: Sequence[str], named: bool, precision: UsedPrecision | None = None
    ) -> None:
        for tower, found in (("text", norms_of(backbone.text)), ("image", norms_of(frozen_images(backbone)))):
            if not found:
                raise UnsupportedBackboneError(
                    f"TwoStage learns the layer norms of both towers, and in the {tower} tower of {backbone.name} there are none: "
                    "it must be a transformer. Take another backbone, or another method."
                )
        super()._set_classes(backbone, names, named, precision)

    def _tower(self, tower: str) -> nn.Module:
        return self.backbone_.text if tower == "text" else frozen_images(self.backbone_)

    def sites(self) -> tuple[WeightDelta, WeightDelta]:
        """See `LearnedMethod.sites`: weights and biases of the layer norms of both towers."""
        text, image = (tuple(norms_of(self._tower(tower))) for tower in TOWERS)
        return WeightDelta("text", text), WeightDelta("image", image)

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`: layer norms as they are, and a classifier at the text features."""
        norms = {
            f"{tower}:{name}": one.detach() for tower in TOWERS for name, one in norms_of(self._tower(tower)).items()
        }
        return {**norms, "classifier": torch.zeros(len(self.class_names_), self.backbone_.embed_dim)}

    def weights(self, tower: str, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `LearnedMethod.weights`."""
        return {name: parameters[f"{tower}:{name}"] for name in norms_of(self._tower(tower))}

    def units(self) -> dict[str, float]:
        """See `LearnedMethod.units`: nothing stands among word embeddings."""
        return {}

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`: of the text features, and in the second stage of the classifier."""
        rows = forward.parameters["classifier"]
        if not self._in_second_stage(batch.moment[0], rows):
            return super().loss(forward, batch)
        with torch.no_grad():
            images = forward.images()
            if "_fixed_text" not in vars(self):
                self._fixed_text = forward.text()
        return batch.cross_entropy(forward.scores(self._fixed_text + rows, images))

    def _in_second_stage(self, epoch: int, rows: Float[Tensor, "classes dim"]) -> bool:
        if self._first_epochs is None:
            return False
        # Once begun it goes on: where time is short it begins by the clock, and a run that was stopped has another.
        return epoch >= self._first_epochs or time.monotonic() > self._first_until or bool(rows.detach().any())

    def _fit(self, features: Any, targets: Int[Tensor, " n"]) -> None:
        recipe, most = self.recipe_, int(torch.bincount(targets).max())
        epochs = recipe.epochs_for(most, len(targets))
        self._first_epochs = math.ceil(self.first_stage * min(epochs, recipe.steps or epochs) - 1e-9)
        if recipe.seconds is not None:
            self._first_until = time.monotonic() + self.first_stage * recipe.seconds
        try:
            super()._fit(features, targets)
        finally:
            self._forget("_first_epochs", "_first_until", "_fixed_text")  # of these images alone

    def _shapes(self) -> Mapping[str, tuple[int | None, ...]]:
        return {**super()._shapes(), "classifier": (None, self.backbone_.embed_dim)}

    def _text_features(self, learned: Mapping[str, Tensor]) -> Float[Tensor, "classes dim"]:
        """Rows of the classifier, and for new classes normalised text features under the layer norms that were learned."""
        text = super()._text_features(learned)
        none = text.new_zeros(text.shape[1])
        rows = [none if row is None else learned["classifier"][row] for row in self.learned_rows()]
        return text + torch.stack(rows)


def norms_of(tower: nn.Module) -> dict[str, Tensor]:
    """Weights and biases of all layer norms of a tower, by the names that they have in its `named_parameters`."""
    norms = {name for name, module in tower.named_modules() if isinstance(module, nn.LayerNorm)}
    return {name: one for name, one in tower.named_parameters() if name.rpartition(".")[0] in norms}
