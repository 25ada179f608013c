"""CIFAR-10 and CIFAR-100 as torchvision or the authors' page leave them on disk, in pickles or in plain bytes.

Their images are unpacked once, beside the feature cache, because every part of coopt takes images as files. The pickles
are read with an allow-list.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from coopt.data.cache import default_cache_folder
from coopt.data.file_names import display_name
from coopt.data.splits import ImageDataset, Split
from coopt.errors import DataError, SavedFileError

_SHAPE = (3, 32, 32)
_PIXELS = 3 * 32 * 32


@dataclass(frozen=True)
class Cifar:
    """Where one of the two keeps what.

    Attributes:
        name: as people type it.
        pickles, plain: the folders of the two forms.
        files: per part, names of its files, without ".bin".
        names_file, plain_names_file: where the class names are.
        names_key, label_key: in the pickles.
        label_bytes: before each image in the plain form; the last one is the label.
    """

    name: str
    pickles: str
    plain: str
    files: dict[str, tuple[str, ...]]
    names_file: str
    plain_names_file: str
    names_key: bytes
    label_key: bytes
    label_bytes: int


CIFARS = (
    Cifar(
        name="cifar10",
        pickles="cifar-10-batches-py",
        plain="cifar-10-batches-bin",
        files={"train": tuple(f"data_batch_{i}" for i in range(1, 6)), "test": ("test_batch",)},
        names_file="batches.meta",
        plain_names_file="batches.meta.txt",
        names_key=b"label_names",
        label_key=b"labels",
        label_bytes=1,
    ),
    Cifar(
        name="cifar100",
        pickles="cifar-100-python",
        plain="cifar-100-binary",
        files={"train": ("train",), "test": ("test",)},
        names_file="meta",
        plain_names_file="fine_label_names.txt",
        names_key=b"fine_label_names",
        label_key=b"fine_labels",
        label_bytes=2,
    ),
)

_Part = tuple[UInt8[np.ndarray, "n pixels"], Int[np.ndarray, " n"]]


def load_cifar(cifar: Cifar, root: Path | None) -> ImageDataset:
    """One of the two; its images are unpacked if they are not yet.

    Args:
        cifar: which.
        root: the folder that holds `cifar.pickles` or `cifar.plain`.

    Raises:
        DataError: neither is there, or a file is not what it should be.
        SavedFileError: the cache folder cannot be written, or a pickle is not safe.
    """
    folder = (
        None if root is None else next((root / f for f in (cifar.pickles, cifar.plain) if (root / f).is_dir()), None)
    )
    if folder is None:
        raise DataError(
            f"{cifar.name} needs a root with the folder {cifar.pickles}/ or {cifar.plain}/. "
            f"Got {'no root' if root is None else repr(display_name(root))}."
        )
    try:
        read = _read_pickles if folder.name == cifar.pickles else _read_plain
        names, parts = read(cifar, folder)
    except OSError as error:
        where = display_name(error.filename or folder)
        raise DataError(f"'{where}' cannot be read: {error.strerror}. Unpack {cifar.name} again.") from error
    for pixels, labels in parts.values():
        if len(pixels) != len(labels) or (len(labels) and not 0 <= labels.min() <= labels.max() < len(names)):
            raise DataError(
                f"'{display_name(folder)}' has labels that do not fit its images or its {len(names)} classes."
            )
    digest = hashlib.sha256(b"".join(pixels.tobytes() for pixels, _ in parts.values())).hexdigest()
    unpacked = default_cache_folder() / "unpacked" / f"{cifar.name}-{digest[:12]}"
    files = {part: [f"{part}/{label:02}-{i:05}.png" for i, label in enumerate(y)] for part, (_, y) in parts.items()}
    if not unpacked.is_dir():
        _unpack(unpacked, ((files[part][i], one) for part, (x, _) in parts.items() for i, one in enumerate(x)))
    splits = {
        part: Split(tuple(unpacked / file for file in files[part]), tuple(names[label] for label in labels))
        for part, (_, labels) in parts.items()
    }
    return ImageDataset(cifar.name, unpacked, names, splits["train"], test=splits["test"])


def _read_pickles(cifar: Cifar, folder: Path) -> tuple[tuple[str, ...], dict[str, _Part]]:
    from coopt import safe_pickle  # it needs torch

    def read(file: str) -> _Part:
        content = safe_pickle.load_plain(folder / file, stub=("numpy",))
        try:
            *_, pixels = content[b"data"].state  # numpy's own order: version, shape, kind, order of axes, bytes
            return np.frombuffer(pixels, np.uint8).reshape(-1, _PIXELS), np.asarray(content[cifar.label_key], np.int64)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise _no_batch(folder / file) from error

    content = safe_pickle.load_plain(folder / cifar.names_file, stub=("numpy",))
    try:
        names = tuple(name.decode() for name in content[cifar.names_key])
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _no_batch(folder / cifar.names_file) from error
    return names, {part: _joined(map(read, files)) for part, files in cifar.files.items()}


def _read_plain(cifar: Cifar, folder: Path) -> tuple[tuple[str, ...], dict[str, _Part]]:
    def read(file: str) -> _Part:
        path = folder / f"{file}.bin"
        rows = np.fromfile(path, np.uint8)
        if len(rows) % (cifar.label_bytes + _PIXELS):
            raise _no_batch(path)
        rows = rows.reshape(-1, cifar.label_bytes + _PIXELS)
        return rows[:, cifar.label_bytes :], rows[:, cifar.label_bytes - 1].astype(np.int64)

    names = (folder / cifar.plain_names_file).read_text(encoding="utf-8").split()
    return tuple(names), {part: _joined(map(read, files)) for part, files in cifar.files.items()}


def _joined(parts: Iterable[_Part]) -> _Part:
    pixels, labels = zip(*parts, strict=True)
    return np.concatenate(pixels), np.concatenate(labels)


def _no_batch(file: Path) -> DataError:
    return DataError(f"'{display_name(file)}' is cut short or not a file of CIFAR. Unpack the data set again.")


def _unpack(folder: Path, images: Iterable[tuple[str, UInt8[np.ndarray, " pixels"]]]) -> None:
    """Writes all images beside and renames, so that a folder which is there is whole."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{folder.name}.", dir=folder.parent) as beside:
            inner = Path(beside, "images")
            for part in ("train", "test"):
                (inner / part).mkdir(parents=True)
            for file, pixels in images:
                Image.fromarray(pixels.reshape(_SHAPE).transpose(1, 2, 0)).save(inner / file)
            if folder.is_dir():  # another process was quicker
                shutil.rmtree(inner)
            else:
                inner.rename(folder)
    except OSError as error:
        raise SavedFileError(
            f"Cannot unpack images into '{display_name(folder)}': {error.strerror or error}. Free space, or name "
            "another folder in COOPT_CACHE."
        ) from error
