"""Methods that choose numbers on images that they do not learn from, where these are given.

Notation: n images, D dimension of the shared embedding space.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from coopt.data import encode_labels
from coopt.methods.base import ClipClassifier
from coopt.methods.inputs import as_images

if TYPE_CHECKING:
    from typing_extensions import Self


class Validation(NamedTuple):
    """Images on which settings are compared.

    Attributes:
        features: as the image tower gives them.
        targets: their classes.
    """

    features: Float[Tensor, "n dim"]
    targets: Int[Tensor, " n"]


class ValidatedMethod(ClipClassifier):
    """Base of the methods whose `fit` takes validation images."""

    def fit(self, images: Any, labels: Any, val_images: Any = None, val_labels: Any = None) -> Self:
        """Learns from labelled images.

        Args:
            images: see the class.
            labels: one per image: class names, or integers (then `class_names` says what they mean).
            val_images: other images, on which settings are compared by accuracy; None: there are none.
            val_labels: their labels.

        Raises:
            CooptError: see `coopt.CoOp.fit`.
        """
        self._given_validation = None if val_images is None else (as_images(val_images), val_labels)
        super().fit(images, labels)
        del self._given_validation
        return self

    def _validation(self) -> Validation | None:
        """The validation images that `fit` was given; None without any."""
        if self._given_validation is None:
            return None
        images, labels = self._given_validation
        extracted = self._features(images, ("test",))
        encoded, _ = encode_labels(labels, self.class_names_, len(images))
        targets = torch.from_numpy(encoded[list(extracted.kept)]).to(self.backbone_.device)
        return Validation(extracted.features[0], targets)
