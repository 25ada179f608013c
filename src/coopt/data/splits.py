"""The parts of a data set: image paths with class names, and how a held-out part is made."""

from __future__ import annotations

import hashlib
import json
import os
import warnings
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from coopt.errors import CooptWarning, DataError
from coopt.wording import counted


@dataclass(frozen=True)
class Split:
    """One part of a data set: image paths and, for each, the name of its class."""

    paths: tuple[Path, ...]
    labels: tuple[str, ...]

    def __post_init__(self) -> None:
        if len(self.paths) != len(self.labels):
            raise DataError(
                f"Got {counted(len(self.labels), 'label')} for {counted(len(self.paths), 'image')}. Expected one per image."
            )

    def __len__(self) -> int:
        return len(self.paths)

    def take(self, indices: Sequence[int]) -> Split:
        """The images at these places, in this order."""
        return Split(tuple(self.paths[i] for i in indices), tuple(self.labels[i] for i in indices))

    @property
    def counts(self) -> dict[str, int]:
        """Number of images per class that occurs."""
        return dict(Counter(self.labels))


@dataclass(frozen=True)
class ImageDataset:
    """Images with class names, split into what is learned from and what is not.

    Attributes:
        name: for tables and messages.
        root: the folder that paths are counted from.
        class_names: all classes; their order is that of the class indices.
        train: empty when the data set is for evaluation only.
        val, test: None when there is none.
        held_out_made: `test` was taken out of the images given, since they came without such a part.
        notes: what was decided on the way, one sentence each.
        template: its hand-made prompt, such as "a photo of a {}, a type of pet."; None when nobody wrote one.
        fixed_classes: its images are to be told apart among `class_names` alone, also by a prompt that knows more.
        val_is_test: one part serves as both, as in the papers' use of ImageNet; so their images are no leak.
        few_shot_caches: where samples of the reference implementation may lie (`split_fewshot`).
    """

    name: str
    root: Path
    class_names: tuple[str, ...]
    train: Split
    val: Split | None = None
    test: Split | None = None
    held_out_made: bool = False
    notes: tuple[str, ...] = ()
    template: str | None = None
    fixed_classes: bool = False
    val_is_test: bool = False
    few_shot_caches: Path | None = None

    @cached_property
    def hash(self) -> str:
        """SHA-256 (hex) of the split: class names, relative paths and labels of every part, in order.

        It says which images were used, not what is in them, and is the same on another machine.
        """
        parts = {
            part: [[self._relative(path), label] for path, label in zip(split.paths, split.labels, strict=True)]
            for part, split in (("train", self.train), ("val", self.val), ("test", self.test))
            if split is not None
        }
        # json escapes file names that are not UTF-8 instead of failing on them.
        return hashlib.sha256(json.dumps([self.class_names, parts]).encode("ascii")).hexdigest()

    def _relative(self, path: Path) -> str:
        return relative_name(path, self.root)


def relative_name(path: Path, root: Path) -> str:
    """The path from `root`, with forward slashes on every system; as it is when it lies elsewhere."""
    text, folder = str(path), f"{root}{os.sep}"
    if text.startswith(folder):  # the same as below, in a twentieth of the time: ImageNet has a million paths
        return text[len(folder) :].replace(os.sep, "/")
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def hold_out(dataset: ImageDataset, fraction: float | int, seed: int) -> ImageDataset:
    """Moves `fraction` of each class's training images into the test part (at least one, and never the last one).

    Which images depends on the seed and their relative paths alone: not on the order of files, on other classes, or on
    where the data set lies; images added later change little.
    """
    by_class: dict[str, list[int]] = defaultdict(list)
    for i, label in enumerate(dataset.train.labels):
        by_class[label].append(i)

    def rank(i: int) -> bytes:
        name = relative_name(dataset.train.paths[i], dataset.root)
        return hashlib.sha256(json.dumps([seed, dataset.train.labels[i], name]).encode()).digest()

    held: set[int] = set()
    for indices in by_class.values():
        count = min(max(1, round(fraction * len(indices))), len(indices) - 1)
        held.update(sorted(indices, key=rank)[:count])
    if alone := sorted(label for label, indices in by_class.items() if len(indices) == 1):
        shown = ", ".join(map(repr, alone[:5])) + (", ..." if len(alone) > 5 else "")
        warnings.warn(
            f"Classes with a single image: {shown}. It is kept for training, so nothing of them is held out and "
            "accuracy says nothing about them. Add images to them.",
            CooptWarning,
            stacklevel=6,
        )
    if not held:
        return replace(dataset, notes=(*dataset.notes, "No image could be held out: every class has a single one."))
    note = (
        f"There is no test part, so {len(held)} of {len(dataset.train)} images ({fraction:.0%} of each class, seed "
        f"{seed}) were held out to measure accuracy; they are not learned from."
    )
    return replace(
        dataset,
        train=dataset.train.take([i for i in range(len(dataset.train)) if i not in held]),
        test=dataset.train.take(sorted(held)),
        held_out_made=True,
        notes=(*dataset.notes, note),
    )
