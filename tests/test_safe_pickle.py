from __future__ import annotations

import collections
import io
import pickle
import pickletools
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from coopt.errors import SavedFileError, UnsafePickleError
from coopt.safe_pickle import Datum, Stub, load_datums, load_plain, load_tensors

GOLDEN = Path(__file__).parent / "golden"
REFERENCE = GOLDEN / "checkpoint_coop_end_m4" / "prompt_learner" / "model.pth.tar-6"
SHOTS = GOLDEN / "shot_2-seed_1.pkl"


def assert_equal(ours: Any, theirs: Any) -> None:
    assert type(ours) is type(theirs)
    if isinstance(ours, dict):
        assert list(ours) == list(theirs)
        for key in ours:
            assert_equal(ours[key], theirs[key])
    elif isinstance(ours, (list, tuple)):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            assert_equal(one, other)
    elif isinstance(ours, torch.Tensor):
        assert ours.dtype == theirs.dtype and ours.stride() == theirs.stride()
        assert torch.equal(ours, theirs)
    else:
        assert ours == theirs


def torch_file(program: bytes, path: Path, storages: dict[str, bytes] | None = None, **how: Any) -> Path:
    """A torch zip file around a hand-made pickle."""
    with zipfile.ZipFile(path, "w", **how) as archive:
        archive.writestr("x/data.pkl", program)
        archive.writestr("x/version", "3")
        for key, data in (storages or {}).items():
            archive.writestr(f"x/data/{key}", data)
    return path


# ---- tensors


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_same_content_as_torch(tmp_path: Path, zipped: bool) -> None:
    base = torch.arange(12.0)
    content = {
        "weights": collections.OrderedDict(a=torch.randn(3, 4), b=torch.zeros(0, 5), scalar=torch.tensor(2.5)),
        "types": [torch.ones(2, dtype=dtype) for dtype in (torch.float16, torch.bfloat16, torch.int64, torch.bool)],
        "views": (base, base[2:6], base.view(3, 4).t(), base[::3]),
        "plain": {"epoch": 3, "name": "run", "lr": [0.1, None, True], "set": {1, 2}, "size": torch.Size([1, 2])},
    }
    path = tmp_path / "content.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    ours = load_tensors(path)
    content["plain"]["size"] = (1, 2)
    assert_equal(ours, content)
    # views share their memory, as they did when they were saved
    ours["views"][0][2] = 99
    assert ours["views"][1][0] == 99
    with path.open("rb") as stream:
        assert_equal(load_tensors(io.BytesIO(stream.read()))["plain"], content["plain"])


def test_parameters_come_as_tensors(tmp_path: Path) -> None:
    torch.save({"p": torch.nn.Parameter(torch.ones(2))}, tmp_path / "p.pt")
    loaded = load_tensors(tmp_path / "p.pt")["p"]
    assert type(loaded) is torch.Tensor and not loaded.requires_grad


def test_reference_checkpoint() -> None:
    """The reference pickles its live scheduler: refused plainly, inert in stub mode."""
    with pytest.raises(UnsafePickleError, match=r"model.pth.tar-6 asks for torch.optim.lr_scheduler.CosineAnnealingLR"):
        load_tensors(REFERENCE)
    content = load_tensors(REFERENCE, stub=True)
    assert set(content) == {"state_dict", "epoch", "optimizer", "scheduler", "val_result"}
    assert content["state_dict"]["ctx"].shape == (4, 128)
    theirs = torch.load(REFERENCE, weights_only=False)["state_dict"]
    assert all(torch.equal(content["state_dict"][key], theirs[key]) for key in theirs)


