"""Documents into a store: only what is new is divided and embedded.

A document is known by its source, and is the same where its hash is. A chunk is known by the hash of what is embedded
of it, so that of a changed document only changed chunks are embedded again, and what two documents share is so once.

Each batch is written in two steps: its vectors behind all others, on the disk; then, in one transaction, its rows,
which name them. A stop between the two leaves vectors that nothing names, and the next writer cuts them off."""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.data.sqlite import transaction
from intarsia.errors import BadInput
from intarsia.progress import track
from intarsia.prompting.data.documents import Chunk, SourceDocument, headed
from intarsia.prompting.data.splitting import split
from intarsia.prompting.data.store import vectors
from intarsia.prompting.data.store.database import NAME, changed, note, noted
from intarsia.prompting.data.store.words import indexed, storable

if TYPE_CHECKING:
    from intarsia.prompting.data.store.store import Store

BATCH = 512  # chunks that are embedded and written together


@dataclass(frozen=True)
class Added:
    """What came of documents that were added. chunks: of those that are new or changed; embedded: of these, those that
    no vector was there for."""

    new: int = 0
    changed: int = 0
    unchanged: int = 0
    removed: int = 0
    chunks: int = 0
    embedded: int = 0

    def __add__(self, other: Added) -> Added:
        return Added(*(getattr(self, f) + getattr(other, f) for f in self.__dataclass_fields__))


def key_of(chunk: Chunk, title: str) -> bytes:
    """What a chunk's vector goes by."""
    return hashlib.sha256(chunk.with_headings(title).encode("utf-8", "surrogatepass")).digest()[:16]


def add(
    store: Store, documents: Iterable[SourceDocument], metadata: Mapping[str, Any], origin: str, remove_missing: bool
) -> Added:
    """Add documents that come one by one. Called while the store is being written to."""
    total, seen, waiting, size = Added(), set(), [], 0
    facts: dict[str, float | str] = {}
    for given in track(documents, "adding documents", facts=facts):
        document = storable_document(replace(given, metadata={**given.metadata, **metadata}))
        if document.source in seen:
            raise BadInput(f"{document.source}: two documents of one source: give each its own")
        seen.add(document.source)
        row = store.connection.execute(
            "SELECT id, sha256 FROM documents WHERE source = ?", (document.source,)
        ).fetchone()
        if row is not None and row[1] == document.sha256:
            total += Added(unchanged=1)
            continue
        waiting.append((document, split(document, store.size, store.overlap, tokenizer=store.tokenizer)))
        size += len(waiting[-1][1])
        if size >= BATCH:
            total, waiting, size = total + _write(store, waiting, origin), [], 0
            facts["chunks"] = total.chunks
    total += _write(store, waiting, origin)
    if remove_missing:
        total += Added(removed=remove(store, _missing(store, seen, origin)))
    return total


def storable_document(document: SourceDocument) -> SourceDocument:
    """The document with a text that SQLite can hold, character by character. Raises `BadInput` for metadata that is
    more than plain values and lists of them, and for a document without a source."""
    if not document.source:
        raise BadInput("a document without a source: what an answer cites must have a name")
    for name, value in document.metadata.items():
        items = value if isinstance(value, list | tuple) else [value]
        if not all(item is None or isinstance(item, str | int | float | bool) for item in items):
            raise BadInput(f"{document.source}: metadata '{name}' must be a plain value or a list of such: {value!r}")
    text = storable(document.text)
    return document if text == document.text else replace(document, text=text)


def _write(store: Store, documents: list[tuple[SourceDocument, list[Chunk]]], origin: str) -> Added:
    """One batch, in one transaction."""
    if not documents:
        return Added()
    connection = store.connection
    texts = {
        key_of(chunk, document.title): chunk.with_headings(document.title)
        for document, chunks in documents
        for chunk in chunks
    }
    places = embedded(store, texts)
    new, loose = 0, set()
    with transaction(connection, NAME):
        if places:
            connection.executemany("INSERT INTO vectors VALUES (?, ?)", places.items())
            note(connection, rows=noted(connection, "rows", 0) + len(places), encoder=store.encoder_note)
        for document, chunks in documents:
            had = _delete(connection, document.source)
            new += had is None
            loose |= had or set()
            _insert(connection, document, chunks, origin)
        _bury(connection, loose)
        changed(connection)
    count = sum(len(chunks) for _, chunks in documents)
    return Added(new=new, changed=len(documents) - new, chunks=count, embedded=len(places))


