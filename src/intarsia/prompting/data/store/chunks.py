"""What a store holds of chunks by their ids: texts, documents, vectors; and how rare their words are."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from math import log
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from intarsia.prompting.data.store.store import Store

Array = np.ndarray[Any, Any]


def rows_of(connection: sqlite3.Connection, chunks: list[int]) -> list[tuple[int, Any]]:
    """Chunks with their documents, in the order given."""
    rows = connection.execute(
        "SELECT c.id, substr(d.text, c.start + 1, c.end - c.start), d.source, d.title, c.path, c.anchor, c.start, "
        "c.end, d.metadata FROM chunks c JOIN documents d ON d.id = c.document "
        "WHERE c.id IN (SELECT value FROM json_each(?))",
        (json.dumps(chunks),),
    )
    found = {row[0]: row[1:] for row in rows}
    return [(chunk, found[chunk]) for chunk in chunks]


def documents_of(connection: sqlite3.Connection, chunks: list[int]) -> dict[int, int]:
    """The document of each chunk."""
    rows = connection.execute(
        "SELECT id, document FROM chunks WHERE id IN (SELECT value FROM json_each(?))", (json.dumps(chunks),)
    )
    return dict(rows.fetchall())


def vectors_of(store: Store, connection: sqlite3.Connection, chunks: list[int]) -> Array:
    """[chunk, width] float32."""
    rows = dict(
        connection.execute(
            "SELECT c.id, v.place FROM chunks c JOIN vectors v ON v.hash = c.hash "
            "WHERE c.id IN (SELECT value FROM json_each(?))",
            (json.dumps(chunks),),
        ).fetchall()
    )
    return store.state(connection).matrix.take(np.array([rows[chunk] for chunk in chunks], np.int64))


def rarity(connection: sqlite3.Connection, words: Sequence[str]) -> dict[str, float]:
    """How much each word tells here: log(1 + chunks / (1 + chunks with it)), of folded words (`telling`)."""
    chunks = connection.execute("SELECT count(*) FROM chunks").fetchone()[0]
    found = {}
    for word in dict.fromkeys(words):
        row = connection.execute("SELECT count(*) FROM words WHERE words MATCH ?", (f'"{word}"',)).fetchone()
        found[word] = log(1 + chunks / (1 + row[0]))
    return found
