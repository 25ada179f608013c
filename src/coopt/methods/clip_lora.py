"""CLIP-LoRA: low-rank changes of the attention of both towers.

Zanella, Ben Ayed: "Low-Rank Few-Shot Adaptation of Vision-Language Models", CVPR Workshops 2024, arXiv:2405.18541.
Published: mean over 11 data sets, ViT-B/16, 1 / 2 / 4 / 8 / 16 shots: 72.20 / 75.41 / 77.32 / 80.10 / 82.89.

Notation: a matrix W with rows of I numbers, its change alpha / r B A with A (r, I) and B (rows, r).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor, nn

from coopt.backbones import Backbone
from coopt.backbones.precision import UsedPrecision
from coopt.errors import UnsupportedBackboneError
from coopt.methods.attention_weights import AttentionWeight, attention_weights
from coopt.methods.capabilities import Capabilities
from coopt.methods.forward import Batch, Forward, frozen_images
from coopt.methods.learned import LearnedMethod
from coopt.methods.networks import linear_start
from coopt.methods.shared_parameters import TEMPLATE
from coopt.methods.sites import WeightDelta
from coopt.parameters import parameter
from coopt.training.batches import generator_for
from coopt.training.recipe import CLIP_LORA_RECIPES, Recipe

TOWERS = ("text", "image")


class CLIPLoRA(LearnedMethod):
    """Learns a change of low rank for the queries, keys and values of every attention layer of both towers.

    A change is a sum with the weight it belongs to, so prediction costs what it costs without, and `classifier()` has the
    sums. The text tower of CLIP's kind runs on the fast path all the same.

    The paper drops numbers of each token's input to a change at random. Here a step draws which columns of A are dropped, for
    all tokens alike: it means the same on the mean, and the change stays one of weights.

    Every image passes through the image tower in each step, so features that were computed before are refused. The recipe
    "paper" takes 500 steps for each image of a class, in batches of 32.

    Attributes:
        learned_: "TOWER:NAME:A" (parts, r, I) and "TOWER:NAME:B" (parts, rows, r) for every weight, whose parts are queries, keys
            and values where one matrix makes all three.
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "clip_lora"
    title: ClassVar[str] = "CLIP-LoRA"
    paper: ClassVar[str] = (
        "Zanella, Ben Ayed: Low-Rank Few-Shot Adaptation of Vision-Language Models, CVPR Workshops 2024, arXiv:2405.18541"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, 1 shot": 72.20,
        "mean of 11 data sets, ViT-B/16, 2 shots": 75.41,
        "mean of 11 data sets, ViT-B/16, 4 shots": 77.32,
        "mean of 11 data sets, ViT-B/16, 8 shots": 80.10,
        "mean of 11 data sets, ViT-B/16, 16 shots": 82.89,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(features_only=False, image_tower=True)
    recipes: ClassVar[dict[str, Recipe]] = CLIP_LORA_RECIPES

    rank: int = parameter(default=2, low=1, help="r, the rank of a change.")
    alpha: float = parameter(default=1.0, low=0, help="A change counts alpha / r.")
    dropout: float = parameter(
        default=0.25, low=0, below=1, help="Share of the inputs of a change that a training step leaves out."
    )
    template: str = TEMPLATE

    @property
    def prompt_template(self) -> str:
        """See `SitedMethod.prompt_template`."""
        return self.template

    def _set_classes(
        self, backbone: Backbone, names: Sequence[str], named: bool, precision: UsedPrecision | None = None
    ) -> None:
        for tower, found in (
            ("text", attention_weights(backbone.text)),
            ("image", attention_weights(frozen_images(backbone))),
        ):
            if not found:
                raise UnsupportedBackboneError(
                    f"CLIPLoRA changes the queries, keys and values of both towers, and in the {tower} tower of {backbone.name} "
                    "there is no attention layer whose weights are known. Take another backbone, or another method."
                )
        super()._set_classes(backbone, names, named, precision)

    def _tower(self, tower: str) -> nn.Module:
        return self.backbone_.text if tower == "text" else frozen_images(self.backbone_)

    def _changed(self, tower: str) -> list[AttentionWeight]:
        return attention_weights(self._tower(tower))

    def sites(self) -> tuple[WeightDelta, WeightDelta]:
        """See `LearnedMethod.sites`: the weights of queries, keys and values of both towers."""
        text, image = (tuple(one.name for one in self._changed(tower)) for tower in TOWERS)
        return WeightDelta("text", text), WeightDelta("image", image)

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`: A is uniform within 1 / sqrt(I), B zero, so that training begins at zero-shot."""
        generator, tensors = generator_for(self.seed, 13), {}
        for tower in TOWERS:
            for one in self._changed(tower):
                shape = (one.parts, self.rank, one.columns)
                tensors[f"{tower}:{one.name}:A"] = linear_start(shape, one.columns, generator)
                tensors[f"{tower}:{one.name}:B"] = torch.zeros(one.parts, one.rows, self.rank)
        return tensors

    def weights(self, tower: str, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `LearnedMethod.weights`: W + alpha / r B A."""
        frozen, scale = dict(self._tower(tower).named_parameters()), self.alpha / self.rank
        return {
            one.name: frozen[one.name]
            + scale * (parameters[f"{tower}:{one.name}:B"] @ parameters[f"{tower}:{one.name}:A"]).flatten(0, 1)
            for one in self._changed(tower)
        }

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`: cross-entropy, without some of what the changes are given."""
        return super().loss(forward.under(self.dropped(forward.parameters, batch.moment)), batch)

    def dropped(self, learned: Mapping[str, Tensor], moment: tuple[int, int]) -> dict[str, Tensor]:
        """What is learned without some columns of each A, drawn for the step; the others count as much more."""
        if not self.dropout:
            return dict(learned)
        generator, tensors = generator_for(self.seed, *moment, 14), dict(learned)
        for name in sorted(name for name in learned if name.endswith(":A")):
            one = learned[name]
            kept = torch.rand((one.shape[0], 1, one.shape[2]), generator=generator) >= self.dropout
            tensors[name] = one * (kept.to(one) / (1 - self.dropout))
        return tensors
