"""Images to features: every image is read and decoded once, and encoded once per backbone, ever.

    images -> read, hash (threads) -> already known? -> decode, views (threads) -> image tower -> cache, features

The stages overlap, only a few batches of pixels exist at a time, and after every batch the cache holds all that was
done, so that Ctrl-C loses one batch at most.

Notation: N images given, n kept, V views, D the backbone's embedding dimension.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.protocol import PRECISIONS, Precision
from coopt.backbones.tensors import described, fault_of, without_direction
from coopt.data.cache import FeatureCache, FeatureKey
from coopt.data.encoding import ImageEncoder
from coopt.data.sources import (
    BadContent,
    Content,
    View,
    as_sources,
    decode_views,
    default_workers,
    ordered_map,
    read_content,
)
from coopt.errors import DataError, ParameterError, SkippedImageWarning

Progress = Callable[[int, int], None]
"""Called with (images done, images in all)."""


@dataclass(frozen=True)
class Features:
    """Image features, not normalised.

    Attributes:
        features: one row per kept image, for each view.
        kept: which of the images given the rows belong to (ascending).
        skipped: (name, reason) of the images left out.
    """

    features: Float[Tensor, "views n dim"]
    kept: tuple[int, ...]
    skipped: tuple[tuple[str, str], ...] = ()


def extract_features(
    backbone: Backbone,
    images: Any,
    *,
    views: Sequence[View] = ("test",),
    cache: FeatureCache | None = None,
    on_bad_image: Literal["fail", "skip"] = "fail",
    batch_size: int | None = None,
    workers: int | None = None,
    precision: Precision = "fp32",
    progress: Progress | None = None,
) -> Features:
    """The features of images under each view.

    The result does not depend on `workers`. Images of the same content are encoded once.

    Args:
        backbone: the frozen model.
        images: a list of paths and PIL images, or a float tensor (N, 3, H, W) of pixels that are preprocessed already
            (which has the view "test" only).
        views: "test" for the test transform, or integers: seeds of augmented training views.
        cache: where features are looked up and kept; None: nowhere.
        on_bad_image: "fail" at the first image that cannot be read, or "skip" them all with one warning.
        batch_size: views per pass of the image tower; None: 32 on a CPU, 128 on a GPU. Halved while a GPU's memory
            does not suffice.
        workers: threads that read and decode; 0: this thread does it; None: one per usable core, at most 8.
        precision: "fp32", or "bf16" for the products of the image tower: several times as fast where the hardware
            knows it, with features that differ by about half a percent; the cache keeps the two apart.
        progress: called with (done, total) images, while it works and at the end.

    Raises:
        BadImageError: an image cannot be read, and `on_bad_image` is "fail".
        DataError: no image (is left), images of another kind, or a feature that is not finite, or zero.
        ParameterError: a parameter out of its range.
    """
    _check_parameters(views, on_bad_image, batch_size, workers, precision)
    sources = as_sources(images)
    if isinstance(sources, Tensor) and tuple(views) != ("test",):
        raise ParameterError(
            f"The 'views' of preprocessed pixels must be ('test',): they cannot be augmented. Got {tuple(views)} "
            "instead. Give paths or PIL images for augmented views."
        )
    if len(sources) == 0:
        raise DataError("Got no images. Expected at least one.")
    workers = default_workers() if workers is None else workers
    encoder = ImageEncoder(backbone, precision, batch_size)
    run = _Extraction(encoder, tuple(views), cache, on_bad_image, progress, len(sources))
    run.preprocessing_id = "pixels" if isinstance(sources, Tensor) else backbone.preprocessing.id
    pool = ThreadPoolExecutor(workers, thread_name_prefix="coopt-decode") if workers else None
    try:
        run.consume(run.decoded(pool, sources, workers))
    finally:
        if pool is not None:
            pool.shutdown(wait=True, cancel_futures=True)
    return run.result()


def _check_parameters(
    views: Sequence[View], on_bad_image: str, batch_size: int | None, workers: int | None, precision: str
) -> None:
    def refuse(name: str, expected: str, got: object) -> None:
        raise ParameterError(f"The {name!r} parameter of extract_features must be {expected}. Got {got!r} instead.")

    if isinstance(views, str) or not views or any(view != "test" and not _is_int(view) for view in views):
        refuse("views", "a sequence of 'test' and int seeds that is not empty", views)
    if on_bad_image not in ("fail", "skip"):
        refuse("on_bad_image", "'fail' or 'skip'", on_bad_image)
    if batch_size is not None and (not _is_int(batch_size) or batch_size < 1):
        refuse("batch_size", "None or an int >= 1", batch_size)
    if workers is not None and (not _is_int(workers) or workers < 0):
        refuse("workers", "None or an int >= 0", workers)
    if precision not in PRECISIONS:
        refuse("precision", "'fp32' or 'bf16'", precision)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@dataclass
class _Extraction:
    """One run of `extract_features`: what is known so far."""

    encoder: ImageEncoder
    views: tuple[View, ...]
    cache: FeatureCache | None
    on_bad_image: str
    progress: Progress | None
    total: int
    preprocessing_id: str = ""
    # Made once and whole: small rows that live on between batches of pixels would leave holes in memory, each too small
    # for the next batch.
    features: Tensor = field(init=False)
    repeats: dict[int, int] = field(default_factory=dict)  # position of an image -> of an earlier one that is the same
    names: dict[int, str] = field(default_factory=dict)  # of files that are the same as an earlier one
    bad: dict[int, BadContent] = field(default_factory=dict)
    _batch: list[tuple[Content, int, Tensor]] = field(default_factory=list)
    _done: int = 0

    def __post_init__(self) -> None:
        self.backbone = self.encoder.backbone
        self.batch_size = self.encoder.batch_size
        self.arithmetic = self.encoder.arithmetic
        self.features = torch.zeros(len(self.views), self.total, self.backbone.embed_dim)

    def decoded(
        self, pool: ThreadPoolExecutor | None, sources: Any, workers: int
    ) -> Iterator[tuple[Content, list[int], list[Tensor]] | BadContent]:
        """Contents that need encoding, with the positions of the missing views and their pixels, in order."""

        def decode(
            item: tuple[Content, list[int]] | BadContent,
        ) -> tuple[Content, list[int], list[Tensor]] | BadContent:
            if isinstance(item, BadContent):
                return item
            content, missing = item
            pixels = decode_views(content, self.backbone.preprocessing, [self.views[v] for v in missing])
            # The file's bytes have done their work: only pixels wait for the tower.
            return pixels if isinstance(pixels, BadContent) else (replace(content, data=b""), missing, pixels)

        contents = ordered_map(pool, read_content, self._distinct(sources), window=2 * workers + 2)
        # One batch of pixels ahead of the tower, however many views an image has.
        ahead = workers + math.ceil(self.batch_size / len(self.views))
        return ordered_map(pool, decode, self._unknown(contents), window=ahead)

    def _distinct(self, sources: Any) -> Iterator[tuple[int, Any]]:
        """The sources without those given twice (which also keeps two threads off one PIL image)."""
        first: dict[Any, int] = {}
        for position, source in enumerate(sources):
            if isinstance(source, Tensor):
                yield position, source
                continue
            identity = id(source) if isinstance(source, Image.Image) else os.fspath(source)
            if identity in first:
                self.repeats[position] = first[identity]
            else:
                first[identity] = position
                yield position, source

    def _unknown(self, contents: Iterator[Content | BadContent]) -> Iterator[tuple[Content, list[int]] | BadContent]:
        """The contents not met before in this run, with the views that the cache does not have (maybe none)."""
        first: dict[str, int] = {}
        for content in contents:
            if isinstance(content, BadContent):
                yield content
                continue
            if content.digest in first:
                self.repeats[content.position] = first[content.digest]
                self.names[content.position] = content.name
                continue
            first[content.digest] = content.position
            missing = self._fill_from_cache(content)
            yield (content if missing else replace(content, data=b"")), missing

    def _fill_from_cache(self, content: Content) -> list[int]:
        """Takes what the cache has of an image; returns the views that are missing."""
        if self.cache is None:
            return list(range(len(self.views)))
        keys = [self._key(content, view) for view in range(len(self.views))]
        found = self.cache.get_many(keys)
        missing: list[int] = []
        for view, key in enumerate(keys):
            vector = found.get(key)
            if vector is not None and len(vector) == self.backbone.embed_dim and vector.any():
                self.features[view, content.position] = torch.from_numpy(vector)
            else:
                missing.append(view)
        return missing

    def _key(self, content: Content, view: int) -> FeatureKey:
        fingerprint = self.backbone.fingerprint
        return FeatureKey(content.digest, fingerprint, self.preprocessing_id, self.views[view], self.arithmetic)

    def consume(self, decoded: Iterator[tuple[Content, list[int], list[Tensor]] | BadContent]) -> None:
        """Encodes batch by batch until nothing is left."""
        for item in decoded:
            if isinstance(item, BadContent):
                self.bad[item.position] = item
                if self.on_bad_image == "fail":
                    self._encode(len(self._batch))  # what stood before it is worth keeping in the cache
                    raise item.error
                continue
            content, missing, pixels = item
            self._batch += [(content, view, one) for view, one in zip(missing, pixels, strict=True)]
            while len(self._batch) >= self.batch_size:
                self._encode(self.batch_size)
            self._report(self._batch[0][0].position if self._batch else content.position + 1)
        self._encode(len(self._batch))
        self._report(self.total)

    def _encode(self, count: int) -> None:
        """The first `count` of the waiting views through the tower, into the rows and the cache."""
        batch, self._batch = self._batch[:count], self._batch[count:]
        if not batch:
            return
        self._check_sizes(batch)
        features = self.encoder([one for _, _, one in batch])
        self._check_directions(batch, features)
        for (content, view, _), feature in zip(batch, features, strict=True):
            self.features[view, content.position] = feature
        if self.cache is not None:
            keys = [self._key(content, view) for content, view, _ in batch]
            self.cache.put_many(dict(zip(keys, features.numpy(), strict=True)), self.backbone.name)

    def _check_sizes(self, batch: list[tuple[Content, int, Tensor]]) -> None:
        expected = getattr(self.backbone.preprocessing, "size", None)
        shape = tuple(batch[0][2].shape[1:])
        if self.preprocessing_id == "pixels" and expected is not None and shape != tuple(expected):
            raise DataError(
                f"Pixels are {shape[0]}x{shape[1]}, but the backbone '{self.backbone.name}' takes "
                f"{expected[0]}x{expected[1]}. Preprocess them with backbone.preprocessing.test(image)."
            )

    def _check_directions(self, batch: list[tuple[Content, int, Tensor]], features: Tensor) -> None:
        wrong = without_direction(features).nonzero().flatten().tolist()
        if not wrong:
            return
        content, _, pixels = batch[wrong[0]]
        if bool(torch.isfinite(pixels).all()):
            cause = fault_of(self.backbone, self.encoder.precision) or "its pixels are finite; leave the image out"
        else:
            cause = "its pixels are not finite either: check how they were made"
        raise DataError(f"The feature of '{content.name}' {described(features[wrong[0]])}; {cause}.")

    def _report(self, done: int) -> None:
        if done > self._done and self.progress is not None:
            self.progress(done, self.total)
        self._done = max(self._done, done)

    def result(self) -> Features:
        """The features in the order of the images given.

        Raises:
            DataError: none could be read.
        """
        origin = [self._origin(position) for position in range(self.total)]
        kept = tuple(position for position in range(self.total) if origin[position] not in self.bad)
        skipped = tuple(self._left_out(position) for position in range(self.total) if origin[position] in self.bad)
        if not kept:
            raise DataError(f"None of the {self.total} images could be read. The first: {skipped[0][1]}")
        if skipped:
            shown = " ".join(f"{reason}" for _, reason in skipped[:3]) + (" ..." if len(skipped) > 3 else "")
            warnings.warn(
                f"Left out {len(skipped)} of {self.total} images that could not be read. {shown}",
                SkippedImageWarning,
                stacklevel=3,
            )
        rows = [origin[position] for position in kept]
        in_place = rows == list(range(self.total))
        return Features(self.features if in_place else self.features[:, rows], kept, skipped)

    def _left_out(self, position: int) -> tuple[str, str]:
        """The name of an image that cannot be read, and why: under its own name where an earlier file was the same."""
        bad = self.bad[self._origin(position)]
        while position in self.repeats and position not in self.names:
            position = self.repeats[position]
        name = self.names.get(position, bad.name)
        return name, str(bad.error).replace(f"'{bad.name}'", f"'{name}'", 1)

    def _origin(self, position: int) -> int:
        while position in self.repeats:
            position = self.repeats[position]
        return position


def as_features(features: Any) -> Float[Tensor, "n dim"]:
    """Checks features that were computed elsewhere: two-dimensional, floating point, finite, not zero; float32 on return.

    Raises:
        DataError: they are not.
    """
    if not isinstance(features, Tensor):
        try:
            features = torch.from_numpy(np.array(features))
        except (TypeError, ValueError) as error:
            raise DataError(
                f"Features must be numbers in a table (N, D). Got {type(features).__name__}: {error}"
            ) from None
    if features.ndim != 2 or 0 in features.shape:
        raise DataError(
            f"Features must be two-dimensional (N images, D features) and not empty. Got shape {tuple(features.shape)}."
        )
    if not features.is_floating_point():
        raise DataError(f"Features must be floating-point numbers. Got {features.dtype}; are these labels or pixels?")
    given, features = features.dtype, features.detach().to(torch.float32)
    bad = without_direction(features).nonzero().flatten().tolist()
    if bad:
        rows = ", ".join(map(str, bad[:5])) + (", ..." if len(bad) > 5 else "")
        raise DataError(
            f"Features must be finite and not zero. {len(bad)} of {len(features)} rows are not: {rows}. The first "
            f"{described(features[bad[0]])}. Leave these images out, or compute their features again"
            f"{' in float32' if given is torch.float16 else ''}."
        )
    return features
