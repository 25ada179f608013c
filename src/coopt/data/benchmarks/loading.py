"""The papers' data sets from a folder as people have it: the published split file if it is there, else the rule's split."""

from __future__ import annotations

import hashlib
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from coopt.data.benchmarks.definitions import Benchmark
from coopt.data.benchmarks.split_file import PARTS, Item, Parts, class_names_of, read_split_file, write_split_file
from coopt.data.cache import default_cache_folder
from coopt.data.file_names import display_name
from coopt.data.splits import ImageDataset, Split
from coopt.errors import CacheWarning, CooptWarning, DataError, SavedFileError, SkippedImageWarning

FEW_SHOT_FOLDER = "split_fewshot"


@dataclass(frozen=True)
class BenchmarkContents:
    """A data set as it was found on disk.

    Attributes:
        benchmark: which it is.
        folder: where it lies.
        parts: its images, those that are missing included.
        class_names: in the order of their labels.
        missing: paths of images (from the folder of the images) that are not there.
        published: the split is the published file's, or the official one.
    """

    benchmark: Benchmark
    folder: Path
    parts: Parts
    class_names: tuple[str, ...]
    missing: tuple[str, ...]
    published: bool

    @property
    def n_images(self) -> int:
        """Images that are there, each counted once."""
        return len({item.path for items in self.parts.values() for item in items}) - len(self.missing)


def load_benchmark(benchmark: Benchmark, root: Path, on_bad_image: Literal["fail", "skip"] = "fail") -> ImageDataset:
    """A data set of the papers with its train, val and test parts.

    Args:
        benchmark: which; `find_benchmark` knows their names.
        root: the folder that holds the data sets' folders.
        on_bad_image: "fail" when an image that the split names is missing, or "skip" it with a warning.

    Raises:
        DataError: the folder, a list or an image is missing, or a split file cannot be right.
    """
    contents = read_benchmark(benchmark, root)
    if len(contents.class_names) != benchmark.classes:
        warnings.warn(
            f"{benchmark.title} has {len(contents.class_names)} classes in '{display_name(contents.folder)}', not "
            f"{benchmark.classes}: numbers are not comparable with the papers'.",
            CooptWarning,
            stacklevel=2,
        )
    if not contents.published:
        _keep_split(contents)
    if contents.missing:
        _report_missing(contents, on_bad_image)
    gone = set(contents.missing)
    images = str(contents.folder / benchmark.images)

    def part(items: list[Item]) -> Split | None:
        there = [item for item in items if item.path not in gone]
        return Split(tuple(Path(images, item.path) for item in there), tuple(item.name for item in there)) or None

    test = part(contents.parts["test"])
    val_is_test = contents.parts["val"] is contents.parts["test"]
    return ImageDataset(
        name=benchmark.name,
        root=contents.folder,
        class_names=contents.class_names,
        train=part(contents.parts["train"]) or Split((), ()),
        val=test if val_is_test else part(contents.parts["val"]),
        test=test,
        template=benchmark.template,
        fixed_classes=benchmark.part_of_imagenet,
        val_is_test=val_is_test,
        few_shot_caches=contents.folder / FEW_SHOT_FOLDER,
    )


def read_benchmark(benchmark: Benchmark, root: Path) -> BenchmarkContents:
    """What is on disk of a data set; no image is opened.

    Raises:
        DataError: the folder or a list is missing, or a split file cannot be right.
    """
    folder = _folder_of(benchmark, root)
    images = folder / benchmark.images
    split_file = folder / (benchmark.published_split or "")
    if split_file.is_file():
        parts = read_split_file(split_file)
        names = class_names_of(parts, f"The split file '{display_name(split_file)}'")
        return BenchmarkContents(benchmark, folder, parts, names, _missing(images, parts), published=True)
    _check_lists(benchmark, folder)
    parts = benchmark.rule(folder, images)
    names = class_names_of(parts, f"'{display_name(folder)}'")
    missing = _missing(images, parts) if benchmark.lists else ()  # otherwise it has just read what is there
    return BenchmarkContents(benchmark, folder, parts, names, missing, published=not benchmark.drawn)


