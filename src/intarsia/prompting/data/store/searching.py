"""The search over a store: by vectors, by words, by both; exact, and on one state of it, whoever writes meanwhile."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.data.store.chunks import documents_of, rows_of, vectors_of
from intarsia.prompting.data.store.filters import Where, documents_where
from intarsia.prompting.data.store.found import Hit, Scores
from intarsia.prompting.data.store.fusing import (
    FUSIONS,
    Fusion,
    first_hits,
    fuse,
    moved,
    wants_feedback,
    with_documents,
)
from intarsia.prompting.data.store.ranking import spread
from intarsia.prompting.data.store.words import asked

if TYPE_CHECKING:
    from intarsia.prompting.data.store.store import Store

Mode = Literal["hybrid", "dense", "words"]
MODES = ("hybrid", "dense", "words")
Rerank = Callable[[str, Sequence[str]], Sequence[float]]
Array = np.ndarray[Any, Any]
CANDIDATES = 100
"""How deep both rankings are fused, at least."""
HEADING = 4.0
"""What a word in the headings counts for, where one in the text counts 1."""


@dataclass(frozen=True)
class Search:
    """How to search; see `Store.search`."""

    k: int = 5
    mode: Mode = "hybrid"
    where: Where | None = None
    diversity: float = 0.0
    rerank: Rerank | None = None
    candidates: int = CANDIDATES
    fusion: Fusion = "feedback"

    def __post_init__(self) -> None:
        if self.k < 1:
            raise BadInput(f"k: {self.k}: give 1 or more")
        if self.mode not in MODES:
            raise BadInput(f"mode: no '{self.mode}'{did_you_mean(str(self.mode), MODES)}; known: {', '.join(MODES)}")
        if self.fusion not in FUSIONS:
            raise BadInput(f"fusion: no '{self.fusion}'; known: {', '.join(FUSIONS)}")
        if not 0 <= self.diversity <= 1:
            raise BadInput(f"diversity: {self.diversity}: give 0 (none) to 1")


def search_many(store: Store, queries: Sequence[str], how: Search) -> list[list[Hit]]:
    """The hits of each question: one pass over the vectors for all of them."""
    if not queries:
        return []
    mode = how.mode if store.has_vectors else "words"
    if how.mode == "dense" and mode != "dense":
        raise BadInput(f"{store.path}: has no vectors: search it by words, or give it some: `intarsia store reembed`")
    embedded = store.embed(list(queries)) if mode != "words" else None
    for attempt in range(3):
        try:
            return _on_one_state(store, queries, embedded, mode, how)
        except FileNotFoundError:
            # The vectors were written anew after this reader's state began, and the old file is gone: begin again.
            if attempt == 2:
                raise
    raise AssertionError


def _on_one_state(
    store: Store, queries: Sequence[str], embedded: Array | None, mode: Mode, how: Search
) -> list[list[Hit]]:
    deep = max(how.candidates, 4 * how.k)
    with store.reading() as connection:
        allowed = documents_where(connection, how.where)
        if allowed == []:
            return [[] for _ in queries]
        rankings: list[dict[str, dict[int, float]]] = [{} for _ in queries]
        if embedded is not None:
            for one, found in zip(rankings, _dense(store, connection, embedded, allowed, deep), strict=True):
                one["dense"] = found
        if mode != "dense":
            for one, query in zip(rankings, queries, strict=True):
                one["words"] = _words(connection, query, allowed, deep)
        vectors: Sequence[Array | None] = [None] * len(queries) if embedded is None else list(embedded)
        again = [i for i, query in enumerate(queries) if mode == "hybrid" and wants_feedback(query, how.fusion)]
        second = dict(zip(again, _again(store, connection, again, embedded, rankings, allowed, deep), strict=True))
        return [
            _ranked(store, connection, queries[i], vectors[i], rankings[i], second.get(i), how)
            for i in range(len(queries))
        ]


def _again(
    store: Store, connection: sqlite3.Connection, asked: Sequence[int], embedded: Array | None,
    rankings: Sequence[dict[str, dict[int, float]]], allowed: list[int] | None, k: int,
) -> list[dict[int, float]]:  # fmt: skip
    """Chunk -> cosine to a question's vector moved towards its first hits, best first, for those questions."""
    if not asked or embedded is None:
        return []
    rows = [moved(embedded[i], vectors_of(store, connection, first_hits(rankings[i]))) for i in asked]
    return _dense(store, connection, np.stack(rows), allowed, k)


