"""Fine-tuning of the whole image encoder, the baseline that overfits, against which CoOp is compared.

Zhou, Yang, Loy, Liu: "Learning to Prompt for Vision-Language Models", IJCV 2022, arXiv:2109.01134, table 5.
Published: ImageNet, 16 shots, RN50: 18.28 (zero-shot 58.18, CoOp 62.95).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from coopt.backbones import Backbone
from coopt.data import FeatureCache
from coopt.inference.heads import CosineHead
from coopt.methods.capabilities import Capabilities
from coopt.methods.forward import frozen_images
from coopt.methods.sites import WeightDelta
from coopt.methods.templated import TemplatedMethod
from coopt.parameters import fitted
from coopt.training.recipe import PAPER, Recipe

_FAST = Recipe(lr=3e-5, warmup_lr=1e-6, batch_size=32, epochs=20, steps_per_epoch=None)


class ImageEncoderTuning(TemplatedMethod):
    """Trains every weight of a copy of the image encoder, against the fixed text features of hand-made prompts.

    It needs images: features that the frozen backbone made before mean nothing to an encoder that has changed, so they
    are refused, and its own are never kept in the feature cache. The statistics of batch normalisation stay those of
    pre-training. Images are decoded anew for every step, because the pixels of all seldom fit in memory.

    The recipe "fast" means 20 epochs of Adam at 0.00003 here, in batches of 32; "paper" is CoOp's, at whose learning rate the
    encoder forgets. The runtime's precision is of the text tower alone: the image encoder learns and predicts in fp32.

    A saved file holds the whole tuned image encoder: 345 MB for ViT-B/16.

    Attributes:
        tower_: the tuned image encoder: pixels (n, 3, h, w) to features (n, D).
        classes_, class_names_, losses_, recipe_: see `coopt.CoOp`.
    """

    method: ClassVar[str] = "image_tuning"
    title: ClassVar[str] = "tuned image encoder"
    paper: ClassVar[str] = (
        "Zhou, Yang, Loy, Liu: Learning to Prompt for Vision-Language Models, IJCV 2022, arXiv:2109.01134, table 5"
    )
    published: ClassVar[Mapping[str, float]] = {
        "ImageNet, 16 shots, RN50": 18.28,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(features_only=False, image_tower=True)
    recipes: ClassVar[dict[str, Recipe]] = {"fast": _FAST, "paper": PAPER}

    tower_: nn.Module = fitted()

    def sites(self) -> tuple[WeightDelta]:
        """See `LearnedMethod.sites`: every weight of the image tower."""
        return (WeightDelta("image", tuple(self.initial())),)

    def initial(self) -> dict[str, Tensor]:
        """See `LearnedMethod.initial`: the weights as they are."""
        return {name: tensor.detach() for name, tensor in frozen_images(self.backbone_).named_parameters()}

    def head(self) -> CosineHead:
        """See `ClipClassifier.head`."""
        return CosineHead(self.template_features_, self.backbone_.score_head)

    def _image_encoder(self) -> tuple[Backbone, FeatureCache | None]:
        tower = getattr(
            self, "tower_", None
        )  # before anything was learned, the frozen one; nothing of it is kept either
        return (self.backbone_ if tower is None else self.backbone_.with_image_tower(tower)), None

    def _begin(self) -> None:
        if "tower_" in vars(self):
            del self.tower_

    def _state(self) -> dict[str, Tensor]:
        return {name: tensor.detach() for name, tensor in self.tower_.named_parameters()}

    def _take_state(self, state: dict[str, Tensor]) -> None:
        self.tower_ = self.backbone_.image_tower()
        self.tower_.load_state_dict(state, strict=False)  # buffers are the backbone's
