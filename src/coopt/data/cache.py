"""The feature cache: an image is encoded once per backbone, ever.

One SQLite file per cache folder, keyed by content, so that moved, copied and renamed images are found again. SQLite
(in WAL mode) is what makes it safe under several processes and under `kill -9`. The cache only ever saves time:
whatever goes wrong with it ends in one `CacheWarning`, and work goes on without it.

Network file systems do not lock reliably: point COOPT_CACHE at a local disk.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import platformdirs
from jaxtyping import Float

from coopt.data.file_names import display_name
from coopt.errors import CacheWarning

FILE_NAME = "features-v1.sqlite3"  # the number is the format's: other versions of coopt keep their own file
BUSY_TIMEOUT = 30.0  # seconds to wait for another process's write
_SCHEMA = """
CREATE TABLE IF NOT EXISTS backbones (id INTEGER PRIMARY KEY, fingerprint TEXT NOT NULL UNIQUE, name TEXT);
CREATE TABLE IF NOT EXISTS features (
    key BLOB PRIMARY KEY, backbone INTEGER NOT NULL, dim INTEGER NOT NULL, crc INTEGER NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_backbone ON features (backbone, dim);
"""
_Result = TypeVar("_Result")


@dataclass(frozen=True)
class FeatureKey:
    """What a feature depends on; equal keys mean equal features.

    Attributes:
        image: SHA-256 (hex) of the image's content.
        backbone: the backbone's fingerprint.
        preprocessing: the id of the preprocessing.
        view: "test", or the seed of a training view.
        precision: in what arithmetic the tower ran, e.g. "float32".
    """

    image: str
    backbone: str
    preprocessing: str
    view: str | int
    precision: str

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for the key."""
        parts = [self.image, self.backbone, self.preprocessing, self.view, self.precision]
        return hashlib.sha256(json.dumps(parts).encode()).digest()


@dataclass(frozen=True)
class BackboneSize:
    """What the cache holds for one backbone: its name (when known), number of features and their bytes."""

    name: str | None
    entries: int
    bytes: int


@dataclass(frozen=True)
class CacheSize:
    """What the cache holds: bytes on disk, number of features, and the same per backbone fingerprint."""

    bytes: int
    entries: int
    per_backbone: dict[str, BackboneSize]


def default_cache_folder() -> Path:
    """`$COOPT_CACHE`, or the user's cache folder of the operating system."""
    chosen = os.environ.get("COOPT_CACHE")
    return Path(chosen).expanduser() if chosen else Path(platformdirs.user_cache_dir("coopt"))


class FeatureCache:
    """Features on disk, by content. Threads and processes may share it; a copy opens the file anew.

    Args:
        folder: where the file is kept; `default_cache_folder()` when None. Made at the first use.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None) -> None:
        self.folder = default_cache_folder() if folder is None else Path(folder)
        self._connection: sqlite3.Connection | None = None
        self._owner = 0  # the process that opened the connection: SQLite's may not cross a fork
        self._lock = threading.RLock()
        self._disabled = False

    def __repr__(self) -> str:
        return f"FeatureCache({display_name(self.folder)!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return (type(self), (self.folder,))

    @property
    def path(self) -> Path:
        """The SQLite file."""
        return self.folder / FILE_NAME

    @property
    def enabled(self) -> bool:
        """False once an error has turned the cache off for this object."""
        return not self._disabled

    def get_many(self, keys: Sequence[FeatureKey]) -> dict[FeatureKey, Float[np.ndarray, " dim"]]:
        """The features that are there. Entries that are damaged or not finite count as not there."""
        return self._guarded(lambda connection: self._read(connection, keys), default=dict)

    def put_many(
        self, features: Mapping[FeatureKey, Float[np.ndarray, " dim"]], backbone_name: str | None = None
    ) -> None:
        """Stores features, all or (when the process dies) none of them.

        Args:
            features: by key.
            backbone_name: shown by `size()` beside the fingerprint.
        """
        if features:
            self._guarded(lambda connection: self._write(connection, features, backbone_name), default=lambda: None)

    def size(self) -> CacheSize:
        """How much the cache holds. Does not create a cache that is not there."""
        if not self.path.exists():
            return CacheSize(0, 0, {})
        return self._guarded(self._measure, default=lambda: CacheSize(self._bytes_on_disk(), 0, {}))

    def clear(self) -> int:
        """Empties the cache, also of damaged files that were moved aside; returns the bytes freed on disk."""
        before = self._bytes_on_disk()
        if self.path.exists():
            self._guarded(_clear, default=lambda: None)
        for damaged in self.folder.glob(f"{FILE_NAME}*.damaged-*"):
            damaged.unlink(missing_ok=True)
        return max(0, before - self._bytes_on_disk())

    def close(self) -> None:
        """Closes the file; the next use opens it again."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None

    # -- reading and writing; run within _guarded ---------------------------------------------------------------------

    def _read(
        self, connection: sqlite3.Connection, keys: Sequence[FeatureKey]
    ) -> dict[FeatureKey, Float[np.ndarray, " dim"]]:
        by_digest = {key.digest: key for key in keys}
        vectors: dict[FeatureKey, np.ndarray] = {}
        for some in _chunks(list(by_digest), 500):
            marks = ",".join("?" * len(some))
            rows = connection.execute(f"SELECT key, dim, crc, value FROM features WHERE key IN ({marks})", some)
            for digest, dim, crc, value in rows:
                vector = _checked_vector(dim, crc, value)
                if vector is not None:
                    vectors[by_digest[digest]] = vector
        return vectors

    def _write(
        self,
        connection: sqlite3.Connection,
        features: Mapping[FeatureKey, Float[np.ndarray, " dim"]],
        backbone_name: str | None,
    ) -> None:
        with _transaction(connection):
            ids: dict[str, int] = {}
            for fingerprint in {key.backbone for key in features}:
                connection.execute(
                    "INSERT INTO backbones (fingerprint, name) VALUES (?, ?) "
                    "ON CONFLICT (fingerprint) DO UPDATE SET name = coalesce(excluded.name, name)",
                    (fingerprint, backbone_name),
                )
                row = connection.execute("SELECT id FROM backbones WHERE fingerprint = ?", (fingerprint,)).fetchone()
                ids[fingerprint] = row[0]
            connection.executemany(
                "INSERT OR REPLACE INTO features (key, backbone, dim, crc, value) VALUES (?, ?, ?, ?, ?)",
                (_row(key, ids[key.backbone], vector) for key, vector in features.items()),
            )

    def _measure(self, connection: sqlite3.Connection) -> CacheSize:
        rows = connection.execute(
            "SELECT fingerprint, name, count(features.dim), coalesce(sum(4 * features.dim), 0) "
            "FROM backbones LEFT JOIN features ON features.backbone = backbones.id GROUP BY backbones.id ORDER BY name"
        ).fetchall()
        per_backbone = {print_: BackboneSize(name, entries, size) for print_, name, entries, size in rows if entries}
        return CacheSize(self._bytes_on_disk(), sum(one.entries for one in per_backbone.values()), per_backbone)

    def _bytes_on_disk(self) -> int:
        try:
            return sum(file.stat().st_size for file in self.folder.glob(f"{FILE_NAME}*"))
        except OSError:
            return 0

    # -- whatever goes wrong ends here --------------------------------------------------------------------------------

    def _guarded(self, action: Callable[[sqlite3.Connection], _Result], default: Callable[[], _Result]) -> _Result:
        with self._lock:
            if self._disabled:
                return default()
            try:
                try:
                    return action(self._open())
                except sqlite3.DatabaseError as error:
                    # The bare class means "damaged" or "not a database"; its children (full, locked, read-only)
                    # say nothing against the file.
                    if type(error) is not sqlite3.DatabaseError:
                        raise
                    self._move_aside(error)
                    return action(self._open())
            except (sqlite3.Error, OSError) as error:
                self._disabled = True
                self.close()
                warnings.warn(
                    f"The feature cache in '{display_name(self.folder)}' cannot be used ({error}); going on "
                    "without it, so images will be encoded again next time. Free some space, make the folder writable, "
                    "or set COOPT_CACHE to a folder on a local disk.",
                    CacheWarning,
                    stacklevel=4,
                )
                return default()

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._owner == os.getpid():
            return self._connection
        self.folder.mkdir(parents=True, exist_ok=True)
        # Autocommit: transactions are opened by hand. Other threads may use the connection, one at a time (the lock).
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        try:
            _switch_to_wal(connection)
            connection.execute("PRAGMA synchronous = NORMAL")
            if connection.execute("PRAGMA schema_version").fetchone()[0] == 0:  # a new file
                with _transaction(connection):
                    for statement in _SCHEMA.split(";"):
                        connection.execute(statement)
        except BaseException:
            connection.close()
            raise
        self._connection, self._owner = connection, os.getpid()
        return connection

    def _move_aside(self, error: sqlite3.DatabaseError) -> None:
        self.close()
        suffix = f".damaged-{time.time_ns()}"
        for ending in ("", "-wal", "-shm"):
            file = self.path.with_name(FILE_NAME + ending)
            if file.exists():
                file.rename(file.with_name(file.name + suffix))
        warnings.warn(
            f"The feature cache '{display_name(self.path)}' is not readable ({error}). It was moved aside to "
            f"'{FILE_NAME}{suffix}' and a new one was begun; delete the old file when you do not need it.",
            CacheWarning,
            stacklevel=5,
        )


class _transaction:  # noqa: N801  (reads as a statement)
    """BEGIN IMMEDIATE: takes the write lock at once, since one that is upgraded later can deadlock."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __enter__(self) -> None:
        self.connection.execute("BEGIN IMMEDIATE")

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.connection.execute("COMMIT")
        elif self.connection.in_transaction:
            self.connection.execute("ROLLBACK")


def _switch_to_wal(connection: sqlite3.Connection) -> None:
    # SQLite does not wait for other processes here, whatever the timeout; two that start at once would collide.
    end = time.monotonic() + BUSY_TIMEOUT
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchone()
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > end:
                raise
            time.sleep(0.02)


def _row(key: FeatureKey, backbone: int, vector: Float[np.ndarray, " dim"]) -> tuple[bytes, int, int, int, bytes]:
    value = np.ascontiguousarray(vector, dtype="<f4").tobytes()
    return key.digest, backbone, len(value) // 4, zlib.crc32(value), value


def _checked_vector(dim: Any, crc: Any, value: Any) -> Float[np.ndarray, " dim"] | None:
    if not isinstance(value, bytes) or len(value) != 4 * dim or zlib.crc32(value) != crc:
        return None
    vector = np.frombuffer(value, dtype="<f4").astype(np.float32)
    return vector if np.isfinite(vector).all() else None


def _clear(connection: sqlite3.Connection) -> None:
    with _transaction(connection):
        connection.execute("DELETE FROM features")
        connection.execute("DELETE FROM backbones")
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _chunks(items: Sequence[bytes], size: int) -> Iterator[Sequence[bytes]]:
    return (items[start : start + size] for start in range(0, len(items), size))


__all__ = ["BackboneSize", "CacheSize", "FeatureCache", "FeatureKey", "default_cache_folder"]
