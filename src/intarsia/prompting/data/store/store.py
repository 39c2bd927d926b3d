"""`Store`: one folder with documents, their chunks, vectors and words, and facts; and the search over them."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from intarsia.data.sqlite import transaction
from intarsia.errors import BadInput, writing_to
from intarsia.prompting.data.documents import Section, SourceDocument
from intarsia.prompting.data.splitting import OVERLAP, SIZE
from intarsia.prompting.data.store import adding, rewriting, vectors
from intarsia.prompting.data.store.adding import Added
from intarsia.prompting.data.store.database import FILE, connect, note, noted
from intarsia.prompting.data.store.encoders import DEFAULT, Encoder, encoder_of
from intarsia.prompting.data.store.filters import Where
from intarsia.prompting.data.store.found import Found
from intarsia.prompting.data.store.searching import CANDIDATES, Mode, Rerank, Search, search_many

AUTO = "auto"


@dataclass(frozen=True)
class Stored:
    """A document as `Store.documents` tells it. hidden: pieces that no person would have seen, left out."""

    source: str
    title: str
    metadata: Mapping[str, Any]
    media: str
    characters: int
    chunks: int
    hidden: int
    added: str


@dataclass(frozen=True, eq=False)
class State:
    """What a reader holds of a store as of one change: its vectors, and the places of those that chunks have."""

    change: int
    matrix: vectors.Matrix
    live: vectors.Array


class Store:
    """A folder that holds what answers are drawn from: `rows.sqlite` and `vectors.f16`.

        store = Store.open("handbook")                     # the folder need not be there yet
        store.add("docs/")                                 # again later: only what changed is read anew
        found = store.search("How long is the warranty?", k=5, where={"product": "kettle"})
        print(found.context(800))

    Safe for one writer and many readers at a time, of any process and thread. What `add` has done is kept batch by
    batch; after a stop at any point the same call goes on."""

    def __init__(self, path: Path, given: Any, size: int, overlap: int):
        self.path, self.size, self.overlap = path, size, overlap
        self._given, self._encoder = given, given if isinstance(given, Encoder) else None
        self._local, self._open = threading.local(), []
        self._lock = threading.RLock()
        self._state: State | None = None
        self.encoder_note: dict[str, Any] | None = None  # what is to be noted with the first vectors

    @staticmethod
    def open(
        path: str | Path, encoder: Any = AUTO, *, create: bool = True, size: int | None = None,
        overlap: int | None = None,
    ) -> Store:  # fmt: skip
        """The store of a folder, which is made where there is none (unless `create` is False).

        - encoder: a model's name, a `Model`, a `Backend`, or a function from texts to rows; None: words alone; `auto`:
          the one the store was made with, `minilm` for a new one. It is loaded when it is first needed.
        - size, overlap: tokens of a chunk and of what it shares with the one before; fixed when the store is made.

        Raises `BadInput` for a folder with other things in it, and for another encoder than the store was made with:
        its vectors would mean something else; `reembed` changes it."""
        path = Path(path).expanduser()
        if not (path / FILE).is_file():
            if not create:
                raise BadInput(f"{path}: no store there; `intarsia store add {path} SOURCE` makes one")
            if path.is_file() or (path.is_dir() and any(p.name != ".lock" for p in path.iterdir())):
                raise BadInput(f"{path}: holds other things: a store wants a folder of its own")
            with writing_to(path):
                path.mkdir(parents=True, exist_ok=True)
        connection = connect(path, create=True)
        try:
            if noted(connection, "size") is None:
                _begin(connection, encoder, size or SIZE, OVERLAP if overlap is None else overlap)
            made = noted(connection, "size"), noted(connection, "overlap")
            for name, given, has in (("size", size, made[0]), ("overlap", overlap, made[1])):
                if given is not None and given != has:
                    raise BadInput(f"{path}: was made with {name} {has}, given: {given}; make another store")
            store = Store(path, _checked(path, connection, encoder), *made)
        finally:
            connection.close()
        store._tidy()
        return store

    def __enter__(self) -> Store:
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

    # ---- documents

    def add(
        self, source: str | Path | SourceDocument | Iterable[SourceDocument], *,
        where: Mapping[str, Any] | None = None, remove_missing: bool = False, **options: Any,
    ) -> Added:  # fmt: skip
        """Add documents, or bring them up to date: what did not change is passed over.

        - source: whatever `load_documents` reads, with its `options`; or documents.
        - where: metadata that all of them get, to search by.
        - remove_missing: documents that an earlier call with this source brought, and that are no longer in it, go.

        Raises `BadInput` for what cannot be read; batches before that stay."""
        from intarsia.prompting.data.loading import load_documents, source_name

        origin = ""
        if isinstance(source, SourceDocument):
            documents: Iterable[SourceDocument] = [source]
        elif isinstance(source, str | Path):
            documents, origin = load_documents(source, **options), source_name(source)
        else:
            documents = source
        with self.writing():
            total = adding.add(self, documents, where or {}, origin, remove_missing)
            rewriting.compact_if_worth(self)
        return total

    def remove(self, source: str) -> int:
        """Take away the document of a source, or all of a file or a folder; how many there were. Raises `BadInput`
        where there is none."""
        from intarsia.prompting.data.loading import source_name

        with self.writing():
            name = source_name(source)
            rows = self.connection.execute(
                "SELECT source FROM documents WHERE source = ?1 OR substr(source, 1, length(?1) + 1) IN (?1 || '/', "
                "?1 || '#')", (name,),
            ).fetchall()  # fmt: skip
            if not rows:
                raise BadInput(f"{self.path}: no document '{name}'; `intarsia store show {self.path}` lists them")
            count = adding.remove(self, [row[0] for row in rows])
            rewriting.compact_if_worth(self)
        return count

    def documents(self, where: Where | None = None) -> list[Stored]:
        """What is there, in the order it came."""
        from intarsia.prompting.data.store.filters import documents_where

        with self.reading() as connection:
            wanted = documents_where(connection, where)
            rows = connection.execute(
                "SELECT d.id, source, title, metadata, media, length(text), count(c.id), hidden, added "
                "FROM documents d LEFT JOIN chunks c ON c.document = d.id GROUP BY d.id ORDER BY d.id"
            ).fetchall()
        keep = None if wanted is None else set(wanted)
        return [Stored(row[1], row[2], json.loads(row[3]), *row[4:]) for row in rows if keep is None or row[0] in keep]

    def document(self, source: str) -> SourceDocument:
        """A whole document, its sections as its chunks tell them. Raises `BadInput` where there is none."""
        with self.reading() as connection:
            row = connection.execute(
                "SELECT id, text, title, metadata, media, hidden FROM documents WHERE source = ?", (source,)
            ).fetchone()
            if row is None:
                raise BadInput(f"{self.path}: no document '{source}'; `intarsia store show {self.path}` lists them")
            chunks = connection.execute(
                "SELECT path, start, end, anchor FROM chunks WHERE document = ? ORDER BY id", row[:1]
            )
            sections = tuple(Section(tuple(json.loads(path)), *rest) for path, *rest in chunks)
        return SourceDocument(row[1], source, row[2], json.loads(row[3]), sections, row[4], row[5])

    def reembed(self, encoder: Any = AUTO) -> int:
        """Make all vectors anew, by another encoder (`auto`: the same; None: no vectors any more); their number.

        A stop leaves the old ones, and readers search these until all new ones are there."""
        name = noted(self.connection, "encoder")
        given = (self._given or (name or {}).get("name", DEFAULT)) if encoder == AUTO else encoder
        made = None if given is None else encoder_of(given)
        with self.writing():
            count = rewriting.reembed(self, made)
            self._given, self._encoder, self._state = made, made, None
        return count

    def compact(self) -> None:
        """Write the vectors anew without those that no chunk has any more; `add` and `remove` do so by themselves where
        a quarter of them is."""
        with self.writing():
            rewriting.compact(self)

    # ---- search

    def search(
        self, query: str, k: int = 5, *, mode: Mode = "hybrid", where: Where | None = None, hops: int = 0,
        diversity: float = 0.0, rerank: Rerank | None = None, candidates: int = CANDIDATES, facts: int = 10,
    ) -> Found:  # fmt: skip
        """The k chunks that fit a question best; see `search_many`."""
        return self.search_many(
            [query], k, mode=mode, where=where, hops=hops, diversity=diversity, rerank=rerank, candidates=candidates,
            facts=facts,
        )[0]  # fmt: skip

    def search_many(
        self, queries: Sequence[str], k: int = 5, *, mode: Mode = "hybrid", where: Where | None = None, hops: int = 0,
        diversity: float = 0.0, rerank: Rerank | None = None, candidates: int = CANDIDATES, facts: int = 10,
    ) -> list[Found]:  # fmt: skip
        """The k chunks that fit each question best, in one pass over the vectors.

        - mode: `dense`: by the cosine of vectors, all of them; `words`: by BM25, words of headings counting more;
          `hybrid`: both, by the sum of 1 / (60 + rank). A store without vectors is searched by words.
        - where: which documents are meant, before anything is ranked (`intarsia.prompting.data.store.filters`).
        - hops: 1 or 2: also facts that many steps around what the question names; facts: so many at most.
        - diversity: 0 to 1: how much a hit that is like a better one counts less (maximal marginal relevance).
        - rerank: a function that scores the best `candidates` texts for the question anew (a cross-encoder, say).

        Raises `BadInput` for settings that make no sense."""
        how = Search(k, mode, where, diversity, rerank, candidates)
        if hops not in (0, 1, 2):
            raise BadInput(f"hops: {hops}: give 0 (no facts), 1 or 2")
        hits = search_many(self, queries, how)
        return [Found(query, tuple(found)) for query, found in zip(queries, hits, strict=True)]

    # ---- what the modules beside this one stand on

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


def _begin(connection: sqlite3.Connection, encoder: Any, size: int, overlap: int) -> None:
    """Note how a new store is made."""
    from intarsia.prompting.data.splitting import split

    split(SourceDocument("", "none"), size, overlap)  # which says what is wrong with them
    given = DEFAULT if encoder == AUTO else encoder
    name = given if given is None or isinstance(given, str) else encoder_of(given).name
    with transaction(connection, adding.NAME):
        if noted(connection, "size") is None:
            made = None if given is None else {"name": name, "fingerprint": None, "width": None}
            note(connection, size=size, overlap=overlap, encoder=made, generation=0, rows=0, change=0)


def _checked(path: Path, connection: sqlite3.Connection, given: Any) -> Any:
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
