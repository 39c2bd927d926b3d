"""The SQLite file of a graph: its tables, and blobs that are larger than a row should be."""

from __future__ import annotations

import os
import sqlite3
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from intarsia.data import sqlite
from intarsia.errors import BadInput

VERSION = 1
PART = 1 << 25  # bytes of a blob in one row
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE entities (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, about TEXT NOT NULL DEFAULT '');
CREATE TABLE relations (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
CREATE TABLE snapshots (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL,
    entities INTEGER,        -- how many there are up to here; NULL while it is open
    relations INTEGER,
    added TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP,
    result TEXT              -- how it was learned, as JSON; NULL until it is
);
CREATE TABLE facts (
    head INTEGER NOT NULL,
    relation INTEGER NOT NULL,
    tail INTEGER NOT NULL,
    snapshot INTEGER NOT NULL,
    split INTEGER NOT NULL,  -- 0 train, 1 valid, 2 test
    place INTEGER NOT NULL,  -- order of arrival
    PRIMARY KEY (head, relation, tail)
) WITHOUT ROWID;
CREATE INDEX facts_by_snapshot ON facts (snapshot, split, place);
CREATE INDEX facts_by_tail ON facts (tail);
CREATE TABLE learned (snapshot INTEGER NOT NULL, part INTEGER NOT NULL, data BLOB NOT NULL,
    PRIMARY KEY (snapshot, part));
"""


def connect(file: Path, create: bool = False) -> sqlite3.Connection:
    """A connection in which nothing is committed but by `transaction`. Raises `BadInput` for a file of another kind.

    In a folder that cannot be written to, a graph can still be read."""
    new = not file.exists()
    if new and not create:
        raise BadInput(f"{file.parent}: no graph there")
    try:
        given: dict[str, Any] = {"isolation_level": None, "timeout": 60, "check_same_thread": False}
        if new or os.access(file.parent, os.W_OK):
            connection = sqlite3.connect(file, **given)
        else:
            # A log beside it, which a stop left, is part of the graph; else SQLite must be told not to begin one.
            log = file.with_name(f"{file.name}-wal").exists()
            how = "mode=ro" if log else "immutable=1"
            connection = sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True, **given)
        # Without a transaction, so that a reader need not wait for a writer.
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            connection.execute("PRAGMA journal_mode = WAL")
            with transaction(connection):
                if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    for statement in TABLES.split(";\n"):
                        connection.execute(statement)
                    connection.execute("INSERT INTO meta VALUES ('version', ?)", (str(VERSION),))
        connection.execute("PRAGMA synchronous = NORMAL")
        row = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
        if row is None:
            raise sqlite3.DatabaseError("it has no version")
    except sqlite3.DatabaseError as error:
        raise BadInput(f"{file}: not a graph that Intarsia made: {error}") from None
    if row[0] != str(VERSION):
        raise BadInput(f"{file}: layout {row[0]}, this version reads {VERSION}")
    return connection


def transaction(connection: sqlite3.Connection) -> AbstractContextManager[None]:
    """All of the body or nothing of it."""
    return sqlite.transaction(connection, "the graph")


def put_blob(connection: sqlite3.Connection, snapshot: int, data: bytes) -> None:
    """Replace the blob of a snapshot, inside a transaction."""
    connection.execute("DELETE FROM learned WHERE snapshot = ?", (snapshot,))
    view = memoryview(data)
    for part, start in enumerate(range(0, len(data), PART)):
        connection.execute("INSERT INTO learned VALUES (?, ?, ?)", (snapshot, part, view[start : start + PART]))


def get_blob(connection: sqlite3.Connection, snapshot: int) -> bytes | None:
    """The blob of a snapshot, or None."""
    rows = connection.execute("SELECT data FROM learned WHERE snapshot = ? ORDER BY part", (snapshot,)).fetchall()
    return b"".join(row[0] for row in rows) if rows else None
