"""The SQLite file of traces: where it lies, its tables, and connections that several processes may hold at once."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from intarsia.errors import BadInput, IntarsiaError
from intarsia.models.cache import cache_dir, disk_errors

VERSION = 1
TABLES = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE traces (id TEXT PRIMARY KEY, name TEXT NOT NULL, begun REAL NOT NULL, facts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE events (
    number INTEGER PRIMARY KEY,
    trace TEXT NOT NULL,
    run INTEGER NOT NULL,   -- how often the trace was gone on with when this was written
    id TEXT NOT NULL,       -- of the step: equal in each run in which it is the same step
    parent TEXT NOT NULL,   -- '' for the trace itself
    phase TEXT NOT NULL,    -- begin, end, again (an end of an earlier run was taken)
    time REAL NOT NULL,     -- seconds since 1970
    kind TEXT NOT NULL,
    name TEXT NOT NULL,
    hash TEXT NOT NULL,     -- of the input, before anything was redacted
    code TEXT NOT NULL,     -- of the source of what ran; '' where it has none
    value TEXT,             -- begin: the input; end: the output
    redacted INTEGER NOT NULL DEFAULT 0,
    seconds REAL,
    usage TEXT,             -- tokens by kind
    cost REAL,
    error TEXT,
    place TEXT,             -- file:line of the error
    facts TEXT
);
CREATE INDEX events_by_step ON events (trace, id, phase);
"""


def default_path() -> Path:
    """`INTARSIA_TRACE`, if it is a path; else `traces.sqlite` in Intarsia's cache folder."""
    given = os.environ.get("INTARSIA_TRACE", "")
    if given and not switched_off():
        return Path(given).expanduser().absolute()
    return cache_dir() / "traces.sqlite"


def switched_off() -> bool:
    """Whether `INTARSIA_TRACE=off` says that nothing is to be recorded, whatever a program asks for."""
    return os.environ.get("INTARSIA_TRACE", "").strip().lower() in ("off", "0", "no", "false")


def connect(file: Path, create: bool = False) -> sqlite3.Connection:
    """A connection in which each statement is committed at once; several processes may write to one file.

    Raises `BadInput` for a file that is absent, of another kind or of a newer version."""
    new = not file.exists()
    if new and not create:
        raise BadInput(f"{file}: no traces there; INTARSIA_TRACE or --path says where they are")
    with disk_errors(file):
        if new:
            file.parent.mkdir(parents=True, exist_ok=True)
            # What people ask a model is theirs: nobody else on the machine reads it.
            os.close(os.open(file, os.O_CREAT | os.O_RDWR, 0o600))
        try:
            connection = sqlite3.connect(file, isolation_level=None, timeout=60, check_same_thread=False)
            _prepare(connection)
            row = None
            if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'events'").fetchone():
                row = connection.execute("SELECT value FROM meta WHERE key = 'version'").fetchone()
            if row is None:
                raise sqlite3.DatabaseError("it has no version")
        except sqlite3.OperationalError as error:
            raise IntarsiaError(f"{file}: {error}") from None
        except sqlite3.DatabaseError as error:
            raise BadInput(f"{file}: no file of traces that Intarsia made ({error})") from None
    if int(row[0]) > VERSION:
        raise BadInput(f"{file}: layout {row[0]} of a newer Intarsia; this one reads up to {VERSION}: update it")
    return connection


def _prepare(connection: sqlite3.Connection) -> None:
    if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():
        connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("BEGIN IMMEDIATE")
        if not connection.execute("SELECT 1 FROM sqlite_master").fetchone():  # another process may have been quicker
            for statement in TABLES.split(";\n"):
                connection.execute(statement)
            connection.execute("INSERT INTO meta VALUES ('version', ?)", (str(VERSION),))
        connection.execute("COMMIT")
    # A killed process loses nothing; a power cut may cost the last rows, never the file.
    connection.execute("PRAGMA synchronous = NORMAL")