class Hyper:
    """An object of somebody's own class, with state and constructor arguments."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __reduce__(self) -> tuple:
        return (Hyper, (self.value,), {"value": self.value, "inner": collections.Counter("aab")})


def test_stub_remembers_and_runs_nothing(tmp_path: Path) -> None:
    torch.save({"args": Hyper(3), "w": torch.ones(1)}, tmp_path / "run.pt")
    content = load_tensors(tmp_path / "run.pt", stub=True)
    stub = content["args"]
    assert isinstance(stub, Stub) and stub.origin.endswith("test_safe_pickle.Hyper") and stub.args == (3,)
    assert stub.state["value"] == 3
    assert stub.state["inner"].origin == "collections.Counter" and stub.state["inner"].args == ({"a": 2, "b": 1},)
    assert repr(stub).startswith("<Stub of ") and torch.equal(content["w"], torch.ones(1))


def test_stub_by_module(tmp_path: Path) -> None:
    torch.save(Hyper(3), tmp_path / "run.pt")
    module = Hyper.__module__
    with pytest.raises(UnsafePickleError, match=r"asks for collections.Counter"):
        load_tensors(tmp_path / "run.pt", stub=(module,))
    assert isinstance(load_tensors(tmp_path / "run.pt", stub=(module, "collections")), Stub)
    with pytest.raises(UnsafePickleError, match=r"Hyper"):
        load_tensors(tmp_path / "run.pt", stub=())


def test_containers_of_unknown_kinds_are_stubs(tmp_path: Path) -> None:
    program = b"cmine\nListLike\n)\x81(K\x01K\x02ecmine\nDictLike\n)\x81(K\x01K\x02u\x86."
    listed, mapped = load_tensors(torch_file(program, tmp_path / "x.pt"), stub=True)
    assert listed.items == [1, 2] and mapped.items == [(1, 2)]


# ---- hostile pickles


def attack(marker: Path) -> dict[str, bytes]:
    """Pickles that would touch a file if anything of them ran."""
    command = f"touch {marker}".encode()
    text = b"X" + len(command).to_bytes(4, "little") + command
    code = f"open({str(marker)!r},'w')".encode()
    evaluated = b"X" + len(code).to_bytes(4, "little") + code
    return {
        "os.system": b"cos\nsystem\n(" + text + b"tR.",
        "posix.system": b"cposix\nsystem\n(" + text + b"tR.",
        "builtins.eval": b"cbuiltins\neval\n(" + evaluated + b"tR.",
        "builtins.getattr": b"cbuiltins\ngetattr\n(cbuiltins\ndict\nX\x03\x00\x00\x00gettR.",
        "builtins.__import__": b"c__builtin__\n__import__\n(X\x02\x00\x00\x00ostR.",
        "subprocess.Popen": b"(csubprocess\nPopen\n" + text + b"o.",
        "os.popen": b"(" + text + b"ios\npopen\n.",
        "collections.OrderedDict.fromkeys": (b"\x80\x04\x8c\x0bcollections\x8c\x14OrderedDict.fromkeys\x93]\x85R."),
        "torch.load": b"ctorch\nload\n(" + text + b"tR.",
        "torch._utils._rebuild_tensor_v2.__globals__": (
            b"\x80\x04\x8c\x0ctorch._utils\x8c\x1e_rebuild_tensor_v2.__globals__\x93."
        ),
        "builtins.bytearray": b"cbuiltins\nbytearray\n(J\xff\xff\xff\x7ftR.",
    }


@pytest.mark.parametrize("name", list(attack(Path("x"))))
@pytest.mark.parametrize("reader", ["torch zip", "torch legacy", "few-shot cache"])
def test_hostile_pickle_is_refused(tmp_path: Path, name: str, reader: str) -> None:
    marker = tmp_path / "owned"
    program = attack(marker)[name]
    path = tmp_path / "evil"
    if reader == "torch zip":
        torch_file(program, path)
    elif reader == "torch legacy":
        path.write_bytes(b"".join(pickle.dumps(part) for part in (0x1950A86A20F9469CFC6C, 1001, {})) + program)
    else:
        path.write_bytes(program)
    read = load_datums if reader == "few-shot cache" else load_tensors
    with pytest.raises(UnsafePickleError) as caught:
        read(path)
    message = str(caught.value).replace("__builtin__", "builtins")
    assert f"asks for {name}," in message and str(path) in message and "nothing of it was run" in message
    assert not marker.exists()


@pytest.mark.parametrize("name", list(attack(Path("x"))))
def test_hostile_pickle_in_stub_mode_does_nothing(tmp_path: Path, name: str) -> None:
    marker = tmp_path / "owned"
    content = load_tensors(torch_file(attack(marker)[name], tmp_path / "evil"), stub=True)
    stub = content if isinstance(content, type) else type(content)  # one of the attacks only names what it wants
    assert issubclass(stub, Stub) and stub.origin.replace("__builtin__", "builtins") == name
    assert not marker.exists()


def test_chained_calls_in_stub_mode_do_nothing(tmp_path: Path) -> None:
    """getattr(__import__('os'), 'system')('...') becomes stubs of stubs."""
    marker = tmp_path / "owned"
    command = f"touch {marker}".encode()
    program = (
        b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(X\x02\x00\x00\x00ostRX\x06\x00\x00\x00systemtR"
        b"(X" + len(command).to_bytes(4, "little") + command + b"tR."
    )
    content = load_tensors(torch_file(program, tmp_path / "evil"), stub=True)
    assert isinstance(content, Stub) and content.args == (command.decode(),) and not marker.exists()


@pytest.mark.parametrize("state", [b"}X\x03\x00\x00\x00foosX", b"}X"])
def test_allowed_functions_cannot_be_changed(tmp_path: Path, state: bytes) -> None:
    program = b"ctorch._utils\n_rebuild_tensor_v2\n}X\x09\x00\x00\x00_functionNsb."
    with pytest.raises(UnsafePickleError, match=r"tries to change a function that it may only call"):
        load_tensors(torch_file(program, tmp_path / "evil"))
    slots = b"ctorch._utils\n_rebuild_tensor_v2\nN}X\x09\x00\x00\x00_functionNs\x86b."
    with pytest.raises(UnsafePickleError, match=r"tries to change a function that it may only call"):
        load_tensors(torch_file(slots, tmp_path / "evil"))
    torch.save(torch.ones(2), tmp_path / "good.pt")
    assert torch.equal(load_tensors(tmp_path / "good.pt"), torch.ones(2))


# ---- damaged files


def test_missing_files(tmp_path: Path) -> None:
    for read in (load_tensors, load_datums):
        with pytest.raises(SavedFileError, match=r"There is no file .*nothing.pt"):
            read(tmp_path / "nothing.pt")


@pytest.mark.parametrize("zipped", [True, False], ids=["zip", "before 1.6"])
def test_every_truncation_is_an_error(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "cut.pt"
    torch.save({"a": torch.randn(20), "b": [1, 2, 3]}, path, _use_new_zipfile_serialization=zipped)
    whole = path.read_bytes()
    for length in range(0, len(whole), max(1, len(whole) // 150)):
        path.write_bytes(whole[:length])
        with pytest.raises(SavedFileError, match=r"cut.pt is (damaged|cut short|not|a zip file)"):
            load_tensors(path)


def test_flipped_bytes_never_surface_as_a_library_error(tmp_path: Path) -> None:
    path = tmp_path / "flipped.pt"
    for zipped in (True, False):
        torch.save({"a": torch.randn(20), "b": [1, 2, 3]}, path, _use_new_zipfile_serialization=zipped)
        whole = bytearray(path.read_bytes())
        for position in range(0, len(whole), 11):
            damaged = whole.copy()
            damaged[position] ^= 0x55
            path.write_bytes(damaged)
            try:
                load_tensors(path, stub=True)
            except SavedFileError as error:
                assert str(error)


def tensor_program(offset: int, size: bytes, stride: bytes, numel: int) -> bytes:
    return (
        b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
        b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK"
        + bytes([numel])
        + b"tQK"
        + bytes([offset])
        + size
        + stride
        + b"\x89NtR."
    )


@pytest.mark.parametrize(
    ("program", "data", "message"),
    [
        (tensor_program(0, b"K\x05\x85", b"K\x01\x85", 4), bytes(16), r"shape \(5,\) reaches past the end of its data"),
        (tensor_program(3, b"K\x02\x85", b"K\x01\x85", 4), bytes(16), "reaches past the end"),
        (tensor_program(0, b"K\x02\x85", b"K\x09\x85", 4), bytes(16), "reaches past the end"),
        (tensor_program(0, b"J\xff\xff\xff\xff\x85", b"K\x01\x85", 4), bytes(16), "a shape that is not one"),
        (tensor_program(0, b"K\x02\x85", b"J\xff\xff\xff\xff\x85", 4), bytes(16), "a shape that is not one"),
        (
            tensor_program(0, b"K\x04\x85", b"K\x01\x85", 4),
            bytes(12),
            "storage '0' has 12 bytes where 4 x 4 were expected",
        ),
        (tensor_program(0, b"K\x04\x85", b"K\x01\x85", 4), None, "it has no data for storage '0'"),
        (b"X\x01\x00\x00\x00aQ.", None, "refers to data outside of itself"),
        (b"garbage", None, "is damaged"),
        (b"", None, "is damaged"),
    ],
)
def test_tensors_must_lie_within_their_data(tmp_path: Path, program: bytes, data: bytes | None, message: str) -> None:
    path = torch_file(program, tmp_path / "x.pt", {} if data is None else {"0": data})
    with pytest.raises(SavedFileError, match=message):
        load_tensors(path)


def test_hand_made_tensor_is_read(tmp_path: Path) -> None:
    """The control of the test above: the same program with a fitting shape."""
    path = torch_file(tensor_program(1, b"K\x03\x85", b"K\x01\x85", 4), tmp_path / "x.pt", {"0": bytes(16)})
    assert torch.equal(load_tensors(path), torch.zeros(3))


def test_compressed_storages_are_refused(tmp_path: Path) -> None:
    """A few kilobytes could unpack to gigabytes; torch never compresses."""
    program = tensor_program(0, b"K\x04\x85", b"K\x01\x85", 4)
    path = torch_file(program, tmp_path / "x.pt", {"0": bytes(16)}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(SavedFileError, match=r"is damaged"):
        load_tensors(path)


def test_other_zip_file(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.jpg", b"")
    with pytest.raises(SavedFileError, match=r"is a zip file, but not one that torch wrote: it has no data.pkl"):
        load_tensors(tmp_path / "photos.zip")


def test_big_endian_file(tmp_path: Path) -> None:
    path = torch_file(b"N.", tmp_path / "x.pt")
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("x/byteorder", "big")
    with pytest.raises(SavedFileError, match=r"written on a big-endian machine"):
        load_tensors(path)


# ---- the reference's few-shot caches


def test_reference_few_shot_cache() -> None:
    parts = load_datums(SHOTS)
    assert set(parts) <= {"train", "val"} and parts["train"]
    assert parts["train"][0] == Datum("class_01/img_003.jpg", 1, 0, "c1")
    assert all(type(datum) is Datum for datum in parts["train"])


def test_damaged_few_shot_cache(tmp_path: Path) -> None:
    path = tmp_path / "shot_1-seed_1.pkl"
    whole = SHOTS.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(SavedFileError, match=r"shot_1-seed_1.pkl is damaged or cut short"):
            load_datums(path)


@pytest.mark.parametrize(
    "content", [[1], {"train": [1]}, {"train": [("a.jpg", 0, 0, "cat")]}, {"train": 3}, 5], ids=str
)
def test_other_pickle_is_no_few_shot_cache(tmp_path: Path, content: Any) -> None:
    (tmp_path / "other.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(SavedFileError, match=r"other.pkl is not a few-shot cache"):
        load_datums(tmp_path / "other.pkl")


def test_entry_without_a_label(tmp_path: Path) -> None:
    (tmp_path / "odd.pkl").write_bytes(SHOTS.read_bytes().replace(b"_label", b"_lable"))
    pickletools.dis(SHOTS.read_bytes(), out=io.StringIO())
    with pytest.raises(SavedFileError, match=r"an entry has no path, label, domain and class name"):
        load_datums(tmp_path / "odd.pkl")


# ---- plain pickles


def test_plain_content_and_arrays_as_stubs(tmp_path: Path) -> None:
    content = {b"labels": [1, 2], b"names": [b"cat"], b"data": np.arange(6, dtype=np.uint8).reshape(2, 3)}
    (tmp_path / "x").write_bytes(pickle.dumps(content, 3))
    found = load_plain(tmp_path / "x", stub=("numpy",))
    assert found[b"labels"] == [1, 2] and found[b"names"] == [b"cat"]
    assert isinstance(found[b"data"], Stub) and found[b"data"].state[-1] == bytes(range(6))
    with pytest.raises(UnsafePickleError, match="asks for numpy"):
        load_plain(tmp_path / "x")


def test_text_of_python_2_comes_as_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"(dU\x04dataU\x02\xff\x00s.")
    assert load_plain(tmp_path / "x") == {b"data": b"\xff\x00"}


@pytest.mark.parametrize("content", [b"", b"junk", b"(dU\x04da"])
def test_damaged_plain_pickle(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    for file in ("x", "gone"):
        with pytest.raises(SavedFileError, match="is missing or damaged"):
            load_plain(tmp_path / file)
