"""Text features as directions, with those refused that have none."""

from __future__ import annotations

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import normalize

from coopt.backbones.protocol import Backbone
from coopt.backbones.tensors import described, fault_of, without_direction
from coopt.errors import BackboneError


def text_directions(
    features: Float[Tensor, "classes dim"], backbone: Backbone, class_names: Sequence[str], precision: str
) -> Float[Tensor, "classes dim"]:
    """The text features of classes, normalised.

    Args:
        features: not normalised.
        backbone: whose text tower made them.
        class_names: of the rows.
        precision: in which they were made.

    Raises:
        BackboneError: a feature is not finite, or zero.
    """
    wrong = without_direction(features).nonzero().flatten().tolist()
    if wrong:
        cause = fault_of(backbone, precision) or "the weights are finite, but what was learned for them is too large"
        raise BackboneError(
            f"The text feature of the class {class_names[wrong[0]]!r} {described(features[wrong[0]])} ({len(wrong)} of "
            f"{len(features)} classes): {cause}."
        )
    return normalize(features, dim=-1)
