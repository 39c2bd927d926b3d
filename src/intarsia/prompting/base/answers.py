"""The file of a cache: values by their keys, and those that nobody asks for go first."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from intarsia.data.sqlite import transaction
from intarsia.errors import BadInput, IntarsiaError
from intarsia.models.cache import disk_errors

MARK = 0x1A7A51A  # SQLite's application_id of these files
VERSION = 1
TABLES = """
CREATE TABLE answers (
    key TEXT PRIMARY KEY,
    kind TEXT NOT NULL,     -- generate, score, embed
    value BLOB NOT NULL,
    used REAL NOT NULL      -- seconds since 1970
);
CREATE INDEX answers_by_use ON answers (used);
CREATE TABLE total (bytes INTEGER NOT NULL);
INSERT INTO total VALUES (0);
CREATE TRIGGER added AFTER INSERT ON answers BEGIN UPDATE total SET bytes = bytes + length(NEW.value); END;
CREATE TRIGGER gone AFTER DELETE ON answers BEGIN UPDATE total SET bytes = bytes - length(OLD.value); END;
"""


@dataclass(frozen=True)
class Stats:
    """Of a cache. answers: by kind. bytes: of their values. limit: bytes. hits, misses: of this object."""

    answers: dict[str, int]
    bytes: int
    limit: int
    hits: int
    misses: int


class Answers:
    """Values by key in a SQLite file, for threads and processes together.

    limit: bytes of values. Raises `BadInput` for a file of another kind, or of a newer version."""

    def __init__(self, path: str | Path, limit: int):
        self.path, self.limit = Path(path).expanduser(), limit
        if limit < 1:
            raise BadInput(f"the limit of a cache is {limit} bytes: give at least 1")
        self.hits = self.misses = 0
        self._guard = threading.Lock()
        self._file: sqlite3.Connection | None = None
        self._pid = 0
        with self._guard:
            self._connection()

    def get(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values that are there; they count as used now."""
        found: dict[str, bytes] = {}
        with self._guard:
            file = self._connection()
            for key in keys:
                row = file.execute("SELECT value FROM answers WHERE key = ?", (key,)).fetchone()
                if row is None:
                    self.misses += 1
                else:
                    self.hits += 1
                    found[key] = row[0]
            if found:
                now = time.time()
                file.executemany("UPDATE answers SET used = ? WHERE key = ?", [(now, key) for key in found])
        return found

    def put(self, kind: str, values: Mapping[str, bytes]) -> None:
        """Keep values; those used least recently go as far as the limit wants it. One beyond the limit is not kept."""
        now = time.time()
        rows = [(key, kind, value, now) for key, value in values.items() if len(value) <= self.limit]
        with self._guard:
            file = self._connection()
            with transaction(file, "the cache"):
                file.executemany("INSERT INTO answers VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", rows)
                self._make_room(file)

    def _make_room(self, file: sqlite3.Connection) -> None:
        over = file.execute("SELECT bytes FROM total").fetchone()[0] - self.limit
        if over <= 0:
            return
        over += self.limit // 10  # some more, so that not every new answer has to look for room
        oldest = file.execute("SELECT key, length(value) FROM answers ORDER BY used, rowid").fetchall()
        for key, size in oldest[:-1]:  # never the newest
            if over <= 0:
                break
            file.execute("DELETE FROM answers WHERE key = ?", (key,))
            over -= size

    def clear(self) -> int:
        """Forget everything. Returns how many answers there were."""
        with self._guard:
            file = self._connection()
            with transaction(file, "the cache"):
                count = file.execute("DELETE FROM answers").rowcount
            file.execute("VACUUM")
            return count

    def stats(self) -> Stats:
        """What is there."""
        with self._guard:
            file = self._connection()
            kinds = dict(file.execute("SELECT kind, count(*) FROM answers GROUP BY kind").fetchall())
            total = file.execute("SELECT bytes FROM total").fetchone()[0]
            return Stats(kinds, total, self.limit, self.hits, self.misses)

    def close(self) -> None:
        """Let go of the file."""
        with self._guard:
            if self._file is not None and self._pid == os.getpid():
                self._file.close()
            self._file = None

    def _connection(self) -> sqlite3.Connection:
        if self._file is None or self._pid != os.getpid():  # after a fork, the parent's connection is not ours
            self._file, self._pid = self._connect(), os.getpid()
        return self._file

    def _connect(self) -> sqlite3.Connection:
        if self.path.is_dir():
            raise BadInput(f"{self.path} is a folder: give the file that answers are kept in")
        with disk_errors(self.path):
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True)
                # What people ask a model is theirs: nobody else on the machine reads it.
                os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
            try:
                file = sqlite3.connect(self.path, isolation_level=None, timeout=60, check_same_thread=False)
                mark, version = (
                    file.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
                )
                if not file.execute("SELECT 1 FROM sqlite_master").fetchone():
                    mark, version = self._make(file)
            except sqlite3.OperationalError as error:
                raise IntarsiaError(f"{self.path}: {error}") from None
            except sqlite3.DatabaseError as error:
                raise BadInput(f"{self.path}: no cache of answers that Intarsia made ({error})") from None
        if mark != MARK:
            file.close()
            raise BadInput(f"{self.path}: no cache of answers that Intarsia made; give another file")
        if version > VERSION:
            file.close()
            raise BadInput(
                f"{self.path}: layout {version} of a newer Intarsia; this one reads up to {VERSION}: update it"
            )
        # A killed process loses nothing; a power cut may cost the last answers, never the file.
        file.execute("PRAGMA synchronous = NORMAL")
        return file

    def _make(self, file: sqlite3.Connection) -> tuple[int, int]:
        file.execute("PRAGMA journal_mode = WAL")
        with transaction(file, "the cache"):
            if not file.execute("SELECT 1 FROM sqlite_master").fetchone():  # another process may have been quicker
                for statement in TABLES.split(";\n"):
                    file.execute(statement)
                file.execute(f"PRAGMA application_id = {MARK}")
                file.execute(f"PRAGMA user_version = {VERSION}")
        return _kind(file)


def _kind(file: sqlite3.Connection) -> tuple[int, int]:
    """Whose file it is, and its version."""
    return file.execute("PRAGMA application_id").fetchone()[0], file.execute("PRAGMA user_version").fetchone()[0]
