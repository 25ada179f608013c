from __future__ import annotations

import copy
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy as np
import pytest

from coopt.data import FeatureCache, FeatureKey, default_cache_folder
from coopt.data import cache as cache_module
from coopt.errors import CacheWarning


def _key(i: int, backbone: str = "b" * 64, view: str | int = "test") -> FeatureKey:
    return FeatureKey(f"{i:064x}", backbone, "standard", view, "float32")


def _features(start: int, count: int) -> dict[FeatureKey, np.ndarray]:
    return {_key(i): np.full(8, i, dtype=np.float32) for i in range(start, start + count)}


def test_what_is_put_is_got(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    features = _features(0, 1200)  # more than one query's worth of keys
    cache.put_many(features, "tiny")
    found = FeatureCache(tmp_path).get_many([*features, _key(5000)])
    assert found.keys() == features.keys()
    assert all(np.array_equal(found[key], features[key]) and found[key].dtype == np.float32 for key in features)
    assert cache.get_many([]) == {}


@pytest.mark.parametrize("field", ["image", "backbone", "preprocessing", "view", "precision"])
def test_every_part_of_the_key_counts(tmp_path: Path, field: str) -> None:
    cache = FeatureCache(tmp_path)
    cache.put_many(_features(0, 1))
    parts = {name: getattr(_key(0), name) for name in FeatureKey.__dataclass_fields__}
    other = FeatureKey(**{**parts, field: 7 if field == "view" else "other"})
    assert cache.get_many([other, _key(0)]).keys() == {_key(0)}
    assert _key(0, view=1).digest != _key(0, view="1").digest


def test_a_feature_is_replaced(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    for value in (1, 2):
        cache.put_many({_key(0): np.full(3, value, dtype=np.float32)})
    assert cache.get_many([_key(0)])[_key(0)].tolist() == [2, 2, 2]
    assert cache.size().entries == 1


def test_size_and_clear(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path / "new")
    assert (cache.size().entries, cache.size().bytes) == (0, 0)
    assert not (tmp_path / "new").exists()  # looking makes nothing
    cache.put_many(_features(0, 100), "tiny")
    cache.put_many({_key(0, "c" * 64): np.zeros(4, dtype=np.float32)})
    size = cache.size()
    assert size.entries == 101
    assert size.bytes > 100 * 8 * 4
    assert {key: (one.name, one.entries, one.bytes) for key, one in size.per_backbone.items()} == {
        "b" * 64: ("tiny", 100, 100 * 8 * 4),
        "c" * 64: (None, 1, 16),
    }
    cache.put_many(_features(0, 3000))
    assert cache.clear() > 50_000
    assert cache.size().entries == 0
    assert cache.get_many([_key(0)]) == {}
    cache.put_many(_features(0, 1))
    assert cache.size().entries == 1


def test_the_folder_is_chosen_by_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COOPT_CACHE", str(tmp_path / "mine"))
    assert default_cache_folder() == FeatureCache().folder == tmp_path / "mine"
    monkeypatch.delenv("COOPT_CACHE")
    assert default_cache_folder().name == "coopt"


def test_copies_and_pickles_share_the_file(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put_many(_features(0, 1))
    for other in (copy.deepcopy(cache), pickle.loads(pickle.dumps(cache))):
        assert other.folder == cache.folder
        assert other.get_many([_key(0)]).keys() == {_key(0)}


def test_threads_share_one_cache(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    threads = [threading.Thread(target=lambda i=i: cache.put_many(_features(10 * i, 10))) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cache.size().entries == 80


def _damage(path: Path, statement: str, *values: object) -> None:
    connection = sqlite3.connect(path)
    connection.execute(statement, values)
    connection.commit()
    connection.close()


def test_damaged_values_count_as_missing(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache.put_many(_features(0, 5))
    cache.put_many({_key(9): np.array([1, np.nan], dtype=np.float32)})
    cache.close()
    _damage(cache.path, "UPDATE features SET value = substr(value, 1, 12) WHERE key = ?", _key(0).digest)
    _damage(cache.path, "UPDATE features SET value = zeroblob(32) WHERE key = ?", _key(1).digest)
    _damage(cache.path, "UPDATE features SET value = 'text' WHERE key = ?", _key(2).digest)
    _damage(cache.path, "UPDATE features SET dim = 'x' WHERE key = ?", _key(3).digest)
    assert cache.get_many([_key(i) for i in range(10)]).keys() == {_key(4)}


@pytest.mark.parametrize("damage", ["not a database", "header", "middle"])
def test_a_damaged_file_is_moved_aside_and_rebuilt(tmp_path: Path, damage: str) -> None:
    cache = FeatureCache(tmp_path)
    cache.put_many(_features(0, 500))
    cache.close()
    data = bytearray(cache.path.read_bytes())
    if damage == "not a database":
        data = bytearray(b"hello")
    elif damage == "header":
        data[:100] = os.urandom(100)
    else:
        data[4096 : len(data)] = os.urandom(len(data) - 4096)
    cache.path.write_bytes(bytes(data))
    for ending in ("-wal", "-shm"):
        cache.path.with_name(cache.path.name + ending).unlink(missing_ok=True)

    cache = FeatureCache(tmp_path)
    with pytest.warns(CacheWarning, match=r"is not readable .*moved aside to 'features-v1\.sqlite3\.damaged-\d+'"):
        assert cache.get_many(list(_features(0, 500))) == {}
    cache.put_many(_features(0, 5))
    assert FeatureCache(tmp_path).size().entries == 5
    assert list(tmp_path.glob("*.damaged-*"))
    cache.clear()
    assert not list(tmp_path.glob("*.damaged-*"))


def _warns_once_and_goes_on(cache: FeatureCache, message: str) -> None:
    with pytest.warns(CacheWarning, match=message) as caught:
        cache.put_many(_features(0, 500))
    assert len(caught) == 1
    assert "COOPT_CACHE" in str(caught[0].message)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.put_many(_features(0, 5))
        assert cache.get_many([_key(0)]) == {}
        assert not cache.enabled
        cache.clear()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    _warns_once_and_goes_on(FeatureCache(tmp_path / "file" / "cache"), r"cannot be used .*going on without it")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everything")
def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "locked").mkdir(mode=0o500)
    _warns_once_and_goes_on(FeatureCache(tmp_path / "locked"), r"cannot be used")


def test_a_full_disk(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    cache._open().execute("PRAGMA max_page_count = 12")  # SQLite's own way of running out of space
    _warns_once_and_goes_on(cache, r"cannot be used \(database or disk is full\)")


def test_a_file_that_another_program_keeps_locked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "BUSY_TIMEOUT", 0.05)
    FeatureCache(tmp_path).put_many(_features(0, 1))
    other = sqlite3.connect(tmp_path / cache_module.FILE_NAME)
    other.execute("BEGIN IMMEDIATE")
    _warns_once_and_goes_on(FeatureCache(tmp_path), r"cannot be used \(database is locked\)")
    other.close()


_WRITER = """
import sys
import numpy as np
from coopt.data.cache import FeatureCache, FeatureKey
folder, start, batches = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
cache = FeatureCache(folder)
for batch in range(batches):
    keys = [FeatureKey(f"{start + 50 * batch + i:064x}", "b" * 64, "standard", "test", "float32") for i in range(50)]
    cache.put_many({key: np.full(512, start + 50 * batch + i, dtype=np.float32) for i, key in enumerate(keys)})
    print(batch, flush=True)
"""


def _writer(folder: Path, start: int, batches: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-W", "error", "-c", _WRITER, str(folder), str(start), str(batches)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    writers = [_writer(tmp_path, start, 20) for start in (0, 100_000)]
    assert [writer.wait(timeout=60) for writer in writers] == [0, 0]
    for writer in writers:
        assert writer.stdout is not None
        writer.stdout.close()
    keys = [_key(start + i) for start in (0, 100_000) for i in range(1000)]
    found = FeatureCache(tmp_path).get_many(keys)
    assert all(np.array_equal(found[key], np.full(512, int(key.image, 16), dtype=np.float32)) for key in keys)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="needs kill -9")
@pytest.mark.parametrize("after", [1, 7, 30])
def test_a_killed_writer_leaves_whole_batches(tmp_path: Path, after: int) -> None:
    writer = _writer(tmp_path, 0, 100_000)
    assert writer.stdout is not None
    for _ in range(after):
        last = int(writer.stdout.readline())
    writer.send_signal(signal.SIGKILL)
    committed = [last, *map(int, writer.stdout.read().split())][-1] + 1
    writer.wait()
    writer.stdout.close()

    cache = FeatureCache(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = cache.get_many([_key(i) for i in range(50 * (committed + 5))])
    assert cache._open().execute("PRAGMA integrity_check").fetchone() == ("ok",)
    assert len(found) % 50 == 0  # a batch is there as a whole, or not at all
    assert {_key(i) for i in range(50 * committed)} <= found.keys()
    assert all((vector == int(key.image, 16)).all() for key, vector in found.items())
    cache.put_many(_features(10**6, 3))
    assert len(cache.get_many(list(_features(10**6, 3)))) == 3
