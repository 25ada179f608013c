"""Images that show the same: accuracy measured on one is remembered, not learned, where the other was learned from.

Equal files are found by their bytes, in sets of any size. Files that show the same picture (saved again, resized,
another format) are found by their thumbnails, when the set is small enough to decode it all; cropped or mirrored
copies are not.
"""

from __future__ import annotations

import hashlib
import warnings
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from jaxtyping import Float

from coopt.backbones.preprocessing import ValueRange
from coopt.data.archives import read_bytes, status_of
from coopt.data.file_names import display_name
from coopt.data.images import DOUBT, open_image
from coopt.data.sources import default_workers
from coopt.data.splits import ImageDataset
from coopt.errors import BadImageError, DataError, LeakageWarning

NEAR_DUPLICATE_LIMIT = 2000
"""Sets with more images are searched for equal files only: thumbnails cost about ten milliseconds per photo."""

_THUMBNAIL = 16  # pixels, each way
# Mean and largest difference of two thumbnails' grey values, out of 255. A photo saved again as JPEG or resized stays
# below both; of two icons that differ in one stroke, that stroke is above the second.
_SAME_ON_AVERAGE = 2.5
_SAME_EVERYWHERE = 32


def find_leakage(
    dataset: ImageDataset, near_limit: int = NEAR_DUPLICATE_LIMIT, value_range: ValueRange | None = None
) -> list[tuple[Path, Path]]:
    """Pairs (training or validation image, test image) that show the same; warns (LeakageWarning) when there are any.

    Args:
        dataset: what is searched.
        near_limit: near duplicates are looked for among at most so many images.
        value_range: see `coopt.data.open_image`.
    """
    if dataset.test is None:
        return []
    seen = dataset.train.paths + (() if dataset.val is None or dataset.val_is_test else dataset.val.paths)
    pairs = _equal_files(seen, dataset.test.paths)
    if len(seen) + len(dataset.test) <= near_limit:
        known = set(pairs)
        pairs += [pair for pair in _same_pictures(seen, dataset.test.paths, value_range) if pair not in known]
    if pairs:
        shown = "; ".join(f"'{display_name(a)}' and '{display_name(b)}'" for a, b in pairs[:3])
        tested = len({test for _, test in pairs})
        warnings.warn(
            f"{tested} of {len(dataset.test)} held-out images show the same as training images, so accuracy is "
            f"overestimated: {shown}{'; ...' if len(pairs) > 3 else ''}. Remove the duplicates.",
            LeakageWarning,
            stacklevel=2,
        )
    return pairs


def groups_that_show_the_same(
    paths: Sequence[Path], near_limit: int = NEAR_DUPLICATE_LIMIT, value_range: ValueRange | None = None
) -> list[int]:
    """A number for each image: the index of the first one that shows the same, directly or through others.

    Args:
        paths: the images.
        near_limit: near duplicates are looked for among at most so many images; equal files among any number.
        value_range: see `coopt.data.open_image`.
    """
    pairs = _equal_to_earlier(paths)
    if len(paths) <= near_limit:
        pairs += _same_pictures(paths, paths, value_range)
    index = {path: i for i, path in reversed(list(enumerate(paths)))}
    first = [index[path] for path in paths]

    def root(i: int) -> int:
        while first[i] != i:
            i = first[i]
        return i

    for one, other in pairs:
        a, b = root(index[one]), root(index[other])
        first[max(a, b)] = min(a, b)
    return [root(i) for i in range(len(paths))]


def _equal_to_earlier(paths: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Each file with the first one of equal bytes; only files that share their size with another are read."""
    by_size: dict[int, list[Path]] = defaultdict(list)
    for path in dict.fromkeys(paths):
        by_size[_size(path)].append(path)
    pairs: list[tuple[Path, Path]] = []
    for size, alike in by_size.items():
        first: dict[bytes, Path] = {}
        for path in alike if size > 0 and len(alike) > 1 else ():
            if (content := _digest(path)) is not None:
                pairs.append((first.setdefault(content, path), path))
    return pairs


def _equal_files(seen: Sequence[Path], tested: Sequence[Path]) -> list[tuple[Path, Path]]:
    """Pairs of files with equal bytes; only files of equal size are read."""
    sizes = {path: _size(path) for path in dict.fromkeys((*seen, *tested))}
    tested_sizes = {sizes[path] for path in tested}
    digests: dict[Path, bytes | None] = {}

    def digest(path: Path) -> bytes | None:
        if path not in digests:
            digests[path] = _digest(path)
        return digests[path]

    by_content: dict[bytes | None, list[Path]] = defaultdict(list)
    seen_sizes = set()
    for path in seen:
        # Missing and empty files are reported where images are read.
        if sizes[path] > 0 and sizes[path] in tested_sizes:
            seen_sizes.add(sizes[path])
            by_content[digest(path)].append(path)
    by_content.pop(None, None)
    return [(path, test) for test in tested if sizes[test] in seen_sizes for path in by_content.get(digest(test), ())]


def _size(path: Path) -> int:
    try:
        return status_of(path).size
    except (OSError, DataError):
        return -1


def _digest(path: Path) -> bytes | None:
    try:
        return hashlib.sha256(read_bytes(path)).digest()
    except (OSError, DataError):
        return None


def _same_pictures(
    seen: Sequence[Path], tested: Sequence[Path], value_range: ValueRange | None
) -> list[tuple[Path, Path]]:
    with ThreadPoolExecutor(default_workers()) as pool:
        thumbnails = list(pool.map(partial(_thumbnail, value_range=value_range), [*seen, *tested]))
    readable_seen = [i for i in range(len(seen)) if thumbnails[i] is not None]
    if not readable_seen:
        return []
    stack = np.stack([thumbnails[i] for i in readable_seen])  # type: ignore[arg-type]
    pairs: list[tuple[Path, Path]] = []
    for test, thumbnail in zip(tested, thumbnails[len(seen) :], strict=True):
        if thumbnail is None:
            continue
        difference = np.abs(stack - thumbnail)
        same = (difference.mean(axis=1) <= _SAME_ON_AVERAGE) & (difference.max(axis=1) <= _SAME_EVERYWHERE)
        near = np.flatnonzero(same)
        pairs += [(seen[readable_seen[i]], test) for i in near]
    return pairs


def _thumbnail(path: Path, value_range: ValueRange | None) -> Float[np.ndarray, " values"] | None:
    """The whole picture at 16x16 RGB; None when it cannot be read, or hardly seen (both are said where it is encoded)."""
    try:
        image = open_image(path, value_range)
    except BadImageError:
        return None
    if DOUBT in image.info:  # nearly black images are all alike
        return None
    return np.asarray(image.resize((_THUMBNAIL, _THUMBNAIL)), dtype=np.float32).reshape(-1)
