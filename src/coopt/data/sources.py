"""What stands before the image tower: images of any kind to named, hashed, decoded pixels.

Work is spread over threads (Pillow lets go of Python's lock while it decodes and resizes) by `ordered_map`, whose
results come in the order of its input whatever the number of threads, and of which only a bounded window exists at any
time.
"""

from __future__ import annotations

import hashlib
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from coopt.backbones.preprocessing import Preprocessing, ValueRange
from coopt.data.file_names import display_name
from coopt.data.images import DOUBT, Source, decode_image, image_of_array, name_of, open_image, read_image_bytes
from coopt.data.value_range import DoubtfulRange, file_is_deep
from coopt.errors import BadImageError, DataError
from coopt.threads import usable_cores

View = str | int
"""How an image is looked at: "test" (the test transform), or the seed of an augmented training view."""

_In = TypeVar("_In")
_Out = TypeVar("_Out")


@dataclass(frozen=True)
class Content:
    """The content of one image, not decoded yet.

    Attributes:
        position: its place among the images given.
        name: how messages call it.
        digest: SHA-256 (hex) of a file's bytes, or of a PIL image's, an array's or a tensor's pixels.
        data: a file's bytes, an RGB image, or preprocessed pixels.
        deep: a file with more than 8 bits per value.
        doubt: why its brightness may be wrong, of an image that is no file (of which `decode_views` says it).
    """

    position: int
    name: str
    digest: str
    data: bytes | Image.Image | Tensor
    deep: bool = False
    doubt: DoubtfulRange | None = None


@dataclass(frozen=True)
class BadContent:
    """An image that cannot be read, and why."""

    position: int
    name: str
    error: BadImageError


def as_sources(images: Any) -> list[Source] | Float[Tensor, "n 3 height width"]:
    """Checks what was given as images: a list of paths, PIL images and arrays of uint8; or preprocessed pixels.

    Args:
        images: the list; one array of uint8 for all, (N, H, W), (N, H, W, 3) or (N, H, W, 4); or floats (N, 3, H, W).

    Raises:
        DataError: anything else.
    """
    if isinstance(images, np.ndarray) and images.dtype.kind == "f":
        images = torch.from_numpy(images)
    if isinstance(images, Tensor):
        if images.ndim != 4 or images.shape[1] != 3 or not images.is_floating_point():
            raise DataError(
                f"Pixels must be a float tensor (N, 3, height, width), already preprocessed. Got {images.dtype} of "
                f"shape {tuple(images.shape)}. To have images preprocessed, give paths, PIL images, or an array of uint8 "
                "(N, height, width, 3): of values from 0 to 1, make it with (255 * images).round().astype('uint8')."
            )
        return images
    if isinstance(images, str | os.PathLike | Image.Image) or _is_one_image(images):
        raise DataError(f"Expected a list of images. Got a single {type(images).__name__}; write [image].")
    sources = list(images)
    for position, source in enumerate(sources):
        if isinstance(source, np.ndarray):
            image_of_array(source, f"Image {position}")
        elif not isinstance(source, str | os.PathLike | Image.Image):
            raise DataError(
                f"Image {position} is a {type(source).__name__}. Expected paths, PIL images or arrays of uint8 "
                "(height, width, 3); or one float tensor (N, 3, height, width) for all."
            )
    return sources


def _is_one_image(images: Any) -> bool:
    """An array (H, W, 3): a list of H images of W rows and 3 columns is not what anybody has."""
    return isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[2] in (1, 3, 4)


def read_content(item: tuple[int, Source | Tensor], value_range: ValueRange | None = None) -> Content | BadContent:
    """Reads one image and hashes it. Errors are returned, so that they are met in the images' order.

    Args:
        item: the image's place and the image.
        value_range: see `open_image`; files are decoded later.
    """
    position, source = item
    if isinstance(source, Tensor):
        data = source.detach().to("cpu", torch.float32).contiguous()
        digest = hashlib.sha256(f"pixels {tuple(data.shape)} ".encode() + data.numpy().tobytes()).hexdigest()
        return Content(position, f"image {position}", digest, data)
    try:
        if isinstance(source, str | os.PathLike):
            file = read_image_bytes(source)
            digest = hashlib.sha256(file).hexdigest()
            return Content(position, display_name(source), digest, file, file_is_deep(file))
        name, rgb = name_of(source), open_image(source, value_range)
        digest = hashlib.sha256(f"RGB {rgb.size} ".encode() + rgb.tobytes()).hexdigest()
        return Content(position, name, digest, rgb, doubt=rgb.info.get(DOUBT))
    except BadImageError as error:
        return BadContent(position, name_of(source), error)


def decode_views(
    content: Content, preprocessing: Preprocessing | Any, views: Sequence[View]
) -> tuple[list[Float[Tensor, "3 height width"]], DoubtfulRange | None] | BadContent:
    """The pixels of each view of an image, which is decoded once for all, and what is doubtful about its brightness."""
    if isinstance(content.data, Tensor):
        return [content.data for _ in views], None
    if not views:  # everything is known already
        return [], None
    try:
        data = content.data
        if isinstance(data, bytes):
            data = decode_image(data, content.name, getattr(preprocessing, "value_range", None))
    except BadImageError as error:
        return BadContent(content.position, content.name, error)
    pixels = [
        preprocessing.test(data) if view == "test" else preprocessing.train_view(data, view_seed(content.digest, view))
        for view in views
    ]
    return pixels, data.info.get(DOUBT)


def view_seed(digest: str, view: View) -> int:
    """The seed of one image's training view: by content, so that it does not depend on the order or the company."""
    return int.from_bytes(hashlib.sha256(f"{digest} view {view}".encode()).digest()[:4], "big")


def default_workers() -> int:
    """As many threads as this process may use cores, at most 8: more do not help Pillow."""
    return min(8, usable_cores())


def ordered_map(
    pool: ThreadPoolExecutor | None, function: Callable[[_In], _Out], items: Iterable[_In], window: int
) -> Iterator[_Out]:
    """`map` in the order of `items`, at most `window` of them begun and not taken; without a pool, in this thread."""
    if pool is None:
        yield from map(function, items)
        return
    pending: deque[Future[_Out]] = deque()
    for item in items:
        pending.append(pool.submit(function, item))
        if len(pending) >= window:
            yield pending.popleft().result()
    while pending:
        yield pending.popleft().result()
