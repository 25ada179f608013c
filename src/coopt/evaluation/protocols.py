"""Protocols: what is learned from, and what is tested on.

- few-shot (Zhou et al., IJCV 2022, section 4.1): all classes; the data set's own test part.
- domain generalisation (IJCV 2022, section 4.2): the same, and test parts of the same classes, or some of them, drawn
  otherwise.
- base-to-new (Zhou et al., CVPR 2022, section 4.1): half of the classes; their test images, and those of the other half.
- cross-data-set transfer (CVPR 2022, section 4.2): all classes; other data sets with classes of their own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from coopt.data import ImageDataset, Split, base_to_new, few_shot, linear_probe_indices
from coopt.errors import DataError
from coopt.wording import counted

ProtocolName = Literal["few-shot", "domain", "base-to-new", "transfer"]

Sampling = Literal["none", "few-shot", "linear-probe"]
"""How training images are drawn: "none" (the method sees no image and runs once, at 0 shots), "few-shot"
(`coopt.data.few_shot`), or "linear-probe" (that baseline's own draw, with validation images for C)."""

TEST, BASE, NEW, SOURCE = "test", "base", "new", "source"
"""Names of targets."""


@dataclass(frozen=True)
class Target:
    """Images to test on.

    Attributes:
        name: in results and tables.
        images: with their labels.
        class_names: the classes to choose among.
        hash: of the data set that the images are from.
    """

    name: str
    images: Split
    class_names: tuple[str, ...]
    hash: str


@dataclass(frozen=True)
class Problem:
    """A data set under a protocol.

    Attributes:
        protocol: its name.
        dataset: what samples are drawn from.
        class_names: the classes that are learned.
        targets: what is tested on; results give them in this order.
    """

    protocol: ProtocolName
    dataset: ImageDataset
    class_names: tuple[str, ...]
    targets: tuple[Target, ...]

    def sample(self, shots: int, seed: int, sampling: Sampling) -> tuple[Split, Split]:
        """Training images and validation images for one run; base classes are taken after sampling."""
        whole = few_shot(self.dataset, shots, seed) if sampling == "few-shot" else self._probe_sample(shots, seed)
        sample = base_to_new(whole)[0] if self.protocol == "base-to-new" else whole
        return sample.train, sample.val or Split((), ())

    def _probe_sample(self, shots: int, seed: int) -> ImageDataset:
        dataset = self.dataset
        index = {name: i for i, name in enumerate(dataset.class_names)}
        train, val = dataset.train, dataset.val or Split((), ())
        train_labels, val_labels = ([index[label] for label in part.labels] for part in (train, val))
        chosen_train, chosen_val = linear_probe_indices(train_labels, val_labels, shots, seed)
        return ImageDataset(
            dataset.name, dataset.root, dataset.class_names, train.take(chosen_train), val.take(chosen_val)
        )


def problem_under(
    protocol: ProtocolName, dataset: ImageDataset, others: Mapping[str, ImageDataset], source: str = SOURCE
) -> Problem:
    """The data set under a protocol.

    Args:
        protocol: its name.
        dataset: what is learned from, with a test part of its own.
        others: of domain generalisation and transfer: name to what else is tested on.
        source: of these two: the name of the data set's own test part among the targets.

    Raises:
        DataError: a data set is not as the protocol needs it.
    """
    if protocol == "few-shot":
        return few_shot_problem(dataset)
    if protocol == "base-to-new":
        return base_to_new_problem(dataset)
    return (domain_problem if protocol == "domain" else transfer_problem)(dataset, others, source)


def few_shot_problem(dataset: ImageDataset) -> Problem:
    """The data set itself.

    Raises:
        DataError: it has no test part.
    """
    return Problem("few-shot", dataset, dataset.class_names, (_target(TEST, dataset),))


def domain_problem(dataset: ImageDataset, shifted: Mapping[str, ImageDataset], source: str = SOURCE) -> Problem:
    """The data set, and test parts of the same classes, or of some of them, that differ otherwise.

    Args:
        dataset: what is learned from, with a test part of its own.
        shifted: name to a data set of which the test part is used.
        source: the name of the data set's own test part among the targets.

    Raises:
        DataError: a test part is missing, or has a class that is not learned.
    """
    targets = [_target(source, dataset), *(_target(name, one) for name, one in shifted.items())]
    for target in targets:
        unknown = set(target.class_names) - set(dataset.class_names)
        if unknown:
            raise DataError(
                f"The shifted test part {target.name!r} has {counted(len(unknown), 'class')} that '{dataset.name}' does "
                f"not have, such as {min(unknown)!r}. Expected the same classes or fewer."
            )
    return Problem("domain", dataset, dataset.class_names, tuple(targets))


def base_to_new_problem(dataset: ImageDataset) -> Problem:
    """The first half of the classes to learn (rounded up), and both halves to test on, each among its own classes.

    Raises:
        DataError: no test part, or fewer than four classes (a half of one class cannot be mistaken).
    """
    if len(dataset.class_names) < 4:
        raise DataError(
            f"Base-to-new needs at least four classes, two in each half. '{dataset.name}' has "
            f"{len(dataset.class_names)}."
        )
    base, new = base_to_new(dataset)
    return Problem("base-to-new", dataset, base.class_names, (_target(BASE, base), _target(NEW, new)))


def transfer_problem(dataset: ImageDataset, others: Mapping[str, ImageDataset], source: str = SOURCE) -> Problem:
    """The data set, and others whose classes were not learned.

    Raises:
        DataError: a test part is missing.
    """
    targets = [_target(source, dataset), *(_target(name, one) for name, one in others.items())]
    return Problem("transfer", dataset, dataset.class_names, tuple(targets))


def _target(name: str, dataset: ImageDataset) -> Target:
    if dataset.test is None:
        raise DataError(f"'{dataset.name}' has no test part to measure accuracy on.")
    return Target(name, dataset.test, dataset.class_names, dataset.hash)
