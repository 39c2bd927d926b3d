"""What everything that keeps rows in SQLite shares: a transaction whose failures are told in one line."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from intarsia.errors import BadInput, IntarsiaError, is_disk_full


@contextmanager
def transaction(connection: sqlite3.Connection, what: str) -> Iterator[None]:
    """All of the body or nothing of it, on a connection that commits nothing by itself (`isolation_level=None`).

    - what: is called so in messages (`the graph`)."""
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException as error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        if isinstance(error, sqlite3.OperationalError) and ("full" in str(error) or is_disk_full(error)):
            raise IntarsiaError(f"the disk is full: nothing of this step was kept ({error})") from None
        if isinstance(error, sqlite3.OperationalError) and "readonly" in str(error):
            raise BadInput(f"{what}'s folder cannot be written to: give a folder that can") from None
        raise
