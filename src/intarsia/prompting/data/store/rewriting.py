"""A store's vectors written anew: without dead rows, or by another encoder. Readers go on with the old file."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.data.sqlite import transaction
from intarsia.progress import track
from intarsia.prompting.data.store import vectors
from intarsia.prompting.data.store.database import NAME, changed, note, noted

if TYPE_CHECKING:
    from intarsia.prompting.data.store.encoders import Encoder
    from intarsia.prompting.data.store.store import Store

WORTH = 1000  # dead rows that a file may have at least, and a quarter of all
BATCH = 2048


def tidy(store: Store) -> None:
    """Cut off vectors that no row names, and take away files that a stop left. Called while nobody else writes."""
    connection = store.connection
    current = store.vectors_file()
    for file in store.path.glob("vectors*.f16"):
        if file != current:
            file.unlink(missing_ok=True)
    if has := noted(connection, "encoder"):
        vectors.cut(current, noted(connection, "rows", 0), has["width"] or 1)


def compact_if_worth(store: Store) -> bool:
    """Write the vectors anew where many rows are dead; whether that was so."""
    rows = noted(store.connection, "rows", 0)
    dead = rows - store.connection.execute("SELECT count(*) FROM vectors").fetchone()[0]
    if dead < WORTH or dead * 4 < rows:
        return False
    compact(store)
    return True


def compact(store: Store) -> None:
    """Write the vectors anew without dead rows. Called while the store is being written to."""
    connection = store.connection
    keys = connection.execute("SELECT hash, place FROM vectors ORDER BY place").fetchall()
    matrix = store.state(connection).matrix
    new = _next(store)
    for start in range(0, len(keys), BATCH):
        vectors.append(new, matrix.take(np.array([place for _, place in keys[start : start + BATCH]])), start)
    _switch(store, [key for key, _ in keys], {})
    connection.execute("VACUUM")  # rows that are gone take room as well
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def reembed(store: Store, encoder: Encoder | None) -> int:
    """Make all vectors anew, by an encoder; by None, take them away. Their number. Called while the store is being
    written to; a stop leaves the old ones."""
    from intarsia.prompting.data.documents import headed

    connection = store.connection
    made: dict[str, Any] | None = None
    keys: list[bytes] = []
    if encoder is not None:
        made = {"name": encoder.name, "fingerprint": encoder.fingerprint, "width": None}
        new = _next(store)
        import json

        rows = connection.execute(
            "SELECT c.hash, substr(d.text, c.start + 1, c.end - c.start), d.title, c.path FROM chunks c "
            "JOIN documents d ON d.id = c.document GROUP BY c.hash ORDER BY min(c.id)"
        ).fetchall()
        for start in track(range(0, len(rows), BATCH), "embedding again"):
            some = rows[start : start + BATCH]
            texts = [f"{headed(title, tuple(json.loads(path)))}\n{text}".lstrip("\n") for _, text, title, path in some]
            found = encoder.vectors(texts)
            made["width"] = found.shape[1]
            vectors.append(new, found, start)
            keys += [row[0] for row in some]
    _switch(store, keys, {"encoder": made})
    return len(keys)


def _next(store: Store) -> Any:
    file = vectors.file_of(store.path, noted(store.connection, "generation", 0) + 1)
    file.unlink(missing_ok=True)
    return file


def _switch(store: Store, keys: list[bytes], notes: dict[str, Any]) -> None:
    """From now on the next file counts. The old one goes; who has it open keeps it."""
    connection, old = store.connection, store.vectors_file()
    with transaction(connection, NAME):
        connection.execute("DELETE FROM vectors")
        connection.executemany("INSERT INTO vectors VALUES (?, ?)", [(key, place) for place, key in enumerate(keys)])
        note(connection, generation=noted(connection, "generation", 0) + 1, rows=len(keys), **notes)
        changed(connection)
    old.unlink(missing_ok=True)