def _dense(
    store: Store, connection: sqlite3.Connection, queries: Array, allowed: list[int] | None, k: int
) -> list[dict[int, float]]:
    """Chunk -> cosine for each question, best first."""
    state = store.state(connection)
    live, among = state.live, "1"
    given: tuple[Any, ...] = ()
    if allowed is not None:
        among, given = "c.document IN (SELECT value FROM json_each(?))", (json.dumps(allowed),)
        rows = connection.execute(
            f"SELECT DISTINCT v.place FROM chunks c JOIN vectors v ON v.hash = c.hash WHERE {among} ORDER BY 1", given
        )
        live = np.fromiter((row[0] for row in rows), np.int64)
    nearest = state.matrix.nearest(queries, live, k)
    wanted = sorted({place for places, _ in nearest for place in places.tolist()})
    chunks: dict[int, list[int]] = {}
    for place, chunk in connection.execute(
        "SELECT v.place, c.id FROM vectors v JOIN chunks c ON c.hash = v.hash "
        f"WHERE v.place IN (SELECT value FROM json_each(?)) AND {among} ORDER BY c.id",
        (json.dumps(wanted), *given),
    ):
        chunks.setdefault(place, []).append(chunk)
    return [
        dict(
            [
                (chunk, score)
                for place, score in zip(places.tolist(), scores.tolist(), strict=True)
                for chunk in chunks.get(place, ())
            ][:k]
        )
        for places, scores in nearest
    ]


def _words(connection: sqlite3.Connection, query: str, allowed: list[int] | None, k: int) -> dict[int, float]:
    """Chunk -> BM25, best first."""
    wanted = asked(query)
    if not wanted:
        return {}
    clause, given = "", []
    if allowed is not None:
        clause = " AND rowid IN (SELECT id FROM chunks WHERE document IN (SELECT value FROM json_each(?)))"
        given = [json.dumps(allowed)]
    rows = connection.execute(
        f"SELECT rowid, -bm25(words, {HEADING}, 1.0) AS score FROM words WHERE words MATCH ?{clause} "
        "ORDER BY score DESC, rowid LIMIT ?",
        (wanted, *given, k),
    )
    return dict(rows.fetchall())


def _ranked(
    store: Store, connection: sqlite3.Connection, query: str, vector: Array | None,
    rankings: dict[str, dict[int, float]], second: dict[int, float] | None, how: Search,
) -> list[Hit]:  # fmt: skip
    if len(rankings) == 1:
        (order,) = rankings.values()
    elif second is None:
        order = fuse(query, rankings, how.fusion)
    else:
        order = fuse(query, {**rankings, "dense": second}, how.fusion)
        order = with_documents(order, documents_of(connection, list(order)))
    more = how.rerank is not None or how.diversity > 0
    chosen = list(order)[: max(how.candidates, how.k) if more else how.k]
    ranks = {name: {chunk: rank for rank, chunk in enumerate(found, 1)} for name, found in rankings.items()}
    words = rankings.get("words", {})
    near: dict[int, float] = {}
    if vector is not None and chosen:
        near = dict(zip(chosen, (vectors_of(store, connection, chosen) @ vector).tolist(), strict=True))
    hits = []
    for chunk, row in rows_of(connection, chosen):
        place = {f"{name}_rank": found.get(chunk) for name, found in ranks.items()}
        scores = Scores(dense=near.get(chunk), words=words.get(chunk), **place)
        hits.append(
            Hit(
                text=row[0], source=row[1], title=row[2], path=tuple(json.loads(row[3])), anchor=row[4], start=row[5],
                end=row[6], metadata=json.loads(row[7]), score=order[chunk], scores=scores, chunk=chunk,
            )
        )  # fmt: skip
    if how.rerank is not None and hits:
        hits = _reranked(how.rerank, query, hits)
    if how.diversity > 0 and hits:
        worth = np.array([hit.score for hit in hits])
        hits = [hits[i] for i in spread(worth, _vectors(store, connection, hits), how.k, how.diversity)]
    return hits[: how.k]


def _reranked(rerank: Rerank, query: str, hits: list[Hit]) -> list[Hit]:
    given = [float(score) for score in rerank(query, [hit.text for hit in hits])]
    if len(given) != len(hits):
        raise BadInput(f"rerank: gave {len(given)} scores for {len(hits)} texts")
    judged = [
        replace(hit, score=score, scores=replace(hit.scores, rerank=score))
        for hit, score in zip(hits, given, strict=True)
    ]
    return sorted(judged, key=lambda hit: -hit.score)


def _vectors(store: Store, connection: sqlite3.Connection, hits: list[Hit]) -> Array:
    """[hit, width]: its chunk's vector; without vectors, which words it has, so that copies are still told."""
    if store.has_vectors:
        return vectors_of(store, connection, [hit.chunk for hit in hits])
    texts = [set(hit.text.casefold().split()) for hit in hits]
    place = {word: i for i, word in enumerate(sorted(set().union(*texts)))}
    out = np.zeros((len(hits), max(len(place), 1)), np.float32)
    for i, words in enumerate(texts):
        out[i, [place[word] for word in words]] = 1
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)
