"""Hand-made prompts: single templates and ensembles of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from coopt.backbones.precision import resolved
from coopt.backbones.protocol import Backbone
from coopt.errors import ParameterError
from coopt.runtime import Precision, TextPath
from coopt.text.directions import text_directions
from coopt.text.encode import TextEncoder
from coopt.text.layout import template_prompts
from coopt.text.memory import Memory
from coopt.wording import subject

DEFAULT_TEMPLATE = "a photo of a {}."

ENSEMBLE = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)
"""The seven templates that CLIP's authors selected for ImageNet (Radford et al., ICML 2021; used by CoOp's table 2)."""


def imagenet_templates() -> tuple[str, ...]:
    """The 80 templates that CLIP's authors wrote for ImageNet."""
    from open_clip import OPENAI_IMAGENET_TEMPLATES

    return tuple(fill("{}") for fill in OPENAI_IMAGENET_TEMPLATES)


def template_list(templates: str | Sequence[str]) -> tuple[str, ...]:
    """The templates that are meant by one template, several, "ensemble" (seven) or "ensemble-80" (all of CLIP's).

    Raises:
        ParameterError: it is neither text nor a list of texts.
    """
    if isinstance(templates, str) and templates == "ensemble":
        return ENSEMBLE
    if isinstance(templates, str) and templates == "ensemble-80":
        return imagenet_templates()
    texts = (templates,) if isinstance(templates, str) else templates
    if not isinstance(texts, list | tuple | np.ndarray) or not all(isinstance(one, str) for one in texts):
        raise ParameterError(
            f"{subject('templates', 'the method')} must be one template such as 'a photo of a {{}}.', or a list of them. "
            f"Got {templates!r} instead."
        )
    return tuple(str(one) for one in texts)


def template_features(
    backbone: Backbone,
    class_names: Sequence[str],
    templates: Sequence[str],
    *,
    path: TextPath = "auto",
    precision: Precision = "fp32",
    memory: Memory = "auto",
) -> Float[Tensor, "classes dim"]:
    """Normalised text features; several templates are normalised one by one, averaged and normalised again.

    Raises:
        ParameterError: no template, or one without exactly one "{}".
        PromptTooLongError: a prompt does not fit the text tower.
        BackboneError: a text feature is not finite, or zero.
    """
    if len(templates) == 0:
        raise ParameterError(
            f"{subject('templates', 'the method')} must hold at least one template such as 'a photo of a {{}}.'."
        )

    def encoded(template: str) -> Tensor:
        prompts = template_prompts(backbone, class_names, template)
        encoder = TextEncoder(backbone, prompts, path=path, precision=precision, memory=memory, learning=False)
        return text_directions(encoder(), backbone, class_names, resolved(precision, backbone.device))

    with torch.no_grad():
        total = encoded(templates[0])
        for template in templates[1:]:
            total += encoded(template)
        return normalize(total / len(templates), dim=-1)
