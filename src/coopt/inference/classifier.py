"""`FrozenClassifier`: everything between pixels and probabilities, as one module.

It knows nothing of how it was learned, so it is what is exported, served and published.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from coopt.backbones.preprocessing import Preprocessing
from coopt.backbones.protocol import Link, probabilities_of
from coopt.data.images import Source, open_image
from coopt.data.sources import as_sources
from coopt.errors import DataError

IMAGES_TOGETHER = 64
"""Images that `predict` holds at once."""


class FrozenClassifier(nn.Module):
    """An image tower, a head, and what they mean.

    Args:
        image_tower: pixels (n, 3, h, w) to features (n, D), such as `backbone.image`.
        head: features to scores (n, C), such as `method.head()`.
        class_names: of the scores.
        preprocessing: how an image becomes pixels.
        link: what makes probabilities of scores: "softmax" over the classes, or "sigmoid" of each.

    Raises:
        DataError: no class is named.
    """

    def __init__(
        self,
        image_tower: nn.Module,
        head: nn.Module,
        class_names: Sequence[str],
        preprocessing: Preprocessing,
        link: Link = "softmax",
    ) -> None:
        super().__init__()
        if len(class_names) == 0:
            raise DataError("A classifier must know the names of its classes. Got none.")
        self.image_tower = image_tower
        self.head = head
        self.class_names = tuple(class_names)
        self.preprocessing = preprocessing
        self.link: Link = link

    def forward(self, pixels: Float[Tensor, "n 3 height width"]) -> Float[Tensor, "n classes"]:
        """Scores of preprocessed pixels."""
        return self.head(self.image_tower(pixels))

    def probabilities(self, scores: Float[Tensor, "n classes"]) -> Float[Tensor, "n classes"]:
        """Of the classes, given scores."""
        return probabilities_of(scores, self.link)

    def predict(self, images: Any) -> list[str]:
        """The name of the most probable class of each image.

        Args:
            images: a list of paths, PIL images or arrays of uint8; or preprocessed pixels (n, 3, h, w).

        Raises:
            DataError: one of them is no image.
        """
        return [self.class_names[best] for scores in self._scores(images) for best in scores.argmax(dim=1).tolist()]

    def predict_proba(self, images: Any) -> Float[Tensor, "n classes"]:
        """Probabilities of all classes for each image.

        Args:
            images: see `predict`.
        """
        none = torch.zeros(0, len(self.class_names))
        return torch.cat([none, *(self.probabilities(scores).float().cpu() for scores in self._scores(images))])

    def _scores(self, images: Any) -> Iterator[Float[Tensor, "part classes"]]:
        sources = as_sources(images)
        device = next((tensor.device for tensor in (*self.parameters(), *self.buffers())), torch.device("cpu"))
        for start in range(0, len(sources), IMAGES_TOGETHER):
            part = sources[start : start + IMAGES_TOGETHER]
            pixels = part if isinstance(part, Tensor) else torch.stack([self._pixels(source) for source in part])
            with torch.no_grad():
                yield self(pixels.to(device, torch.float32))

    def _pixels(self, source: Source) -> Float[Tensor, "3 height width"]:
        return self.preprocessing.test(open_image(source, self.preprocessing.value_range))
