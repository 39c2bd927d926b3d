"""The folder of a store, as the modules of this package work on it: connections, locks, the encoder, what is held in
memory."""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from intarsia.data.sqlite import transaction
from intarsia.errors import BadInput, writing_to
from intarsia.prompting.data.documents import SourceDocument
from intarsia.prompting.data.splitting import split
from intarsia.prompting.data.store import rewriting, vectors
from intarsia.prompting.data.store.database import NAME, connect, note, noted
from intarsia.prompting.data.store.encoders import AUTO, DEFAULT, Encoder, encoder_of

if TYPE_CHECKING:
    from intarsia.prompting.data.store.edges import Facts


@dataclass(frozen=True, eq=False)
class State:
    """What a reader holds of a store as of one change: its vectors, and the places of those that chunks have."""

    change: int
    matrix: vectors.Matrix
    live: vectors.Array


class StoreFolder:
    """What `Store` stands on."""

    def __init__(self, path: Path, given: Any, size: int, overlap: int):
        self.path, self.size, self.overlap = path, size, overlap
        self._given, self._encoder = given, given if isinstance(given, Encoder) else None
        self._local, self._open = threading.local(), []
        self._lock = threading.RLock()
        self._state: State | None = None
        self._facts: Facts | None = None
        self.encoder_note: dict[str, Any] | None = None  # what is to be noted with the first vectors

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return str(self.path)

    def close(self) -> None:
        """Let go of the files."""
        with self._lock:
            for connection in self._open:
                connection.close()
            self._open, self._local, self._state = [], threading.local(), None

    @property
    def connection(self) -> sqlite3.Connection:
        """This thread's."""
        if not hasattr(self._local, "connection"):
            self._local.connection = connect(self.path)
            with self._lock:
                self._open.append(self._local.connection)
        return self._local.connection

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """One state of the store, whatever is written meanwhile."""
        connection = self.connection
        if connection.in_transaction:
            yield connection
            return
        connection.execute("BEGIN")
        try:
            yield connection
        finally:
            connection.execute("COMMIT")

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Only one process and thread at a time. Raises `BadInput` when another one is at it."""
        from filelock import FileLock, Timeout

        with self._lock:
            try:
                with writing_to(self.path):
                    lock = FileLock(self.path / ".lock", timeout=1)
                    lock.acquire()
            except Timeout:
                raise BadInput(f"{self.path}: another process is writing to this store; wait for it") from None
            try:
                rewriting.tidy(self)
                yield
            finally:
                lock.release()

    def _tidy(self) -> None:
        """Cut off what a stop left, where nobody is writing and this may be done."""
        from filelock import FileLock, Timeout

        try:
            with FileLock(self.path / ".lock", timeout=0):
                rewriting.tidy(self)
        except (Timeout, OSError):
            return

    @property
    def has_vectors(self) -> bool:
        """Whether it is searched by vectors too: it was made with an encoder, and not opened without."""
        return self._given is not None

    @property
    def encoder_name(self) -> str | None:
        """What its vectors are by; None: it has none."""
        has = noted(self.connection, "encoder")
        return None if has is None else has["name"]

    @property
    def bytes(self) -> int:
        """What its files take on the disk."""
        return sum(file.stat().st_size for file in self.path.iterdir())

    @property
    def encoder(self) -> Encoder:
        """What embeds here, loaded at the first call. Raises `BadInput` where it is not the one the store was made
        with."""
        with self._lock:
            if self._encoder is None:
                if self._given is None:
                    raise BadInput(f"{self.path}: is opened without an encoder")
                self._encoder = _same(self.path, encoder_of(self._given), noted(self.connection, "encoder"))
            return self._encoder

    @property
    def tokenizer(self) -> Any:
        """What chunks are measured by: the encoder's tokenizer, if it tells offsets, else an estimate (None)."""
        if noted(self.connection, "encoder") is not None and not self.has_vectors:
            raise BadInput(
                f"{self.path}: has vectors, and is opened without an encoder: it can be searched, not added to"
            )
        found = self.encoder.tokenizer if self.has_vectors else None
        return found if getattr(found, "is_fast", False) else None

    def embed(self, texts: Sequence[str]) -> vectors.Array:
        """[text, width] float32."""
        rows = self.encoder.vectors(texts)
        has = noted(self.connection, "encoder")
        if has["width"] not in (None, rows.shape[1]):
            raise BadInput(f"{self.path}: has vectors of width {has['width']}, the encoder gives {rows.shape[1]}")
        self.encoder_note = {"name": self.encoder.name, "fingerprint": self.encoder.fingerprint, "width": rows.shape[1]}
        return rows

    def vectors_file(self) -> Path:
        """Where vectors are now."""
        return vectors.file_of(self.path, noted(self.connection, "generation", 0))

    def state(self, connection: sqlite3.Connection) -> State:
        """The vectors as of the state a connection reads."""
        change = noted(connection, "change", 0)
        with self._lock:
            if self._state is None or self._state.change != change:
                width = (noted(connection, "encoder") or {}).get("width") or 0
                file = vectors.file_of(self.path, noted(connection, "generation", 0))
                matrix = vectors.Matrix(file, noted(connection, "rows", 0), width)
                rows = connection.execute("SELECT place FROM vectors ORDER BY place")
                self._state = State(change, matrix, np.fromiter((row[0] for row in rows), np.int64))
            return self._state


def begin(connection: sqlite3.Connection, encoder: Any, size: int, overlap: int) -> None:
    """Note how a new store is made."""
    split(SourceDocument("", "none"), size, overlap)  # which says what is wrong with them
    given = DEFAULT if encoder == AUTO else encoder
    name = given if given is None or isinstance(given, str) else encoder_of(given).name
    with transaction(connection, NAME):
        if noted(connection, "size") is None:
            made = None if given is None else {"name": name, "fingerprint": None, "width": None}
            note(connection, size=size, overlap=overlap, encoder=made, generation=0, rows=0, change=0)


def checked_encoder(path: Path, connection: sqlite3.Connection, given: Any) -> Any:
    """The encoder to work with: a name that is loaded later, an `Encoder` that is the store's, or None."""
    has = noted(connection, "encoder")
    if isinstance(given, str) and given == AUTO:
        return None if has is None else has["name"]
    if given is None or (has is not None and given == has["name"]):
        return given
    if has is None:
        raise BadInput(f"{path}: was made without an encoder: give it vectors with `intarsia store reembed {path}`")
    return _same(path, encoder_of(given), has)


def _same(path: Path, encoder: Encoder, has: dict[str, Any]) -> Encoder:
    if has["fingerprint"] not in (None, encoder.fingerprint):
        raise BadInput(
            f"{path}: its vectors are by {has['name']}, and {encoder.name} would give others: open it with that one, "
            "or make them anew: `intarsia store reembed`"
        )
    return encoder
