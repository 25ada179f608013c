"""What MaPLe and PromptSRC share: vectors at the input of the first blocks of both towers.

Notation: M vectors of widths W (text) and V (images), J blocks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.image_tower import ImageTower
from coopt.backbones.precision import UsedPrecision
from coopt.errors import UnsupportedBackboneError
from coopt.methods.capabilities import Capabilities
from coopt.methods.learned import LearnedMethod
from coopt.methods.sites import ImageBlocks, Site, TextBlocks, TextTokens
from coopt.parameters import fitted, parameter
from coopt.prompts.context import DEFAULT_INIT, INIT_STD, random_context, word_context
from coopt.training.batches import generator_for


class DeepPrompts(LearnedMethod):
    """Base of the methods with vectors at the first blocks of both towers.

    The vectors are replaced at the input of each of the first `depth` blocks, and pass through the blocks behind them like
    tokens. A tower with fewer blocks has them in all, and the other tower in as many.
    """

    capabilities: ClassVar[Capabilities] = Capabilities(features_only=False, image_tower=True)

    depth: int = parameter(
        default=9,
        low=1,
        help="In how many blocks of both towers, from the first on; in all where a tower has fewer.",
    )

    context_: Tensor = fitted()

    def _set_classes(
        self, backbone: Backbone, names: Sequence[str], named: bool, precision: UsedPrecision | None = None
    ) -> None:
        _check_towers(backbone, type(self).__name__)
        super()._set_classes(backbone, names, named, precision)

    @property
    def blocks(self) -> int:
        """J: as `depth` says, or as many as the shallower tower has."""
        return min(self.depth, self.backbone_.text.depth, _image_depth(self.backbone_))

    def sites(self) -> tuple[Site, ...]:
        """See `LearnedMethod.sites`: context vectors before the class names, and vectors at the first blocks."""
        deep = [TextBlocks(i, f"text.{i}") for i in range(1, self.blocks)]
        return (TextTokens("context"), *deep, *(ImageBlocks(i, f"image.{i}") for i in range(self.blocks)))

    def units(self) -> dict[str, float]:
        """See `LearnedMethod.units`: of the text's vectors, which stand among word embeddings."""
        return dict.fromkeys(("context", "deep"), self._embedding_unit())

    @property
    def _image(self) -> ImageTower:
        image = self.backbone_.image
        assert image is not None  # `_check_towers`
        return image

    def _placed(
        self, learned: Mapping[str, Tensor], tokens: Iterable[Float[Tensor, "n_ctx width"]]
    ) -> dict[str, Tensor]:
        """What stands at the sites.

        Args:
            learned: "context" and, where there is a second block, "deep", (J - 1, M, W).
            tokens: the image tower's, for each of J blocks.
        """
        first, *others = tokens
        # Those of the first block stand beside the image's own before these are normed.
        images = {f"image.{i}": one for i, one in enumerate([self._image.pre_norm(first), *others])}
        text = {f"text.{i}": one for i, one in enumerate(learned.get("deep", ()), 1)}
        return {"context": learned["context"], **text, **images}

    def _take_state(self, state: dict[str, Tensor]) -> None:
        super()._take_state(state)
        self.context_ = self.learned_["context"]

    def _text_vectors(self, n_ctx: int) -> dict[str, Tensor]:
        """ "context" (M, W) and, where there is a second block, "deep" (J - 1, M, W), as training begins."""
        tensors = {"context": first_words(self.backbone_, n_ctx, int(self.seed))}
        if self.blocks > 1:
            shape = (self.blocks - 1, n_ctx, self.backbone_.text.width)
            tensors["deep"] = INIT_STD * torch.randn(shape, generator=generator_for(self.seed, 11))
        return tensors


def first_words(backbone: Backbone, n_ctx: int, seed: int) -> Float[Tensor, "n_ctx width"]:
    """The first `n_ctx` tokens of "a photo of a"; where these are fewer, random vectors."""
    words = word_context(backbone, DEFAULT_INIT)
    return words[:n_ctx].clone() if n_ctx <= len(words) else random_context(backbone, n_ctx, None, seed)


def _image_depth(backbone: Backbone) -> int:
    return 0 if backbone.image is None else backbone.image.depth


def _check_towers(backbone: Backbone, method: str) -> None:
    lacking = "text" if not backbone.text.depth else "image" if not _image_depth(backbone) else None
    if lacking is not None:
        raise UnsupportedBackboneError(
            f"{method} puts vectors between the blocks of both towers, and the {lacking} tower of {backbone.name} takes none: "
            "it must be a transformer of CLIP's kind. Take another backbone, or a method that leaves the image tower alone."
        )
