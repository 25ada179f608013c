"""Reads other people's pickles without running them: tensors, plain containers, and nothing else.

A pickle is a program; unpickling a file from the internet plainly hands it the machine. Here every name that a pickle
asks for is looked up in a short allow-list. What is not on it is refused by name, or, where a caller wants the tensors
out of a file that also holds live objects, replaced by an inert `Stub` that only remembers what it was given.
"""

from __future__ import annotations

import io
import os
import pickle
import zipfile
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from coopt.errors import CooptError, SavedFileError, UnsafePickleError

_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_DTYPES = {
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "BFloat16Storage": torch.bfloat16,
    "LongStorage": torch.int64,
    "IntStorage": torch.int32,
    "ShortStorage": torch.int16,
    "CharStorage": torch.int8,
    "ByteStorage": torch.uint8,
    "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}

Stubbed = bool | tuple[str, ...] | Callable[[str, str], bool]


class Datum(NamedTuple):
    """One entry of the reference's few-shot cache."""

    impath: str
    label: int
    domain: int
    classname: str


class Stub:
    """Stands for an object of a kind that is not on the allow-list. Runs nothing, remembers everything.

    Attributes:
        origin: "module.name" as the pickle wrote it.
        args: what it would have been made with.
        state: what would have been set on it.
        items: what would have been put into it, for containers.
    """

    origin = ""

    def __new__(cls, *args: Any, **kwargs: Any) -> Stub:
        stub = object.__new__(cls)
        stub.args = args
        stub.kwargs = kwargs
        stub.state = None
        stub.items = []
        return stub

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args: tuple
        self.kwargs: dict
        self.state: Any
        self.items: list

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def __setitem__(self, key: Any, value: Any) -> None:
        self.items.append((key, value))

    def __call__(self, *args: Any) -> Stub:
        return _stub_class(f"{self.origin}(...)")(*args)

    def append(self, item: Any) -> None:
        self.items.append(item)

    def extend(self, items: Any) -> None:
        self.items.extend(items)

    add = append

    def __repr__(self) -> str:
        return f"<Stub of {self.origin}>"


class _Allowed:
    """A function that pickles may call, and that they cannot change (a pickle can set attributes of what it names)."""

    __slots__ = ("_function",)

    def __init__(self, function: Callable) -> None:
        object.__setattr__(self, "_function", function)

    def __call__(self, *args: Any) -> Any:
        return self._function(*args)

    def __setattr__(self, name: str, value: Any) -> None:
        raise UnsafePickleError("The pickle tries to change a function that it may only call; nothing of it was run.")

    def __setstate__(self, state: Any) -> None:
        raise UnsafePickleError("The pickle tries to change a function that it may only call; nothing of it was run.")


class _StorageType(NamedTuple):
    dtype: torch.dtype


def load_tensors(file: str | os.PathLike[str] | io.BufferedIOBase, *, stub: Stubbed = False) -> Any:
    """The content of a torch file: containers and tensors.

    Reads the zip format, TorchScript's archives of the same format, and the format from before torch 1.6.

    Args:
        file: a path, or a file open for reading bytes.
        stub: True replaces every name that is not on the allow-list by a `Stub`; a tuple does so for modules that
            start with one of these prefixes; a function is asked with (module, name); False refuses them all.

    Raises:
        UnsafePickleError: the file asks for something that is not on the allow-list. Nothing of it was run.
        SavedFileError: the file is missing, damaged, or not a torch file.
    """
    name = _name_of(file)
    try:
        with _opened(file) as stream:
            if zipfile.is_zipfile(stream):
                with zipfile.ZipFile(stream) as archive:
                    return _read_zip(archive, name, stub)
            stream.seek(0)
            return _read_legacy(stream, name, stub)
    except CooptError:
        raise
    except FileNotFoundError as error:
        raise SavedFileError(f"There is no file {name}.") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise SavedFileError(
            f"{name} is damaged, cut short or not a torch file ({type(error).__name__}: {error}). "
            "Fetch or save it again."
        ) from error


def load_datums(path: str | os.PathLike[str]) -> dict[str, list[Datum]]:
    """A few-shot cache of the reference (`split_fewshot/shot_K-seed_S.pkl`): part ("train", "val") to its images.

    Raises:
        UnsafePickleError: the file asks for something other than the reference's `Datum`. Nothing of it was run.
        SavedFileError: the file is missing, damaged, or not such a cache.
    """
    name = _name_of(path)
    try:
        with Path(path).open("rb") as stream:
            content = _Unpickler(stream, name, (), extra={_DATUM: _stub_class(".".join(_DATUM))}).load()
    except CooptError:
        raise
    except FileNotFoundError as error:
        raise SavedFileError(f"There is no file {name}.") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise SavedFileError(
            f"{name} is damaged or cut short ({type(error).__name__}: {error}). Delete it: it is only a cache."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(items, list) for items in content.values()):
        raise SavedFileError(f"{name} is not a few-shot cache: expected parts with lists of images.")
    return {str(part): [_datum(item, name) for item in items] for part, items in content.items()}


def load_plain(path: str | os.PathLike[str], *, stub: tuple[str, ...] = ()) -> Any:
    """A pickle of plain containers; text from Python 2 comes as bytes.

    Raises:
        UnsafePickleError: it asks for more, and not from a module that starts with one of `stub` (see `load_tensors`).
        SavedFileError: the file is missing or damaged.
    """
    try:
        return _Unpickler(io.BytesIO(Path(path).read_bytes()), _name_of(path), stub, encoding="bytes").load()
    except CooptError:
        raise
    except Exception as error:  # a damaged pickle can raise anything
        raise SavedFileError(f"{_name_of(path)} is missing or damaged ({type(error).__name__}: {error}).") from error


_DATUM = ("dassl.data.datasets.base_dataset", "Datum")


def _datum(item: Any, name: str) -> Datum:
    state = item.state if isinstance(item, Stub) else None
    values: list[Any] = [state.get(f"_{key}") for key in Datum._fields] if isinstance(state, dict) else []
    if [type(value) for value in values] != [str, int, int, str]:
        raise SavedFileError(f"{name} is not a few-shot cache: an entry has no path, label, domain and class name.")
    return Datum(*values)


class _Unpickler(pickle.Unpickler):
    """Unpickles containers and tensors; everything else is refused or stubbed."""

    def __init__(
        self,
        stream: io.BufferedIOBase,
        name: str,
        stub: Stubbed,
        storage: Callable[[tuple], Tensor] | None = None,
        extra: dict[tuple[str, str], Any] | None = None,
        encoding: str = "utf-8",
    ) -> None:
        super().__init__(stream, encoding=encoding)
        self._name = name
        self._stub = (lambda module, name: module.startswith(stub)) if isinstance(stub, tuple) else stub
        self._storage = storage
        self._extra = extra or {}

    def find_class(self, module: str, name: str, /) -> Any:
        key = (module, name)
        if key in self._extra:
            return self._extra[key]
        if key in _ALLOWED:
            return _ALLOWED[key]
        if module in ("torch", "torch.storage") and name in _DTYPES:
            return _StorageType(_DTYPES[name])
        if self._stub(module, name) if callable(self._stub) else self._stub:
            return _stub_class(f"{module}.{name}")
        raise UnsafePickleError(
            f"{self._name} asks for {module}.{name}, which is not a tensor or a plain container. "
            "It was refused and nothing of it was run."
        )

    def persistent_load(self, pid: Any, /) -> Any:
        if isinstance(pid, tuple) and pid[:1] == ("module",) and len(pid) > 1:  # a class with its source, before 1.6
            return pid[1]
        if self._storage is None or not isinstance(pid, tuple) or len(pid) < 5 or pid[0] != "storage":
            raise SavedFileError(f"{self._name} is damaged: it refers to data outside of itself ({pid!r}).")
        return self._storage(pid)


def _read_zip(archive: zipfile.ZipFile, name: str, stub: Stubbed) -> Any:
    members = {info.filename: info for info in archive.infolist()}
    pickles = sorted((member for member in members if member.split("/")[1:] == ["data.pkl"]), key=len)
    if not pickles:
        raise SavedFileError(f"{name} is a zip file, but not one that torch wrote: it has no data.pkl.")
    root = pickles[0].removesuffix("data.pkl")
    if f"{root}byteorder" in members and archive.read(f"{root}byteorder") != b"little":
        raise SavedFileError(f"{name} was written on a big-endian machine, which is not supported.")
    storages: dict[str, Tensor] = {}

    def storage(pid: tuple) -> Tensor:
        kind, key, count = pid[1], str(pid[2]), pid[4]
        if key not in storages:
            info = members.get(f"{root}data/{key}")
            if info is None or not isinstance(kind, _StorageType) or not isinstance(count, int):
                raise SavedFileError(f"{name} is damaged: it has no data for storage {key!r}.")
            # torch never compresses, so a compressed member is not torch's, and could unpack to any size.
            if info.compress_type != zipfile.ZIP_STORED or info.file_size != count * kind.dtype.itemsize:
                raise SavedFileError(
                    f"{name} is damaged: storage {key!r} has {info.file_size} bytes where "
                    f"{count} x {kind.dtype.itemsize} were expected."
                )
            storages[key] = _tensor_of(bytearray(archive.read(info)), kind.dtype)
        return storages[key]

    return _Unpickler(io.BytesIO(archive.read(pickles[0])), name, stub, storage).load()


def _read_legacy(stream: io.BufferedIOBase, name: str, stub: Stubbed) -> Any:
    """torch's format before 1.6: three pickles of facts, the content, the storages' names, the storages."""

    def plain() -> Any:
        return _Unpickler(stream, name, ()).load()

    if plain() != _LEGACY_MAGIC:
        raise SavedFileError(f"{name} is not a torch file.")
    plain()  # the format's version
    plain()  # sizes of C types where it was written
    storages: dict[str, Tensor] = {}
    start = stream.tell()
    size = stream.seek(0, os.SEEK_END)
    stream.seek(start)

    def storage(pid: tuple) -> Tensor:
        kind, key, count = pid[1], str(pid[2]), pid[4]
        if not isinstance(kind, _StorageType) or not isinstance(count, int) or not 0 <= count <= size:
            raise SavedFileError(f"{name} is damaged: it has no data for storage {key!r}.")
        if len(pid) > 5 and pid[5] is not None:
            raise SavedFileError(f"{name} holds views of storages: save it again with torch 1.6 or later.")
        if key not in storages:
            storages[key] = torch.empty(count, dtype=kind.dtype)
        return storages[key]

    content = _Unpickler(stream, name, stub, storage).load()
    for key in plain():
        target = storages[str(key)]
        count = int.from_bytes(stream.read(8), "little")
        data = stream.read(target.numel() * target.element_size())
        if count != target.numel() or len(data) != target.numel() * target.element_size():
            raise SavedFileError(f"{name} is cut short: storage {key!r} is not whole. Fetch or save it again.")
        target.copy_(_tensor_of(bytearray(data), target.dtype))
    return content


def _tensor_of(data: bytearray, dtype: torch.dtype) -> Tensor:
    # frombuffer refuses empty buffers
    return torch.frombuffer(data, dtype=dtype) if data else torch.empty(0, dtype=dtype)


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> Tensor:
    """A view of a storage, after checking that it lies within it."""
    numbers = [offset, *size, *stride]
    if not isinstance(storage, Tensor) or not all(type(number) is int and number >= 0 for number in numbers):
        raise SavedFileError("The file is damaged: a tensor has no storage, or a shape that is not one.")
    last = offset + sum((length - 1) * step for length, step in zip(size, stride, strict=True))
    if 0 not in size and last >= storage.numel():
        raise SavedFileError(f"The file is damaged: a tensor of shape {tuple(size)} reaches past the end of its data.")
    return storage.as_strided(size, stride, offset)


def _first(value: Any, *_: Any) -> Any:
    return value


def _stub_class(origin: str) -> type[Stub]:
    return type("Stub", (Stub,), {"origin": origin})


def _name_of(file: Any) -> str:
    return os.fspath(file) if isinstance(file, (str, os.PathLike)) else str(getattr(file, "name", "the file"))


@contextmanager
def _opened(file: str | os.PathLike[str] | io.BufferedIOBase) -> Iterator[io.BufferedIOBase]:
    """Opens a path, or passes on a file that is open already and leaves it open."""
    if isinstance(file, (str, os.PathLike)):
        with Path(file).open("rb") as stream:
            yield stream
    else:
        yield file


_ALLOWED: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): defaultdict,
    ("torch", "Size"): _Allowed(tuple),
    ("torch._utils", "_rebuild_tensor"): _Allowed(_rebuild_tensor),
    ("torch._utils", "_rebuild_tensor_v2"): _Allowed(_rebuild_tensor),
    ("torch._utils", "_rebuild_parameter"): _Allowed(_first),
    ("torch._utils", "_rebuild_parameter_with_state"): _Allowed(_first),
    # TorchScript marks the types of its lists and dictionaries with these.
    ("torch.jit._pickle", "build_intlist"): _Allowed(_first),
    ("torch.jit._pickle", "build_tensorlist"): _Allowed(_first),
    ("torch.jit._pickle", "build_doublelist"): _Allowed(_first),
    ("torch.jit._pickle", "build_boollist"): _Allowed(_first),
    ("torch.jit._pickle", "restore_type_tag"): _Allowed(_first),
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (dict, list, tuple, set, frozenset)
    },
    **{
        ("torch", str(dtype).removeprefix("torch.")): dtype
        for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.bool)
    },
}
