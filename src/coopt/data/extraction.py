"""One run of images through the stages of `extract_features`: what is known so far, and what could not be read."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones.tensors import described, fault_of, without_direction
from coopt.data.cache import FeatureCache, FeatureKey
from coopt.data.encoding import ImageEncoder
from coopt.data.sources import BadContent, Content, View, decode_views, ordered_map, read_content
from coopt.data.value_range import DoubtfulRange, range_warning
from coopt.errors import BadImagesError, CooptWarning, DataError, SkippedImageWarning

CHECKED_AFTER_BAD = 10_000
"""Images that are still read, to name all bad ones at once, after the first one that cannot be read."""

# Marks keys of images with more than 8 bits per value; raised when their scaling changes, which leaves others' alone.
_DEEP = "+deep-1"

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


@dataclass
class Extraction:
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
    doubtful: list[tuple[str, DoubtfulRange]] = field(default_factory=list)
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
            decoded = decode_views(content, self.backbone.preprocessing, [self.views[v] for v in missing])
            if isinstance(decoded, BadContent):
                return decoded
            pixels, doubt = decoded
            # The file's bytes have done their work: only pixels wait for the tower.
            return replace(content, data=b"", doubt=content.doubt or doubt), missing, pixels

        read = partial(read_content, value_range=getattr(self.backbone.preprocessing, "value_range", None))
        contents = ordered_map(pool, read, self._distinct(sources), window=2 * workers + 2)
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
            identity = os.fspath(source) if isinstance(source, str | os.PathLike) else id(source)
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
        known = self.cache.get_many(keys)
        missing: list[int] = []
        for view, key in enumerate(keys):
            vector = known.get(key)
            if vector is not None and len(vector) == self.backbone.embed_dim and vector.any():
                self.features[view, content.position] = torch.from_numpy(vector)
            else:
                missing.append(view)
        return missing

    def _key(self, content: Content, view: int) -> FeatureKey:
        preprocessing = self.preprocessing_id + (_DEEP if content.deep else "")
        return FeatureKey(content.digest, self.backbone.fingerprint, preprocessing, self.views[view], self.arithmetic)

    def consume(self, decoded: Iterator[tuple[Content, list[int], list[Tensor]] | BadContent]) -> None:
        """Encodes batch by batch until nothing is left; once it has failed, only looks for other bad images.

        Raises:
            BadImagesError: images cannot be read, and these are not to be left out.
        """
        end: int | None = None  # of what is looked at, once it has failed
        for item in decoded:
            position = item.position if isinstance(item, BadContent) else item[0].position
            if end is not None and position >= end:
                break
            if isinstance(item, BadContent):
                self.bad[position] = item
                if self.on_bad_image == "fail" and end is None:
                    self._encode(len(self._batch))  # what stood before it is worth keeping in the cache
                    end = min(position + CHECKED_AFTER_BAD, self.total)
                continue
            if end is not None:
                continue
            content, missing, pixels = item
            if content.doubt is not None:
                self.doubtful.append((content.name, content.doubt))
            self._batch += [(content, view, one) for view, one in zip(missing, pixels, strict=True)]
            while len(self._batch) >= self.batch_size:
                self._encode(self.batch_size)
            self._report(self._batch[0][0].position if self._batch else content.position + 1)
        if end is not None:
            raise self._bad_images(end)
        self._encode(len(self._batch))
        self._report(self.total)

    def _bad_images(self, end: int) -> BadImagesError:
        wrong = [position for position in range(end) if self._origin(position) in self.bad]
        return BadImagesError([self._left_out(position)[1] for position in wrong], end, whole=end == self.total)

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
            # A doubtful image is not kept: it is decoded again the next time, so that the warning comes again too.
            kept = [row for row, (content, _, _) in enumerate(batch) if content.doubt is None]
            keys = [self._key(batch[row][0], batch[row][1]) for row in kept]
            self.cache.put_many(dict(zip(keys, features.numpy()[kept], strict=True)), self.backbone.name)

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
        if self.doubtful:
            warnings.warn(range_warning(self.doubtful, self.total), CooptWarning, stacklevel=3)
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
