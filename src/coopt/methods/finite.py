"""What is refused because it would look like any other prediction, though it comes from no numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.tensors import described, fault_of, without_direction
from coopt.errors import BackboneError, DataError, TrainingError
from coopt.wording import called


def check_logit_scale(backbone: Backbone) -> None:
    """Raises BackboneError unless the logit scale is a number above 0."""
    if not 0 < backbone.logit_scale < float("inf"):
        raise BackboneError(
            f"The logit scale of {backbone.name} is {backbone.logit_scale}. Expected a number above 0; get its weights "
            "again."
        )


def check_learned(state: Mapping[str, Tensor], method: str) -> None:
    """Raises TrainingError where a tensor that a method learned is not finite."""
    for name, tensor in state.items():
        if not bool(torch.isfinite(tensor).all()):
            raise TrainingError(
                f"What {method} learned is of no use: the tensor {name!r} holds values that are not finite (NaN or "
                f"infinite). Learn it again, with a lower learning rate where it has one ({called('recipe.lr')})."
            )


def check_scores(
    scores: Float[Tensor, "n classes"],
    features: Float[Tensor, "n dim"],
    images: Sequence[int],
    class_names: Sequence[str],
    backbone: Backbone,
    precision: str,
) -> None:
    """Refuses scores of image features that have no direction, and scores that are not finite.

    Args:
        scores: of the images.
        features: what they were made of.
        images: which images the rows belong to.
        class_names: which classes the columns belong to.
        backbone: what made the features.
        precision: in which it ran.

    Raises:
        DataError: an image's feature is not finite, or zero.
        BackboneError: a score is not finite.
    """
    if bool((wrong := without_direction(features)).any()):
        row = int(wrong.nonzero()[0])
        raise DataError(
            f"The feature of image {images[row]} {described(features[row])}. Compute it again, or leave the image out."
        )
    if not bool((finite := torch.isfinite(scores)).all()):
        row, column = (~finite).nonzero()[0].tolist()
        cause = fault_of(backbone, precision) or "what was learned is too large; learn it again"
        raise BackboneError(
            f"The score of the class {class_names[column]!r} for image {images[row]} is not finite: {cause}."
        )