def embedded(store: Store, texts: Mapping[bytes, str]) -> dict[bytes, int]:
    """Embed what has no vector yet, behind all that is there: the places, not yet named by any row."""
    if not store.has_vectors:
        return {}
    have = {row[0] for row in _rows_with(store.connection, "SELECT hash FROM vectors WHERE hash IN", list(texts))}
    missing = [key for key in texts if key not in have]
    if not missing:
        return {}
    rows = store.embed([texts[key] for key in missing])
    place = noted(store.connection, "rows", 0)
    vectors.append(store.vectors_file(), rows, place)
    return {key: place + i for i, key in enumerate(missing)}


def _rows_with(connection: sqlite3.Connection, query: str, values: list[Any]) -> list[Any]:
    out: list[Any] = []
    for start in range(0, len(values), 500):
        some = values[start : start + 500]
        out += connection.execute(f"{query} ({', '.join('?' * len(some))})", some).fetchall()
    return out


def _insert(connection: sqlite3.Connection, document: SourceDocument, chunks: list[Chunk], origin: str) -> None:
    metadata = json.dumps(dict(document.metadata), ensure_ascii=True)
    row = connection.execute(
        "INSERT INTO documents (source, title, text, metadata, media, hidden, sha256, origin) VALUES (?,?,?,?,?,?,?,?)",
        (document.source, storable(document.title), document.text, metadata, document.media, document.hidden,
         document.sha256, origin),
    )  # fmt: skip
    for chunk in chunks:
        made = connection.execute(
            "INSERT INTO chunks (document, start, end, path, anchor, tokens, hash) VALUES (?, ?, ?, ?, ?, ?, ?)",
            (row.lastrowid, chunk.start, chunk.end, json.dumps(chunk.path), chunk.anchor, chunk.tokens,
             key_of(chunk, document.title)),
        )  # fmt: skip
        connection.execute(
            "INSERT INTO words (rowid, heading, body) VALUES (?, ?, ?)",
            (made.lastrowid, indexed(headed(document.title, chunk.path)), indexed(chunk.text)),
        )


def _delete(connection: sqlite3.Connection, source: str) -> set[bytes] | None:
    """Take away a document's rows, and give what its chunks' vectors go by; None where it was not there."""
    row = connection.execute("SELECT id FROM documents WHERE source = ?", (source,)).fetchone()
    if row is None:
        return None
    keys = {key for (key,) in connection.execute("SELECT hash FROM chunks WHERE document = ?", row)}
    connection.execute("DELETE FROM words WHERE rowid IN (SELECT id FROM chunks WHERE document = ?)", row)
    connection.execute("DELETE FROM chunks WHERE document = ?", row)
    connection.execute("DELETE FROM documents WHERE id = ?", row)
    return keys


def _bury(connection: sqlite3.Connection, keys: Iterable[bytes]) -> None:
    """Forget those vectors that no chunk has any more: their rows in the file are dead."""
    connection.executemany(
        "DELETE FROM vectors WHERE hash = ?1 AND NOT EXISTS (SELECT 1 FROM chunks WHERE hash = ?1)",
        [(key,) for key in keys],
    )


def remove(store: Store, sources: list[str]) -> int:
    """Take documents away; how many were there."""
    if not sources:
        return 0
    with transaction(store.connection, NAME):
        gone = [keys for source in sources if (keys := _delete(store.connection, source)) is not None]
        _bury(store.connection, set().union(*gone))
        changed(store.connection)
    return len(gone)


def _missing(store: Store, seen: set[str], origin: str) -> list[str]:
    """Documents of an earlier call with the same origin that did not come again. A file that is still there, and of
    which nothing could be read this time, has not gone."""
    files = {source.partition("#")[0] for source in seen}
    rows = store.connection.execute("SELECT source FROM documents WHERE origin = ? ORDER BY id", (origin,))
    gone = [row[0] for row in rows if row[0] not in seen]
    return [s for s in gone if (file := s.partition("#")[0]) in files or not Path(file).exists()]
