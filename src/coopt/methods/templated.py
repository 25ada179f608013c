"""What those methods share that begin from the text features of hand-made prompts.

Notation: n images, C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from coopt.backbones import Backbone
from coopt.backbones.precision import UsedPrecision
from coopt.methods.base import ClipClassifier
from coopt.methods.forward import Batch, Forward
from coopt.methods.learned import LearnedMethod
from coopt.methods.shared_parameters import DESCRIPTIONS, TEMPLATES
from coopt.methods.sited import SitedMethod
from coopt.parameters import fitted
from coopt.prompts.descriptions import Descriptions
from coopt.prompts.templates import template_features, template_list
from coopt.text.directions import text_directions
from coopt.text.encode import TextEncoder


class WithTemplates(ClipClassifier):
    """Base of the methods that know the text features of hand-made prompts.

    Attributes:
        template_features_: normalised text features of the hand-made prompts, (C, D).
    """

    templates: str | Sequence[str] = TEMPLATES
    descriptions: Descriptions | None = DESCRIPTIONS

    template_features_: Tensor = fitted()

    def _set_classes(
        self, backbone: Backbone, names: Sequence[str], named: bool, precision: UsedPrecision | None = None
    ) -> None:
        super()._set_classes(backbone, names, named, precision)
        templates = template_list(self.templates)
        self.template_features_ = template_features(backbone, names, templates, self.descriptions, **self._text_options)


class TemplatedMethod(WithTemplates, LearnedMethod):
    """Base of the methods that learn by a recipe and know the text features of hand-made prompts.

    Attributes:
        template_features_: normalised text features of the hand-made prompts, (C, D).
    """

    def unchanged_text(self) -> Float[Tensor, "classes dim"]:
        """See `LearnedMethod.unchanged_text`: of the templates."""
        return self.template_features_


class HeldNearTemplates(SitedMethod):
    """Base of the methods whose learned prompts are held near hand-made ones, which only learning needs."""

    templates: str | Sequence[str] = TEMPLATES
    descriptions: Descriptions | None = DESCRIPTIONS
    descriptions_behind: ClassVar[bool] = False

    def unchanged_text(self) -> Float[Tensor, "classes dim"]:
        """See `SitedMethod.unchanged_text`: of the templates and descriptions."""
        templates = template_list(self.templates)
        return template_features(self.backbone_, self.class_names_, templates, self.descriptions, **self._text_options)


class TextAdapter(TemplatedMethod):
    """Base of the methods that change the text features themselves, and nothing before them.

    Attributes:
        learned_: what was learned, by name.
        text_features_: the changed text features, normalised, (C, D).
    """

    @abstractmethod
    def _changed(self, learned: Mapping[str, Tensor]) -> Float[Tensor, "classes dim"]:
        """The text features under `learned`, not normalised."""

    def loss(self, forward: Forward, batch: Batch) -> Tensor:
        """See `LearnedMethod.loss`."""
        text = normalize(self._changed(forward.parameters), dim=-1)
        return batch.cross_entropy(forward.scores(text))

    def operations(self, learned: Mapping[str, Tensor], encode: TextEncoder | None) -> int:
        """See `LearnedMethod.operations`."""
        n_classes, dim = self.template_features_.shape
        return 6 * n_classes * dim * (dim + self.recipe_.batch_size)

    def _text_features(self, learned: Mapping[str, Tensor]) -> Float[Tensor, "classes dim"]:
        return text_directions(self._changed(learned), self.backbone_, self.class_names_, self.precision_)
