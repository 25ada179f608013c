"""Packed runs: unpacked they are the same bytes, read they are the same records, and nothing is lost on the way."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from coopt.errors import SavedFileError
from coopt.evaluation.claims import Claims
from coopt.evaluation.packed import packed_file, read_packed
from coopt.evaluation.packing import pack, unpack
from coopt.evaluation.run_files import Record, find_record, has_runs, read_record, read_records, run_names, write_record
from coopt.evaluation.runs import RunResult, Score, Setting


def record(dataset: str = "animals", seed: int = 1, accuracy: float = 200 / 3) -> Record:
    setting = Setting(
        protocol="few-shot",
        method="CoOp",
        estimator="coop",
        parameters={"n_ctx": 4, "init": "ein Photo für 名"},
        sampling="few-shot",
        backbone="b" * 64,
        preprocessing="standard",
        dataset=dataset,
        dataset_hash="d" * 64,
        targets={"test": "d" * 64},
        shots=1,
        seed=seed,
    )
    return Record("tiny", "bundled", RunResult(setting, {"test": Score(accuracy, 1e-17, 0.1, 3)}, 14, 0.25), None, {})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Six runs in files of their own."""
    for dataset in ("animals", "art-styles", "animals-2"):
        for seed in (1, 10):
            write_record(tmp_path / "tiny", record(dataset, seed))
    return tmp_path / "tiny"


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_unpacked_files_have_the_same_bytes(folder: Path) -> None:
    before = contents(folder)
    done = pack(folder)
    assert (done.path, done.moved, done.total, done.left) == (folder.parent / "tiny.jsonl", 6, 6, {})
    assert [one.name for one in folder.parent.iterdir()] == ["tiny.jsonl"]  # no folder, no lock
    packed = done.path.read_bytes()
    assert packed.count(b"\n") == 6
    again = unpack(folder)
    assert (again.moved, again.left) == (6, {})
    assert contents(folder) == before and not done.path.exists()
    pack(folder)
    assert packed_file(folder).read_bytes() == packed


def test_a_line_is_a_run_in_the_order_of_the_files(folder: Path) -> None:
    files = sorted(folder.iterdir())
    names = [path.stem for path in files]
    documents = [json.loads(path.read_bytes()) for path in files]
    lines = [json.loads(line) for line in pack(folder).path.read_text(encoding="utf-8").splitlines()]
    assert [line.pop("name") for line in lines] == names
    assert lines == documents


def test_packed_runs_are_read_as_files_are(folder: Path) -> None:
    names, records = run_names(folder), list(read_records(folder))
    one = read_record(folder / f"{names[0]}.json")
    pack(folder)
    assert has_runs(folder)
    assert run_names(folder) == names and list(read_records(folder)) == records
    assert find_record(folder, names[0]) == one
    assert find_record(folder, "another") is None


def test_files_and_packed_runs_are_read_together_and_files_count(folder: Path) -> None:
    pack(folder)
    write_record(folder, record(accuracy=50.0))  # done again
    write_record(folder, record("zoo"))  # new
    found = [one for one in read_records(folder) if isinstance(one, Record)]
    assert [one.name for one in found] == run_names(folder) and len(found) == 7
    younger = record().name
    assert next(one for one in found if one.name == younger).result.accuracy == 50.0
    done = pack(folder)
    assert (done.moved, done.total) == (2, 7)
    again = find_record(folder, younger)
    assert again is not None and again.result.accuracy == 50.0


def test_unpacking_keeps_younger_files(folder: Path) -> None:
    pack(folder)
    path = write_record(folder, record(accuracy=50.0))
    done = unpack(folder)
    assert (done.moved, list(done.left)) == (5, [path.stem])
    assert read_record(path).result.accuracy == 50.0


def test_a_changed_line_is_not_taken_for_a_run(folder: Path) -> None:
    path = pack(folder).path
    path.write_text(path.read_text(encoding="utf-8").replace('"n_train":14', '"n_train":15', 1), encoding="utf-8")
    bad, *others = read_records(folder)
    assert isinstance(bad, SavedFileError) and len(others) == 5
    assert "animals-2.coop.1-shot.seed-1 in" in str(bad) and "its SHA-256 differs" in str(bad)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("<<<<<<< HEAD", "Expecting value"),
        ("[1]", "it has no name of a run"),
        ('{"format": 1}', "it has no name of a run"),
        ('{"name": "../../evil", "format": 1}', "it has no name of a run"),
    ],
)
def test_damaged_lines_are_named_and_never_lost(folder: Path, line: str, reason: str) -> None:
    path = pack(folder).path
    with path.open("a", encoding="utf-8") as file:
        file.write(line + "\n")
    *others, bad = read_records(folder)
    assert len(others) == 6 and isinstance(bad, SavedFileError)
    write_record(folder, record("zoo"))
    before = path.read_bytes()
    for action in (pack, unpack):
        with pytest.raises(SavedFileError, match=rf"Line 7 of '.*tiny\.jsonl' is not a run of a suite \(.*{reason}"):
            action(folder)
    assert path.read_bytes() == before and (folder / f"{record('zoo').name}.json").exists()


def test_damaged_files_and_runs_being_done_are_left(folder: Path) -> None:
    names = run_names(folder)
    damaged = folder / f"{names[0]}.json"
    damaged.write_text("{")
    assert Claims(folder).take(names[1]) == "mine"
    done = pack(folder)
    assert done.moved == 4 and list(done.left) == names[:2]
    assert "is not a whole run" in done.left[names[0]] and "A process is doing" in done.left[names[1]]
    assert damaged.exists() and (folder / f"{names[1]}.json").exists()


def test_files_of_two_machines_are_merged_by_joining_them(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other" / "tiny"
    shutil.copytree(folder, other)
    for path in sorted(folder.iterdir())[:3]:
        path.unlink()
    for path in sorted(other.iterdir())[4:]:
        path.unlink()
    whole = pack(folder).path.read_bytes() + pack(other).path.read_bytes()
    packed_file(folder).write_bytes(whole)
    assert len(run_names(folder)) == 6 and read_packed(folder).damaged == ()


def test_stopped_while_unpacking_everything_is_there(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before, records = contents(folder), list(read_records(folder))
    pack(folder)
    import coopt.evaluation.packing as packing

    real, written = packing.write_bytes, []

    def stopped(path: Path, data: bytes) -> None:
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(path)
        real(path, data)

    monkeypatch.setattr(packing, "write_bytes", stopped)
    with pytest.raises(KeyboardInterrupt):
        unpack(folder)
    assert list(read_records(folder)) == records
    monkeypatch.setattr(packing, "write_bytes", real)
    assert unpack(folder).moved == 3
    assert contents(folder) == before


def test_nothing_there(tmp_path: Path) -> None:
    assert not has_runs(tmp_path / "tiny") and run_names(tmp_path / "tiny") == []
    done = pack(tmp_path / "tiny")
    assert (done.moved, done.total) == (0, 0) and not done.path.exists()
