"""`Store`: one folder with documents, their chunks, vectors and words, and facts; and the search over them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from intarsia.errors import BadInput, writing_to
from intarsia.prompting.data.documents import Section, SourceDocument
from intarsia.prompting.data.splitting import OVERLAP, SIZE
from intarsia.prompting.data.store import adding, rewriting, vectors
from intarsia.prompting.data.store import edges as edges_
from intarsia.prompting.data.store.adding import Added
from intarsia.prompting.data.store.chunks import rarity
from intarsia.prompting.data.store.database import FILE, connect, noted
from intarsia.prompting.data.store.encoders import AUTO, DEFAULT, encoder_of
from intarsia.prompting.data.store.filters import Where, documents_where
from intarsia.prompting.data.store.folder import StoreFolder, begin, checked_encoder
from intarsia.prompting.data.store.found import Edge, Found
from intarsia.prompting.data.store.found import Path as FactPath
from intarsia.prompting.data.store.fusing import Fusion
from intarsia.prompting.data.store.searching import CANDIDATES, Mode, Rerank, Search, search_many
from intarsia.prompting.data.store.words import storable

if TYPE_CHECKING:
    from intarsia.knowledge import KnowledgeGraph


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


class Store(StoreFolder):
    """A folder that holds what answers are drawn from: `rows.sqlite` and `vectors.f16`.

        store = Store.open("handbook")                     # the folder need not be there yet
        store.add("docs/")                                 # again later: only what changed is read anew
        found = store.search("How long is the warranty?", k=5, where={"product": "kettle"})
        print(found.context(800))

    Safe for one writer and many readers at a time, of any process and thread. What `add` has done is kept batch by
    batch; after a stop at any point the same call goes on."""

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
                begin(connection, encoder, size or SIZE, OVERLAP if overlap is None else overlap)
            made = noted(connection, "size"), noted(connection, "overlap")
            for name, given, has in (("size", size, made[0]), ("overlap", overlap, made[1])):
                if given is not None and given != has:
                    raise BadInput(f"{path}: was made with {name} {has}, given: {given}; make another store")
            store = Store(path, checked_encoder(path, connection, encoder), *made)
        finally:
            connection.close()
        store._tidy()
        return store

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
        """Take away the document of a source, all of a file or a folder, or all that `add` was given by this name; how
        many there were. Raises `BadInput` where there is none."""
        from intarsia.prompting.data.loading import source_name

        with self.writing():
            name = source_name(source)
            rows = self.connection.execute(
                "SELECT source FROM documents WHERE source = ?1 OR origin = ?1 "
                "OR substr(source, 1, length(?1) + 1) IN (?1 || '/', ?1 || '#')",
                (name,),
            ).fetchall()
            if not rows:
                raise BadInput(f"{self.path}: no document '{name}'; `intarsia store show {self.path}` lists them")
            count = adding.remove(self, [row[0] for row in rows])
            rewriting.compact_if_worth(self)
        return count

    def documents(self, where: Where | None = None) -> list[Stored]:
        """What is there, in the order it came."""
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
        diversity: float = 0.0, rerank: Rerank | None = None, candidates: int = CANDIDATES,
        fusion: Fusion = "feedback", facts: int = 10,
    ) -> Found:  # fmt: skip
        """The k chunks that fit a question best; see `search_many`."""
        return self.search_many(
            [query], k, mode=mode, where=where, hops=hops, diversity=diversity, rerank=rerank, candidates=candidates,
            fusion=fusion, facts=facts,
        )[0]  # fmt: skip

    def search_many(
        self, queries: Sequence[str], k: int = 5, *, mode: Mode = "hybrid", where: Where | None = None, hops: int = 0,
        diversity: float = 0.0, rerank: Rerank | None = None, candidates: int = CANDIDATES,
        fusion: Fusion = "feedback", facts: int = 10,
    ) -> list[Found]:  # fmt: skip
        """The k chunks that fit each question best, in one pass over the vectors.

        - mode: `dense`: by the cosine of vectors, all of them; `words`: by BM25, words of headings counting more;
          `hybrid`: both. A store without vectors is searched by words.
        - fusion: how hybrid makes one ranking of two: `scores`: their weighted mean, each brought to 0..1 over the best
          `candidates`; `ranks`: the sum of 1 / (60 + rank), reciprocal rank fusion; `feedback`: by scores, twice: the
          second time with the question's vector moved towards the first hits, and with what the rest of a document
          scores (`intarsia.prompting.data.store.fusing`).
        - where: which documents are meant, before anything is ranked (`intarsia.prompting.data.store.filters`).
        - hops: 1 or 2: also facts that many steps around what the question names; facts: so many at most.
        - diversity: 0 to 1: how much a hit that is like a better one counts less (maximal marginal relevance).
        - rerank: a function that scores the best `candidates` texts for the question anew (a cross-encoder, say).

        Raises `BadInput` for settings that make no sense."""
        how = Search(k, mode, where, diversity, rerank, candidates, fusion)
        if hops not in (0, 1, 2):
            raise BadInput(f"hops: {hops}: give 0 (no facts), 1 or 2")
        asked = [storable(query) for query in queries]
        hits = search_many(self, asked, how)
        around = [self._around(query, hops, facts) for query in asked]
        return [
            Found(query, tuple(found), tuple(paths), tuple(names))
            for query, found, (paths, names) in zip(queries, hits, around, strict=True)
        ]

    def rarity(self, words: Sequence[str]) -> dict[str, float]:
        """How much each word tells here: log(1 + chunks / (1 + chunks with it)); most where no chunk has it."""
        with self.reading() as connection:
            return rarity(connection, words)

    def _around(self, query: str, hops: int, most: int) -> tuple[list[FactPath], list[str]]:
        """Facts around what a question names, ranked by likeness to it where there are vectors."""
        if not hops:
            return [], []
        with self.reading() as connection, self._lock:
            change = noted(connection, "facts", 0)
            if self._facts is None or self._facts.change != change:
                self._facts = edges_.read_facts(connection, change)
            facts = self._facts

        def likeness(question: str, lines: list[str]) -> vectors.Array:
            rows = self.embed([question, *lines])
            return rows[1:] @ rows[0]

        return edges_.paths_around(facts, query, hops, most, likeness if self.has_vectors else None)

    # ---- facts

    def link(
        self, facts: Iterable[edges_.Given], *, source: str = "", about: Mapping[str, str] | None = None
    ) -> int:  # fmt: skip
        """Add facts: (head, relation, tail), perhaps with source and confidence (0 to 1; None: known), `Fact` or
        `Edge`. How many are new; one that is there is brought up to date.

        - source: of those without one of their own. about: texts about entities by name: words before a colon are
          names for it too."""
        with self.writing():
            return edges_.link(self, facts, source, about or {})

    def unlink(self, source: str) -> int:
        """Take away all facts of a source; how many there were."""
        with self.writing():
            return edges_.unlink(self, source)

    def add_graph(
        self, graph: KnowledgeGraph, *, predicted: int = 0, least_confidence: float = 0.5,
        entities: Sequence[str] | None = None,
    ) -> int:  # fmt: skip
        """Add the facts of a knowledge graph; how many are new.

        - predicted: also so many facts of each entity (of `entities`; None: all) that are not known and that the graph
          was learned to hold likely, with their confidence, `least_confidence` or more.

        Raises `BadInput` where facts are to be predicted and nothing is learned."""
        with self.writing():
            return edges_.add_graph(self, graph, predicted, least_confidence, entities)

    def facts_by_source(self) -> dict[str, int]:
        """How many facts there are, by where they are from."""
        with self.reading() as connection:
            rows = connection.execute("SELECT source, count(*) FROM edges GROUP BY source ORDER BY source")
            return dict(rows.fetchall())

    def edges(self, name: str, hops: int = 1) -> list[Edge]:
        """The facts within so many steps of an entity, nearest first. Raises `BadInput` with near names."""
        if hops < 1:
            raise BadInput(f"hops: {hops}: give 1 or more")
        with self.reading() as connection:
            return edges_.edges_around(connection, name, hops)
