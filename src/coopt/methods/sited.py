"""What a method puts into the two towers at its sites, and what a step through them costs.

Notation: C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.data import FeatureCache
from coopt.errors import TooLittleMemoryError
from coopt.methods.base import ClipClassifier
from coopt.methods.forward import ChangedImages, Sites, frozen_images, image_changes, run_text, text_encoder
from coopt.methods.image_pass import ImageChanges, ImagePass, image_pass
from coopt.methods.sites import Site, changes_images, changes_text, text_inserted, text_tokens, weights_in
from coopt.parameters import fitted
from coopt.prompts.descriptions import described
from coopt.prompts.templates import DEFAULT_TEMPLATE, template_features
from coopt.text.directions import text_directions
from coopt.text.encode import TextEncoder
from coopt.text.memory import automatic_memory, bytes_of, text_of
from coopt.training.recipe import Recipe
from coopt.wording import called, subject

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

    @property
    def prompt_template(self) -> str:
        """The hand-made prompt that goes through a changed text tower where no context vectors do."""
        return DEFAULT_TEMPLATE

    def put_in(self, learned: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What stands at the sites, by the names that they have for it: unless a method says otherwise, what is learned.

        A method whose vectors are computed from what it learns computes them here, differentiably; it is asked in each step.
        """
        return learned

    descriptions_behind: ClassVar[bool] = False
    """Whether what `descriptions` say of a class stands behind its name in prompts with learned vectors."""

    def prompt_names(self) -> tuple[str, ...]:
        """The names as they stand in prompts with learned vectors."""
        if not self.descriptions_behind:
            return self.class_names_
        return tuple(described(name, getattr(self, "descriptions", None)) for name in self.class_names_)

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
        """For steps of so many images; for none, only features of classes are asked for."""
        sites = self.sites()
        images = self._image_pass(learned, batch) if batch and changes_images(sites) else None
        encode = self._encoder(self._n_ctx(learned), batch, images) if changes_text(sites) else None
        return Sites(self.backbone_, sites, self.put_in, self.weights, encode, cache(self.unchanged_text), images)

    def _image_pass(self, learned: Mapping[str, Tensor], batch: int) -> ImagePass:
        def changes() -> ImageChanges:
            return image_changes(self.sites(), self.put_in, self.weights, learned)

        images = image_pass(frozen_images(self.backbone_), self.backbone_.preprocessing.size, batch, changes, learned)
        memory = bytes_of(self.machine.memory)
        images.fit_into(automatic_memory(self.backbone_.device) if memory is None else memory - images.fixed)
        if memory is not None and not changes_text(self.sites()) and images.total() > memory:
            raise TooLittleMemoryError(
                f"{subject('memory', 'the method')} must be at least {text_of(images.total(1))} here: what a step takes "
                f"with one image at a time. Got {text_of(memory)} instead; give more, or take a smaller batch "
                f"({called('recipe.batch_size')})."
            )
        return images

    def _n_ctx(self, learned: Mapping[str, Tensor]) -> int:
        sites = self.sites()
        if (tokens := text_tokens(sites) or text_inserted(sites)) is None:
            return 0
        with torch.no_grad():
            return self.put_in(learned)[tokens.tensor].shape[-2]

    def _encoder(self, n_ctx: int, batch: int, images: ImagePass | None = None) -> TextEncoder:
        """For steps of so many images; for none, only features are asked for.

        Args:
            n_ctx: context vectors.
            batch: images of a step.
            images: their pass, which holds memory of the same step; fewer run at once until there is room for the text.
        """
        while True:
            beside = 0 if images is None else images.total()
            try:
                return text_encoder(
                    self.backbone_,
                    self.prompt_names(),
                    self.sites(),
                    n_ctx,
                    batch,
                    self._text_options,
                    beside,
                    self.prompt_template,
                )
            except TooLittleMemoryError:
                if images is None or not images.shrink():
                    raise

    def _groups(self, encode: TextEncoder) -> int:
        """How many contexts go through the text tower together."""
        tokens = text_tokens(self.sites())
        return min(self.recipe_.batch_size, encode.groups_at_once) if tokens is not None and tokens.per_image else 1

    def step_bytes(self, backbone: Backbone, class_names: Sequence[str]) -> int:
        """Bytes that a training step will hold above the model, at most; 0 for a method without text pass or image pass.

        Raises:
            CooptError: see `fit`.
        """
        other = self._before_fit(backbone, class_names)
        if not changes_text(other.sites()) and not changes_images(other.sites()):
            return 0
        learned = {name: one.to(backbone.device).requires_grad_() for name, one in other.initial().items()}
        shared = other._shared(learned, other.recipe_.batch_size)
        if shared.encode is not None:
            return shared.encode.estimate(other._groups(shared.encode)).total
        return 0 if shared.images is None else shared.images.total()

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
            changes = image_changes(self.sites(), self.put_in, self.weights, learned)
        other = backbone.with_image_tower(ChangedImages(frozen_images(backbone), changes))
        other.embed_dim *= 1 if changes.read is None else 2
        return other, None

    def _text_features(self, learned: Mapping[str, Tensor]) -> Float[Tensor, "classes dim"]:
        """Normalised text features under what was learned."""
        shared = self._shared(learned, 0)
        if shared.encode is None:
            return self.unchanged_text()
        with torch.no_grad():
            text = run_text(shared, learned)
        return text_directions(text, self.backbone_, self.class_names_, self.precision_)
