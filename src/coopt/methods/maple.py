"""MaPLe: Multi-modal Prompt Learning.

Khattak, Rasheed, Maaz, Khan, Khan: "MaPLe: Multi-modal Prompt Learning", CVPR 2023, arXiv:2210.03117.
Published: base / new / harmonic mean over 11 data sets, ViT-B/16, 16 shots: 82.28 / 75.14 / 78.55 (CoOp 82.69 / 63.22 / 71.66).

Notation: M context vectors of width W, image tokens of width V, J blocks.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from coopt.methods.deep_prompts import DeepPrompts
from coopt.methods.networks import linear_start
from coopt.methods.shared_parameters import DESCRIPTIONS_BEHIND, N_CTX_OF_TWO
from coopt.prompts.descriptions import Descriptions
from coopt.training.batches import generator_for
from coopt.training.recipe import MAPLE_RECIPES, Recipe


class MaPLe(DeepPrompts):
    """Learns vectors in the first blocks of the text tower, and linear maps that make tokens of the image tower of them.

    The context begins as the first words of "a photo of a", the vectors of later blocks at random. Every image passes through
    the image tower in each step, and in prediction with the learned tokens, so features that were computed before are refused.
    The recipe "paper" is the published one (SGD at 0.0035, 5 epochs in batches of 4). For learning on ImageNet and testing on
    other data sets the paper takes `recipe={"name": "paper", "lr": 0.0026, "epochs": 2}`.

    Attributes:
        context_: the learned context vectors, (M, W).
        learned_: "context"; "deep", those of later blocks, (J - 1, M, W); "map.weight" (J, V, W) and "map.bias" (J, V), which
            make the image tower's tokens.
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "maple"
    title: ClassVar[str] = "MaPLe"
    paper: ClassVar[str] = "Khattak et al.: MaPLe: Multi-modal Prompt Learning, CVPR 2023, arXiv:2210.03117"
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, 16 shots, base": 82.28,
        "mean of 11 data sets, ViT-B/16, 16 shots, new": 75.14,
    }
    recipes: ClassVar[dict[str, Recipe]] = MAPLE_RECIPES

    n_ctx: int = N_CTX_OF_TWO
    descriptions: Descriptions | None = DESCRIPTIONS_BEHIND
    descriptions_behind: ClassVar[bool] = True

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`: maps begin as torch's `nn.Linear` does, uniform within 1 / sqrt(W)."""
        image = self._image
        width, generator = self.backbone_.text.width, generator_for(self.seed, 12)
        shapes = {"map.weight": (self.blocks, image.width, width), "map.bias": (self.blocks, image.width)}
        maps = {name: linear_start(shape, width, generator) for name, shape in shapes.items()}
        return {**self._text_vectors(self.n_ctx), **maps}

    def put_in(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `LearnedMethod.put_in`: each block's image tokens are a linear map of its text vectors."""
        context = learned["context"][None]
        text = torch.cat([context, learned["deep"]]) if "deep" in learned else context
        return self._placed(learned, text @ learned["map.weight"].transpose(1, 2) + learned["map.bias"][:, None])