def _folder_of(benchmark: Benchmark, root: Path) -> Path:
    folder = root / benchmark.folder
    images = folder / benchmark.images
    if images.is_dir():
        return folder
    expected = f"Expected {benchmark.title}'s images in '{display_name(images)}'"
    if not root.is_dir():
        raise DataError(f"The root '{display_name(root)}' is not a folder. {expected}.")
    if root.name == benchmark.folder:
        raise DataError(
            f"'{display_name(root)}' is the folder of {benchmark.title} itself. Give the folder above it as the root: "
            f"'{display_name(root.parent)}'."
        )
    nearest = folder if folder.is_dir() else root
    try:
        entries = sorted(entry.name for entry in nearest.iterdir() if not entry.name.startswith("."))
    except OSError as error:
        raise DataError(f"The folder '{display_name(nearest)}' cannot be read: {error.strerror}.") from error
    shown = ", ".join(map(display_name, entries[:8])) + (", ..." if len(entries) > 8 else "")
    raise DataError(f"{expected}. '{display_name(nearest)}' holds {shown or 'nothing'}.")


def _check_lists(benchmark: Benchmark, folder: Path) -> None:
    missing = [name for name in benchmark.lists if not (folder / name).is_file()]
    if missing:
        split = "" if benchmark.published_split is None else f"Put {benchmark.published_split} there, or them. "
        raise DataError(
            f"In '{display_name(folder)}', {' and '.join(missing)} {'is' if len(missing) == 1 else 'are'} missing, "
            f"without which {benchmark.title} has no split. {split}They come with the data set."
        )


def _missing(images: Path, parts: Parts) -> tuple[str, ...]:
    """Paths that are not on disk; each folder is listed once, which is much quicker than looking for each file."""
    listed: dict[str, set[str]] = {}
    missing: dict[str, None] = {}
    for item in (item for part in PARTS for item in parts[part]):
        parent, _, name = item.path.rpartition("/")
        if parent not in listed:
            try:
                listed[parent] = set(os.listdir(images / parent))  # noqa: PTH208 - names, not paths
            except OSError:
                listed[parent] = set()
        if name not in listed[parent]:
            missing[item.path] = None
    return tuple(missing)


def _report_missing(contents: BenchmarkContents, on_bad_image: Literal["fail", "skip"]) -> None:
    first = contents.folder / contents.benchmark.images / contents.missing[0]
    what = (
        f"{len(contents.missing)} of {contents.n_images + len(contents.missing)} images of {contents.benchmark.title} are "
        f"missing, the first: '{display_name(first)}'."
    )
    if on_bad_image == "fail" or contents.n_images == 0:
        raise DataError(f"{what} Unpack the data set again, or leave missing images out with on_bad_image='skip'.")
    warnings.warn(f"{what} They are left out.", SkippedImageWarning, stacklevel=3)


def _keep_split(contents: BenchmarkContents) -> None:
    """Writes a split that was made beside the feature cache, never to the data, and says where and what it is."""
    key = hashlib.sha256(os.fsencode(contents.folder.resolve())).hexdigest()[:12]
    file = default_cache_folder() / "splits" / key / str(contents.benchmark.published_split)
    try:
        write_split_file(file, contents.parts)
        kept = f"it is in '{display_name(file)}'"
    except (SavedFileError, OSError) as error:
        warnings.warn(f"The split of {contents.benchmark.title} could not be kept: {error}", CacheWarning, stacklevel=3)
        kept = "it is made anew each time"
    warnings.warn(
        f"'{display_name(contents.folder)}' has no {contents.benchmark.published_split}, so a split was made "
        f"({contents.benchmark.rule_name}); {kept}. It is not the papers' split: numbers differ from theirs.",
        CooptWarning,
        stacklevel=3,
    )
