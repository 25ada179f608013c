"""MMRL: multi-modal representation learning, tokens of one shared space in the upper blocks of both towers.

Guo, Gu: "MMRL: Multi-Modal Representation Learning for Vision-Language Models", CVPR 2025, arXiv:2503.08497.
Published: base / new / harmonic mean over 11 data sets, ViT-B/16, 16 shots: 85.68 / 77.16 / 81.20 (PromptSRC 84.26 / 76.10 / 79.97).

K tokens R of a space of R' numbers are learned, and for each block from the J-th on a linear map into each tower:

    R_t^i = F_t^i(R) after the start token of the prompt,   R_v^i = F_v^i(R) beside the class token and the patches.

They enter anew at each of these blocks. What the last one makes of the image's is normed and averaged, and projected by a
matrix P that is learned: the representation feature f_r. The class token's projection stays frozen: the class feature f_c.
With text features w, and f_0 and w_0 those of the frozen model, the loss is

    alpha CE(f_c, w) + (1 - alpha) CE(f_r, w) + lambda (1 - cos(f_c, f_0)) + lambda (1 - mean over classes of cos(w, w_0)).

The classes that were learned from are predicted by alpha s(f_c, w) + (1 - alpha) s(f_r, w), s the scores, and new ones by
s(f_c, w) alone.

Notation: n images, C classes, K tokens, widths W (text) and V (images), P width before the projection, D of the shared space.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.image_tower import ImageTower
from coopt.backbones.precision import UsedPrecision
from coopt.errors import UnsupportedBackboneError
from coopt.inference.heads import TwoFeaturesHead
from coopt.methods.capabilities import Capabilities
from coopt.methods.forward import Batch, Forward
from coopt.methods.networks import linear_start
from coopt.methods.own_classes import KnowsItsClasses
from coopt.methods.shared_parameters import TEMPLATE
from coopt.methods.sites import ImageBlocks, ImageReadOut, Site, TextBlocks, TextInserted
from coopt.parameters import parameter
from coopt.prompts.context import INIT_STD
from coopt.prompts.templates import template_features
from coopt.training.batches import generator_for
from coopt.training.recipe import MMRL_RECIPES, Recipe

TOWERS = ("text", "image")


class MMRL(KnowsItsClasses):
    """Learns tokens of a space that both towers share, and linear maps that put them into the upper blocks of each.

    The blocks below are as they were: of the prompts they are computed once, and nothing of the images is kept in them for the
    gradient. Every image passes through the image tower in each step, with the tokens and without them, so features that were
    computed before are refused. With other class names (`with_classes`) both features of an image count where all of the names
    were learned from, and the class feature alone where one of them is new.

    The recipe "paper" is the published one for base and new classes. For few-shot learning of all classes the paper takes
    `recipe={"name": "paper", "batch_size": 32, "epochs": 50}` with `guide_weight=0.5`.

    Attributes:
        learned_: "space", the tokens, (K, R'); "text.weight" (blocks, W, R') and "text.bias" (blocks, W), the maps into the
            text tower, and "image.weight" and "image.bias" likewise; "projection" (P, D), of the representation feature.
        learned_from_: a number for each class that was learned from, made of its name.
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "mmrl"
    title: ClassVar[str] = "MMRL"
    paper: ClassVar[str] = (
        "Guo, Gu: MMRL: Multi-Modal Representation Learning for Vision-Language Models, CVPR 2025, arXiv:2503.08497"
    )
    published: ClassVar[Mapping[str, float]] = {
        "mean of 11 data sets, ViT-B/16, 16 shots, base": 85.68,
        "mean of 11 data sets, ViT-B/16, 16 shots, new": 77.16,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(features_only=False, image_tower=True)
    recipes: ClassVar[dict[str, Recipe]] = MMRL_RECIPES

    tokens: int = parameter(default=5, low=1, help="K, the number of representation tokens.")
    space: int = parameter(default=512, low=1, help="Numbers of each token in the space that both towers share.")
    first_block: int = parameter(
        default=6,
        low=2,
        help="J, the first block with tokens, counted from 1; in a tower with fewer, its last one.",
    )
    share: float = parameter(
        default=0.7,
        low=0,
        high=1,
        help="The paper's alpha: what the class feature counts; the representation feature counts the rest.",
    )
    guide_weight: float = parameter(
        default=1.0, low=0, help="The paper's lambda: how strongly the frozen model's features attract."
    )
    template: str = TEMPLATE

    @property
    def prompt_template(self) -> str:
        """See `SitedMethod.prompt_template`."""
        return self.template

    def unchanged_text(self) -> Float[Tensor, "classes dim"]:
        """See `SitedMethod.unchanged_text`: of the template."""
        return template_features(self.backbone_, self.class_names_, (self.template,), **self._text_options)

    def _set_classes(
        self, backbone: Backbone, names: Sequence[str], named: bool, precision: UsedPrecision | None = None
    ) -> None:
        _check_towers(backbone)
        super()._set_classes(backbone, names, named, precision)

    def blocks(self, tower: str) -> range:
        """Blocks of a tower with tokens, counted from 0."""
        depth = self.backbone_.text.depth if tower == "text" else self._visual.depth
        return range(min(self.first_block, depth) - 1, depth)

    @property
    def _visual(self) -> ImageTower:
        assert self.backbone_.image is not None  # `_check_towers`
        return self.backbone_.image

    def sites(self) -> tuple[Site, ...]:
        """See `LearnedMethod.sites`: tokens in the upper blocks of both towers; the image tower's are read out."""
        first, *later = self.blocks("text")
        text = (TextInserted(first, f"text.{first}"), *(TextBlocks(i, f"text.{i}") for i in later))
        images = (ImageBlocks(i, f"image.{i}") for i in self.blocks("image"))
        return (*text, *images, ImageReadOut("projection"))

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`: maps begin as torch's `nn.Linear` does, all else as normal random numbers."""
        generator, tensors = generator_for(self.seed, 16), {}
        tensors["space"] = INIT_STD * torch.randn((self.tokens, self.space), generator=generator)
        for tower, width in zip(TOWERS, (self.backbone_.text.width, self._visual.width), strict=True):
            blocks = len(self.blocks(tower))
            for kind, shape in (("weight", (blocks, width, self.space)), ("bias", (blocks, width))):
                tensors[f"{tower}.{kind}"] = linear_start(shape, self.space, generator)
        width = self._visual.width
        tensors["projection"] = width**-0.5 * torch.randn((width, self.backbone_.embed_dim), generator=generator)
        return tensors

    def put_in(self, learned: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """See `LearnedMethod.put_in`: the tokens of each block of either tower, (K, W) and (K, V)."""
        placed = {"projection": learned["projection"]}
        for tower in TOWERS:
            tokens = learned["space"] @ learned[f"{tower}.weight"].transpose(1, 2) + learned[f"{tower}.bias"][:, None]
            placed |= {f"{tower}.{i}": one for i, one in zip(self.blocks(tower), tokens, strict=True)}
        return placed

    def units(self) -> dict[str, float]:
        """See `LearnedMethod.units`: nothing stands among word embeddings."""
        return {}

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`."""
        text, (own, read) = forward.text(), forward.image_features()
        images = (own * forward.unchanged_images()).sum(dim=1).mean()
        words = (text * forward.unchanged_text()).sum(dim=1).mean()
        of_own, of_read = (batch.cross_entropy(forward.scores(text, one)) for one in (own, read))
        return self.share * of_own + (1 - self.share) * of_read + self.guide_weight * (2 - images - words)

    def head(self) -> TwoFeaturesHead:
        """See `ClipClassifier.head`: of both features of an image; where a class is new, the class feature counts alone."""
        share = self.share if None not in self.learned_rows() else 1.0
        return TwoFeaturesHead(self.text_features_, self.backbone_.score_head, share)


def _check_towers(backbone: Backbone) -> None:
    text, image = backbone.text, backbone.image
    if text.depth < 2 or text.text_path != "fast":
        raise UnsupportedBackboneError(
            f"MMRL puts tokens into prompts between the blocks of the text tower, and that of {backbone.name} takes none: it must "
            "be a causal transformer of two blocks or more that is read out at the end token, as CLIP's. Take another backbone, "
            "or another method."
        )
    if image is None or not image.depth:
        raise UnsupportedBackboneError(
            f"MMRL puts tokens between the blocks of the image tower and reads them out, and that of {backbone.name} takes none: "
            "it must be a vision transformer of CLIP's kind. Take another backbone, or a method that leaves the image tower "
            "alone."
        )
