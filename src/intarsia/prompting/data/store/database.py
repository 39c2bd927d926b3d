"""The SQLite file of a store: its tables, and what is noted about all of them."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput

FILE = "rows.sqlite"
VERSION = 1
NAME = "the store"  # in messages
TOKENIZE = "porter unicode61 remove_diacritics 2 categories 'L* N* M* Co' tokenchars '_.'"
"""Of the words' index. What it is given is divided already (`words.py`); it folds accents and English endings."""

TABLES = f"""
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE documents (
    id INTEGER PRIMARY KEY,
    source TEXT NOT NULL UNIQUE,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    metadata TEXT NOT NULL,   -- a JSON object
    media TEXT NOT NULL,
    hidden INTEGER NOT NULL,
    sha256 TEXT NOT NULL,
    origin TEXT NOT NULL,     -- what was given to `add`, by which what is missing is found
    added TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
);
CREATE TABLE chunks (
    id INTEGER PRIMARY KEY,
    document INTEGER NOT NULL REFERENCES documents (id),
    start INTEGER NOT NULL,   -- characters of the document's text
    end INTEGER NOT NULL,
    path TEXT NOT NULL,       -- a JSON list of headings
    anchor TEXT NOT NULL,
    tokens INTEGER NOT NULL,
    hash BLOB NOT NULL        -- of what is embedded: the key of its vector
);
CREATE INDEX chunks_by_document ON chunks (document);
CREATE INDEX chunks_by_hash ON chunks (hash);
CREATE TABLE vectors (hash BLOB PRIMARY KEY, place INTEGER NOT NULL UNIQUE) WITHOUT ROWID;
CREATE VIRTUAL TABLE words USING fts5 (heading, body, tokenize="{TOKENIZE}");
CREATE TABLE edges (
    id INTEGER PRIMARY KEY,
    head TEXT NOT NULL,
    relation TEXT NOT NULL,
    tail TEXT NOT NULL,
    source TEXT NOT NULL,
    confidence REAL,          -- NULL: known
    UNIQUE (head, relation, tail)
);
CREATE INDEX edges_by_tail ON edges (tail);
CREATE TABLE about (name TEXT PRIMARY KEY, text TEXT NOT NULL) WITHOUT ROWID;
"""


def connect(folder: Path, create: bool = False) -> sqlite3.Connection:
    """A connection in which nothing is committed but by `transaction`. Raises `BadInput` for a file of another kind.

    In a folder that cannot be written to, a store can still be searched."""
    file = folder / FILE
    new = not file.exists()
    if new and not create:
        raise BadInput(f"{folder}: no store there; `intarsia store add {folder} SOURCE` makes one")
    given: dict[str, Any] = {"isolation_level": None, "timeout": 60, "check_same_thread": False}
    try:
        if new or os.access(folder, os.W_OK):
            connection = sqlite3.connect(file, **given)
        else:
            # A log beside it, which a stop left, is part of the store; else SQLite must be told not to begin one.
            how = "mode=ro" if file.with_name(f"{FILE}-wal").exists() else "immutable=1"
            connection = sqlite3.connect(f"{file.absolute().as_uri()}?{how}", uri=True, **given)
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("BEGIN IMMEDIATE")
            if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                for statement in TABLES.split(";\n"):
                    connection.execute(statement)
                connection.execute("INSERT INTO meta VALUES ('version', ?)", (json.dumps(VERSION),))
            connection.execute("COMMIT")
        connection.execute("PRAGMA synchronous = NORMAL")
        version = noted(connection, "version")
    except sqlite3.DatabaseError as error:
        raise BadInput(f"{file}: not a store that Intarsia made: {error}") from None
    if version != VERSION:
        raise BadInput(f"{file}: layout {version}, this version reads {VERSION}: add the sources to a new store")
    return connection


def noted(connection: sqlite3.Connection, key: str, default: Any = None) -> Any:
    """A value that was noted."""
    row = connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
    return default if row is None else json.loads(row[0])


def note(connection: sqlite3.Connection, **values: Any) -> None:
    """Note values, inside a transaction."""
    rows = [(key, json.dumps(value)) for key, value in values.items()]
    connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", rows)


def changed(connection: sqlite3.Connection) -> None:
    """Tell readers, inside a transaction, that what they hold in memory is old."""
    note(connection, change=noted(connection, "change", 0) + 1)
