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
from coopt.prompts.descriptions import Descriptions, written_texts
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
    descriptions: Descriptions | None = None,
    *,
    path: TextPath = "auto",
    precision: Precision = "fp32",
    memory: Memory = "auto",
) -> Float[Tensor, "classes dim"]:
    """Normalised text features; those of several texts are normalised one by one, averaged and normalised again.

    Args:
        backbone: the frozen model.
        class_names: C names.
        templates: at least one, each with "{}" for the name.
        descriptions: what else there is to say of some classes; each text counts as much as a template.
        path: how prompts are encoded, as for the next two see `TextEncoder`.
        precision: of the matrix products.
        memory: what may be held above the model.

    Raises:
        ParameterError: no template, or one without exactly one "{}".
        PromptTooLongError: a prompt does not fit the text tower.
        BackboneError: a text feature is not finite, or zero.
    """
    if len(templates) == 0:
        raise ParameterError(
            f"{subject('templates', 'the method')} must hold at least one template such as 'a photo of a {{}}.'."
        )

    def encoded(texts: Sequence[str], template: str, of_classes: Sequence[str]) -> Tensor:
        prompts = template_prompts(backbone, texts, template)
        encoder = TextEncoder(backbone, prompts, path=path, precision=precision, memory=memory, learning=False)
        return text_directions(encoder(), backbone, of_classes, resolved(precision, backbone.device))

    with torch.no_grad():
        total = encoded(class_names, templates[0], class_names)
        for template in templates[1:]:
            total += encoded(class_names, template, class_names)
        texts, classes = written_texts(backbone, class_names, templates, descriptions or {})
        if texts:
            more = encoded(texts, "{}", [class_names[index] for index in classes])
            total.index_add_(0, torch.tensor(classes, device=total.device), more)
        counts = torch.bincount(torch.tensor(classes, dtype=torch.long), minlength=len(class_names)) + len(templates)
        return normalize(total / counts.to(total)[:, None], dim=-1)
