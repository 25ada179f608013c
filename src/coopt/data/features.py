"""Images to features: every image is read and decoded once, and encoded once per backbone, ever.

    images -> read, hash (threads) -> already known? -> decode, views (threads) -> image tower -> cache, features

The stages overlap, only a few batches of pixels exist at a time, and after every batch the cache holds all that was
done, so that Ctrl-C loses one batch at most.

Notation: N images given, n kept, V views, D the backbone's embedding dimension.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from coopt.backbones import Backbone
from coopt.backbones.tensors import described, without_direction
from coopt.data.cache import FeatureCache
from coopt.data.encoding import ImageEncoder
from coopt.data.extraction import CHECKED_AFTER_BAD, Extraction, Features, Progress
from coopt.data.images import why_unreadable
from coopt.data.sources import View, as_sources, default_workers, ordered_map
from coopt.errors import BadImagesError, DataError, ParameterError
from coopt.runtime import PRECISIONS, Precision


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
        images: a list of paths, PIL images and arrays (H, W), (H, W, 3) or (H, W, 4) of uint8; one such array with N
            before its shape; or a float tensor (N, 3, H, W) of pixels that are preprocessed already (which has the view
            "test" only).
        views: "test" for the test transform, or integers: seeds of augmented training views.
        cache: where features are looked up and kept; None: nowhere.
        on_bad_image: "fail" when an image cannot be read (nothing is encoded after the first one, but the others are
            looked at, so that all are named at once), or "skip" them all with one warning.
        batch_size: views per pass of the image tower; None: 32 on a CPU, 128 on a GPU. Halved while a GPU's memory
            does not suffice.
        workers: threads that read and decode; 0: this thread does it; None: one per usable core, at most 8.
        precision: "fp32", or "bf16" for the products of the image tower: several times as fast where the hardware
            knows it, with features that differ by less than a percent on the mean; "auto": the faster on this machine.
            The cache keeps the two apart.
        progress: called with (done, total) images, while it works and at the end.

    Raises:
        BadImagesError: images cannot be read, and `on_bad_image` is "fail".
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
    run = Extraction(encoder, tuple(views), cache, on_bad_image, progress, len(sources))
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
        refuse("precision", "'auto', 'fp32' or 'bf16'", precision)


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


@contextmanager
def named_together_with(others: Sequence[Any]) -> Iterator[None]:
    """Within this context, images that cannot be read are named together with those among `others`.

    Raises:
        BadImagesError: raised within, with the others' reasons added.
    """
    try:
        yield
    except BadImagesError as error:
        looked_at = others[:CHECKED_AFTER_BAD]
        with ThreadPoolExecutor(default_workers()) as pool:
            reasons = [one for one in ordered_map(pool, why_unreadable, looked_at, window=64) if one is not None]
        whole = error.whole and len(looked_at) == len(others)
        raise BadImagesError([*error.reasons, *reasons], error.total + len(looked_at), whole) from None


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
