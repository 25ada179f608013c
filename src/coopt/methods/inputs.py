"""What may stand for images: which kind was given, and whether it has an order."""

from __future__ import annotations

import os
from collections.abc import Mapping, Set
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from coopt.errors import DataError


def as_images(images: Any) -> Any:
    """Images as something with a length that can be indexed: what has both as it is, whatever else gives images as a list.

    A table of another library (a data frame of features) is taken as an array: as a list it would be its columns' names.

    Raises:
        DataError: a single image, what has no order (the answers could not be told apart), or a sparse table.
    """
    if isinstance(images, list | tuple | np.ndarray | Tensor):
        return images
    if isinstance(images, str | bytes | os.PathLike | Image.Image):
        raise DataError(f"Expected a list of images. Got a single {type(images).__name__}; write [image].")
    if hasattr(images, "tocsr"):
        raise DataError(
            "Got a sparse table. Expected a dense one: features are hardly ever zero. Write table.toarray()."
        )
    if isinstance(images, Set | Mapping):
        raise DataError(f"Images must stand in an order. Got a {type(images).__name__}; give a list.")
    if hasattr(images, "__array__") and np.ndim(table := np.asarray(images)) > 1:
        return table
    try:
        return list(images)
    except TypeError:
        raise DataError(
            f"Expected a list of images, a tensor of pixels or a table of features. Got {type(images).__name__}."
        ) from None


def is_features(images: Any) -> bool:
    """True for a table (N, D), as an array or a tensor."""
    return isinstance(images, np.ndarray | Tensor) and images.ndim == 2


def is_pixels(images: Any) -> bool:
    """True for preprocessed pixels, floats (N, 3, H, W); integers are images that nobody has preprocessed."""
    if isinstance(images, Tensor):
        return images.ndim == 4 and images.is_floating_point()
    return isinstance(images, np.ndarray) and images.ndim == 4 and images.dtype.kind == "f"
