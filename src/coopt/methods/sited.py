"""What a method puts into the two towers at its sites, and what a step through them costs.

Notation: C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.data import FeatureCache
from coopt.methods.base import ClipClassifier
from coopt.methods.forward import ChangedImages, Sites, frozen_images, image_changes, run_text, text_encoder
from coopt.methods.sites import Site, changes_images, changes_text, text_tokens, weights_in
from coopt.parameters import fitted
from coopt.prompts.templates import DEFAULT_TEMPLATE, template_features
from coopt.text.directions import text_directions
from coopt.text.encode import TextEncoder
from coopt.training.recipe import Recipe

if TYPE_CHECKING:
    from typing_extensions import Self


class SitedMethod(ClipClassifier):
    """Base of the methods that put something into the frozen model, or beside it.

    Attributes:
        recipe_: the recipe with nothing left open.
        learned_: what was learned, by name.
    """

    recipe_: Recipe = fitted()
    learned_: dict[str, Tensor] = fitted()

    def sites(self) -> Sequence[Site]:
        """Where in the frozen model what is learned is put; none: beside it."""
        return ()

    @abstractmethod
    def initial(self) -> dict[str, Tensor]:
        """The tensors to train, by name, as they begin; `backbone_` and the classes are set."""

    def weights(self, tower: str, parameters: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What stands for weights of a tower, by name: unless a method says otherwise, the learned tensors of these names."""
        return {name: parameters[name] for name in weights_in(self.sites(), tower)}

    def put_in(self, learned: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What stands at the sites, by the names that they have for it: unless a method says otherwise, what is learned.

        A method whose vectors are computed from what it learns computes them here, differentiably; it is asked in each step.
        """
        return learned

    def unchanged_text(self) -> Float[Tensor, "classes dim"]:
        """Normalised text features of hand-made prompts, "a photo of a NAME."; the classes' own where no site is in the text."""
        return template_features(self.backbone_, self.class_names_, (DEFAULT_TEMPLATE,), **self._text_options)

    def operations(self, learned: Mapping[str, Tensor], encode: TextEncoder | None) -> int:
        """Floating-point operations of one step, roughly; more than a threshold run on several threads."""
        batch, sites = self.recipe_.batch_size, self.sites()
        tokens = text_tokens(sites)
        text = 0 if encode is None else encode.operations * (batch if tokens is not None and tokens.per_image else 1)
        if changes_images(sites):  # at least: most weights meet many positions
            return text + 6 * batch * sum(one.numel() for one in frozen_images(self.backbone_).parameters())
        return text or 6 * batch * sum(one.numel() for one in learned.values())

    def _shared(self, learned: Mapping[str, Tensor], batch: int) -> Sites:
        sites = self.sites()
        encode = self._encoder(self._n_ctx(learned), batch) if changes_text(sites) else None
        unchanged = cache(self.unchanged_text)
        return Sites(self.backbone_, sites, self.put_in, self.weights, encode, unchanged, changes_images(sites))

    def _n_ctx(self, learned: Mapping[str, Tensor]) -> int:
        if (tokens := text_tokens(self.sites())) is None:
            return 0
        with torch.no_grad():
            return self.put_in(learned)[tokens.tensor].shape[-2]

    def _encoder(self, n_ctx: int, batch: int) -> TextEncoder:
        """For steps of so many images; for none, only features are asked for."""
        return text_encoder(self.backbone_, self.class_names_, self.sites(), n_ctx, batch, self._text_options)

    def _groups(self, encode: TextEncoder) -> int:
        """How many contexts go through the text tower together."""
        tokens = text_tokens(self.sites())
        return min(self.recipe_.batch_size, encode.groups_at_once) if tokens is not None and tokens.per_image else 1

    def step_bytes(self, backbone: Backbone, class_names: Sequence[str]) -> int:
        """Bytes that a training step's text pass will hold above the model, at most; 0 for a method without one.

        Raises:
            CooptError: see `fit`.
        """
        other = self._before_fit(backbone, class_names)
        if not changes_text(other.sites()):
            return 0
        encode = other._encoder(other._n_ctx(other.initial()), other.recipe_.batch_size)
        return encode.estimate(other._groups(encode)).total

    def _before_fit(self, backbone: Backbone, class_names: Sequence[str]) -> Self:
        """A copy that knows its classes; this one is unchanged."""
        other = copy.copy(self)
        other.check_parameters()
        other._set_classes(backbone, class_names, named=True)
        return other

    def _image_encoder(self) -> tuple[Backbone, FeatureCache | None]:
        backbone, kept = super()._image_encoder()
        if not self.capabilities.image_tower:
            return backbone, kept
        if "learned_" not in vars(self):
            return backbone, None  # nothing was learned yet; still nothing of this method is kept
        learned = {name: tensor.to(backbone.device) for name, tensor in self.learned_.items()}
        with torch.no_grad():
            weights, tokens = image_changes(self.sites(), self.put_in, self.weights, learned)
        return backbone.with_image_tower(ChangedImages(frozen_images(backbone), weights, tokens)), None

    def _text_features(self, learned: Mapping[str, Tensor]) -> Float[Tensor, "classes dim"]:
        """Normalised text features under what was learned."""
        shared = self._shared(learned, 0)
        if shared.encode is None:
            return self.unchanged_text()
        with torch.no_grad():
            text = run_text(shared, learned)
        return text_directions(text, self.backbone_, self.class_names_, self.precision_)
