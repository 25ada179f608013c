"""What those learned methods share that begin from the text features of hand-made prompts.

Notation: n images, C classes, D dimension of the shared embedding space.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from coopt.backbones import Backbone
from coopt.backbones.precision import UsedPrecision
from coopt.errors import SavedFileError
from coopt.methods.learned import LearnedMethod, Objective
from coopt.methods.shared_parameters import TEMPLATES
from coopt.parameters import fitted
from coopt.prompts.templates import template_features, template_list
from coopt.text.directions import text_directions


class TemplatedMethod(LearnedMethod):
    """Base of the methods that leave the words alone and learn something beside them.

    Attributes:
        template_features_: normalised text features of the hand-made prompts, (C, D).
    """

    templates: str | Sequence[str] = TEMPLATES

    template_features_: Tensor = fitted()

    def _set_classes(
        self, backbone: Backbone, names: Sequence[str], named: bool, precision: UsedPrecision | None = None
    ) -> None:
        super()._set_classes(backbone, names, named, precision)
        templates = template_list(self.templates)
        self.template_features_ = template_features(backbone, names, templates, **self._text_options)


class TextAdapter(TemplatedMethod):
    """Base of the methods that change the text features themselves, and nothing before them.

    Attributes:
        learned_: what was learned, by name.
        text_features_: the changed text features, normalised, (C, D).
    """

    learned_: dict[str, Tensor] = fitted()
    text_features_: Tensor = fitted()

    @abstractmethod
    def _changed(self, learned: dict[str, Tensor]) -> Float[Tensor, "classes dim"]:
        """The text features under `learned`, not normalised."""

    def _objective(self, learned: dict[str, Tensor]) -> Objective:
        scale = self.backbone_.logit_scale

        def loss_of(features: Tensor, targets: Tensor) -> Tensor:
            text = normalize(self._changed(learned), dim=-1)
            return cross_entropy(scale * normalize(features, dim=-1) @ text.T, targets)

        n_classes, dim = self.template_features_.shape
        return Objective(loss_of, 6 * n_classes * dim * (dim + self.recipe_.batch_size))

    def _logits(self, features: Float[Tensor, "n dim"]) -> Float[Tensor, "n classes"]:
        return self.backbone_.logit_scale * normalize(features, dim=-1) @ self.text_features_.T

    def _state(self) -> dict[str, Tensor]:
        return self.learned_

    def _check_state(self, state: dict[str, Tensor]) -> None:
        for name, expected in self._initial().items():
            if state[name].shape != expected.shape:
                raise SavedFileError(
                    f"The saved {name} has shape {tuple(state[name].shape)}; expected {tuple(expected.shape)}."
                )

    def _take_state(self, state: dict[str, Tensor]) -> None:
        self.learned_ = {name: tensor.float().cpu() for name, tensor in state.items()}
        on_device = {name: tensor.to(self.backbone_.device) for name, tensor in self.learned_.items()}
        changed = self._changed(on_device)
        self.text_features_ = text_directions(changed, self.backbone_, self.class_names_, self.precision_)

    def with_classes(self, class_names: Sequence[str]) -> TextAdapter:
        """The same change to the text features of other class names: a new fitted estimator; this one is unchanged.

        Raises:
            ParameterError: what was learned belongs to its classes.
            DataError: fewer than two names, or blank ones.
        """
        other = self._copy_with(class_names)
        assert isinstance(other, TextAdapter)
        other._set_state(self.learned_)
        return other
