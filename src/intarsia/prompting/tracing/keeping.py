"""Keeping a file of traces small: how large it is, and what goes first."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from intarsia.errors import BadInput, IntarsiaError, is_disk_full
from intarsia.prompting.tracing.database import connect, default_path
from intarsia.prompting.tracing.reading import Trace

AT_WORK = 60.0  # seconds: a trace that was written to so lately may be at work still


def size(path: Path | str | None = None) -> int:
    """Bytes on disk, those that are not merged into the file yet included."""
    file = Path(path).expanduser() if path is not None else default_path()
    files = (file, file.with_name(file.name + "-wal"))
    return sum(f.stat().st_size for f in files if f.exists())


def remove(
    path: Path | str | None = None, ids: Sequence[str] = (), *, older: float | None = None, most: int | None = None
) -> list[Trace]:
    """Remove traces for good; returns which.

    - ids: beginnings of ids. older: those not written to for so many seconds. most: the oldest ones, until the file has
      no more bytes than this. Those that may be at work are left, unless named by id.

    Raises `BadInput` for an id that is not there, before anything is removed."""
    file = Path(path).expanduser() if path is not None else default_path()
    named = [Trace.open(file, id) for id in ids]
    if not ids and older is None and most is None:
        raise BadInput("say which traces are to go: ids, how old, or how large the file may be")
    gone: dict[str, Trace] = {t.id: t for t in named}
    with closing(connect(file)) as connection:
        rows = connection.execute(
            "SELECT t.id, t.name, t.begun, coalesce(max(e.time), t.begun) AS last FROM traces t "
            "LEFT JOIN events e ON e.trace = t.id GROUP BY t.id ORDER BY last"
        ).fetchall()
        now = time.time()
        idle = [(Trace(file, *row[:3]), row[3]) for row in rows if now - row[3] > AT_WORK]
        if older is not None:
            gone |= {t.id: t for t, last in idle if now - last > older}
        _delete(connection, list(gone))
        if most is not None:
            for t, _ in idle:
                if _used(connection) <= most:
                    break
                if t.id not in gone:
                    _delete(connection, [t.id])
                    gone[t.id] = t
        if gone:
            _shrink(connection)
    return list(gone.values())


def _used(connection: sqlite3.Connection) -> int:
    """Bytes of pages that hold something."""
    pages, free, each = (connection.execute(f"PRAGMA {name}").fetchone()[0] for name in
                         ("page_count", "freelist_count", "page_size"))  # fmt: skip
    return (pages - free) * each


def _delete(connection: sqlite3.Connection, ids: list[str]) -> None:
    from intarsia.data.sqlite import transaction

    with transaction(connection, "the traces"):
        connection.executemany("DELETE FROM events WHERE trace = ?", [(id,) for id in ids])
        connection.executemany("DELETE FROM traces WHERE id = ?", [(id,) for id in ids])


def _shrink(connection: sqlite3.Connection) -> None:
    """Give the space back to the disk; where another process is writing, it is given back another time."""
    try:
        connection.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after the first page
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except sqlite3.OperationalError as error:
        if is_disk_full(error):
            raise IntarsiaError(
                f"the disk is full: the traces are removed, their space is not free yet ({error})"
            ) from None
