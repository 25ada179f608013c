"""CIFAR in both of its forms, against arrays that are known."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from coopt.data import default_cache_folder, load_dataset
from coopt.data.benchmarks.cifar import CIFARS, Cifar
from coopt.errors import DataError, SavedFileError, UnsafePickleError

NAMES = ["airplane", "apple", "frog"]


def known(part: str, file: int, count: int = 4) -> tuple[np.ndarray, list[int]]:
    """Pixels (n, height, width, channel) and labels."""
    random = np.random.RandomState(100 * (part == "test") + file)
    return random.randint(0, 256, (count, 32, 32, 3), dtype=np.uint8), random.randint(0, 3, count).tolist()


def rows_of(pixels: np.ndarray) -> np.ndarray:
    return pixels.transpose(0, 3, 1, 2).reshape(len(pixels), -1)


def make_pickles(cifar: Cifar, root: Path, protocol: int = 3) -> None:
    folder = root / cifar.pickles
    folder.mkdir()
    (folder / cifar.names_file).write_bytes(pickle.dumps({cifar.names_key: [n.encode() for n in NAMES]}, protocol))
    for part, files in cifar.files.items():
        for i, file in enumerate(files):
            pixels, labels = known(part, i)
            content = {b"data": rows_of(pixels), cifar.label_key: labels, b"batch_label": b"of no use"}
            (folder / file).write_bytes(pickle.dumps(content, protocol))


def make_plain(cifar: Cifar, root: Path) -> None:
    folder = root / cifar.plain
    folder.mkdir()
    (folder / cifar.plain_names_file).write_text("\n".join(NAMES) + "\n\n")
    for part, files in cifar.files.items():
        for i, file in enumerate(files):
            pixels, labels = known(part, i)
            before = np.array([[9] * (cifar.label_bytes - 1) + [label] for label in labels], dtype=np.uint8)
            np.concatenate([before, rows_of(pixels)], axis=1).tofile(folder / f"{file}.bin")


@pytest.mark.parametrize("make", [make_pickles, make_plain])
@pytest.mark.parametrize("cifar", CIFARS, ids=lambda one: one.name)
def test_images_and_labels(cifar: Cifar, make, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    make(cifar, tmp_path)
    dataset = load_dataset(cifar.name, root=tmp_path)
    assert dataset.class_names == tuple(NAMES) and dataset.template == "a photo of a {}."
    assert dataset.test is not None and dataset.val is None
    for part, split in (("train", dataset.train), ("test", dataset.test)):
        parts = [known(part, i) for i in range(len(cifar.files[part]))]
        pixels = np.concatenate([x for x, _ in parts])
        assert split.labels == tuple(NAMES[label] for _, y in parts for label in y)
        assert all((np.asarray(Image.open(p)) == x).all() for p, x in zip(split.paths, pixels, strict=True))
    before = sorted(default_cache_folder().rglob("*"))
    assert load_dataset(cifar.name, root=tmp_path) == dataset
    assert sorted(default_cache_folder().rglob("*")) == before


def test_a_pickle_of_python_2(tmp_path: Path) -> None:
    """As the authors wrote them: text of bytes (opcodes U and T) where Python 3 has bytes."""
    make_pickles(CIFARS[1], tmp_path)
    raw, _ = known("test", 0)
    data = rows_of(raw).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(I0\ntU\x01btR(I1\n(I4\nI3072\ntcnumpy\ndtype\n"
        b"(U\x02u1I0\nI1\ntR(I3\nU\x01|NNNI-1\nI-1\nI0\ntbI00\nT" + len(data).to_bytes(4, "little") + data + b"tb"
    )
    content = b"(dU\x04data" + array + b"sU\x0bfine_labels(lI0\naI1\naI2\naI2\nas."
    (tmp_path / CIFARS[1].pickles / "test").write_bytes(content)
    test = load_dataset("cifar100", root=tmp_path).test
    assert test is not None and test.labels == ("airplane", "apple", "frog", "frog")
    assert (np.asarray(Image.open(test.paths[3])) == raw[3]).all()


def test_what_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"cifar10 needs a root with the folder cifar-10-batches-py/ or .* Got no root"):
        load_dataset("cifar10")
    cifar = CIFARS[1]
    make_plain(cifar, tmp_path)
    names = tmp_path / cifar.plain / cifar.plain_names_file
    names.write_text("airplane")
    with pytest.raises(DataError, match="has labels that do not fit its images or its 1 classes"):
        load_dataset("cifar100", root=tmp_path)
    names.unlink()
    with pytest.raises(DataError, match=r"fine_label_names.txt' cannot be read: No such file"):
        load_dataset("cifar100", root=tmp_path)
    names.write_text(" ".join(NAMES))
    file = tmp_path / cifar.plain / "test.bin"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"test.bin' is cut short or not a file of CIFAR"):
        load_dataset("cifar100", root=tmp_path)


def test_pickles_that_are_wrong(tmp_path: Path) -> None:
    make_pickles(CIFARS[1], tmp_path)
    file = tmp_path / CIFARS[1].pickles / "train"
    for content in ({}, {b"data": b"x"}, [], {b"data": np.zeros(5, np.uint8), b"fine_labels": [1]}):
        file.write_bytes(pickle.dumps(content, 3))
        with pytest.raises(DataError, match="train' is cut short or not a file of CIFAR"):
            load_dataset("cifar100", root=tmp_path)
    file.write_bytes(b"cposix\nsystem\n(S'true'\ntR.")
    with pytest.raises(UnsafePickleError, match="asks for posix.system"):
        load_dataset("cifar100", root=tmp_path)
    file.write_bytes(b"\x80")
    with pytest.raises(SavedFileError, match="is missing or damaged"):
        load_dataset("cifar100", root=tmp_path)


def test_a_cache_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_plain(CIFARS[1], tmp_path)
    (tmp_path / "file").touch()
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "file"))
    with pytest.raises(SavedFileError, match=r"Cannot unpack images into .* Free space"):
        load_dataset("cifar100", root=tmp_path)
