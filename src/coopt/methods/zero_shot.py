"""Zero-shot CLIP with hand-made prompts, one or an ensemble.

Radford et al.: "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021, arXiv:2103.00020.
Published, ImageNet (as CoOp's table 2 reports): "a photo of a {}." 58.18 (RN50) to 66.73 (ViT-B/16); seven templates
60.41 to 68.74.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from jaxtyping import Int
from torch import Tensor

from coopt.backbones import load_backbone
from coopt.data import as_class_names
from coopt.inference.heads import CosineHead
from coopt.methods.base import ClipClassifier
from coopt.methods.capabilities import Capabilities
from coopt.methods.shared_parameters import DESCRIPTIONS, TEMPLATES
from coopt.parameters import fitted
from coopt.prompts.descriptions import Descriptions
from coopt.prompts.templates import template_features, template_list


class ZeroShot(ClipClassifier):
    """Classifies by hand-made prompts; fitting only reads the class names."""

    method: ClassVar[str] = "zero_shot"
    title: ClassVar[str] = "hand-made prompt"
    paper: ClassVar[str] = (
        "Radford et al.: Learning Transferable Visual Models From Natural Language Supervision, ICML 2021, arXiv:2103.00020"
    )
    published: ClassVar[Mapping[str, float]] = {
        "ImageNet, one template, RN50": 58.18,
        "ImageNet, one template, ViT-B/16": 66.73,
        "ImageNet, seven templates, RN50": 60.41,
        "ImageNet, seven templates, ViT-B/16": 68.74,
    }
    capabilities: ClassVar[Capabilities] = Capabilities(images=False)

    templates: str | Sequence[str] = TEMPLATES
    descriptions: Descriptions | None = DESCRIPTIONS

    text_features_: Tensor = fitted()

    def fit_classes(self, class_names: Sequence[str]) -> ZeroShot:
        """Makes the classifier from class names alone: no image is needed."""
        self.check_parameters()
        names = as_class_names(class_names)
        self._set_classes(load_backbone(self.backbone, self.machine.device), names, named=True)
        self._set_state({})
        return self

    def _training_features(self, images: Any) -> tuple[None, Sequence[int]]:
        return None, range(len(images))  # nothing is learned, so nothing is decoded

    def _fit(self, features: None, targets: Int[Tensor, " n"]) -> None:
        self._set_state({})

    def head(self) -> CosineHead:
        """See `ClipClassifier.head`."""
        return CosineHead(self.text_features_, self.backbone_.score_head)

    def _shapes(self) -> dict[str, tuple[int | None, ...]]:
        return {}

    def _state(self) -> dict[str, Tensor]:
        return {}

    def _take_state(self, state: dict[str, Tensor]) -> None:
        self.text_features_ = template_features(
            self.backbone_, self.class_names_, self.template_list, self.descriptions, **self._text_options
        )

    @property
    def template_list(self) -> tuple[str, ...]:
        """The templates as a tuple, whatever form they were given in."""
        return template_list(self.templates)
