"""Facts of a store: added, found around names, and ranked as paths by what a question says."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np

from intarsia.data import Fact, FactSnapshot
from intarsia.data.sqlite import transaction
from intarsia.errors import BadInput
from intarsia.progress import track
from intarsia.prompting.data.store.database import NAME, note, noted
from intarsia.prompting.data.store.found import Edge, Path
from intarsia.prompting.data.store.words import storable

if TYPE_CHECKING:
    from intarsia.knowledge import KnowledgeGraph
    from intarsia.knowledge.graph.growing import GrowingGraph
    from intarsia.prompting.data.store.store import Store

COLUMNS = "id, head, relation, tail, source, confidence"
WALKED, PATHS = 60, 40  # facts that the walk gives, and paths that are compared with the question
Array = np.ndarray[Any, Any]
Given = Fact | Edge | Sequence[Any]


@dataclass(frozen=True, eq=False)
class Facts:
    """All facts of a store as of one change: as a graph, with the edge of each, and the names that link texts to it."""

    change: int
    graph: GrowingGraph
    edges: list[Edge]
    rows: Array
    surfaces: dict[str, list[int]]
    degrees: dict[int, int]


def link(store: Store, facts: Iterable[Given], source: str, about: Mapping[str, str]) -> int:
    """Add facts; how many are new. A fact that is there gets the new source, and is known once anybody knows it."""
    rows = [_row(fact, source) for fact in facts]
    connection = store.connection
    with transaction(connection, NAME):
        before = connection.execute("SELECT count(*) FROM edges").fetchone()[0]
        connection.executemany(
            "INSERT INTO edges (head, relation, tail, source, confidence) VALUES (?, ?, ?, ?, ?) "
            "ON CONFLICT (head, relation, tail) DO UPDATE SET source = excluded.source, "
            "confidence = excluded.confidence WHERE edges.confidence IS NOT NULL OR excluded.confidence IS NULL",
            rows,
        )
        connection.executemany(
            "INSERT OR REPLACE INTO about VALUES (?, ?)", [(storable(n), storable(text)) for n, text in about.items()]
        )
        after = connection.execute("SELECT count(*) FROM edges").fetchone()[0]
        note(connection, facts=noted(connection, "facts", 0) + 1)
    return after - before


def unlink(store: Store, source: str) -> int:
    """Take away the facts of a source; how many there were."""
    with transaction(store.connection, NAME):
        gone = store.connection.execute("DELETE FROM edges WHERE source = ?", (source,)).rowcount
        note(store.connection, facts=noted(store.connection, "facts", 0) + 1)
    return gone


def _row(fact: Given, source: str) -> tuple[str, str, str, str, float | None]:
    confidence: Any = None
    if isinstance(fact, Fact | Edge):
        parts: Sequence[Any] = (fact.head, fact.relation, fact.tail)
        if isinstance(fact, Edge):
            source, confidence = fact.source or source, fact.confidence
    else:
        parts = tuple(fact)[:3]
        more = tuple(fact)[3:]
        source = more[0] if more else source
        confidence = more[1] if len(more) > 1 else None
    if len(parts) != 3 or not all(isinstance(part, str) and part.strip() for part in (*parts, source or "-")):
        raise BadInput(f"a fact is (head, relation, tail), perhaps with source and confidence: {fact!r}")
    if confidence is not None and not (isinstance(confidence, int | float) and 0 <= confidence <= 1):
        raise BadInput(f"{fact!r}: confidence is a number from 0 to 1, or None for a known fact")
    head, relation, tail = (storable(part.strip()) for part in parts)
    return head, relation, tail, storable(source), confidence


def add_graph(
    store: Store, graph: KnowledgeGraph, predicted: int, least_confidence: float, entities: Sequence[str] | None
) -> int:
    """Facts of a knowledge graph; see `Store.add_graph`."""
    growing = graph.growing()
    names, relations = growing.entities, growing.relations
    known = [(names[h], relations[r], names[t]) for h, r, t in growing.facts(len(growing) - 1).tolist()]
    source = str(graph)
    likely: list[Edge] = []
    if predicted:
        from intarsia.knowledge.asking.asker import Asker
        from intarsia.knowledge.asking.retrieving import predicted as of_entity
        from intarsia.knowledge.retrieve import RetrieveConfig

        asker = Asker.of(graph)
        start = range(len(asker.entities)) if entities is None else [asker.entity(name) for name in entities]
        config = RetrieveConfig(text=" ", predicted=predicted, least_confidence=least_confidence)
        for entity in track(start, "asking for likely facts"):
            likely += [
                Edge(0, fact.head, fact.relation, fact.tail, source, fact.confidence)
                for fact in of_entity(asker, [entity], config)
            ]
    return link(store, [*known, *likely], source, growing.descriptions)


def edges_around(connection: sqlite3.Connection, name: str, hops: int) -> list[Edge]:
    """Facts within so many steps of a name, nearest first. Raises `BadInput` with near names."""
    reached, front, out = {name}, [name], dict[int, Edge]()
    for _ in range(hops):
        found: list[Edge] = []
        for one in front:
            rows = connection.execute(f"SELECT {COLUMNS} FROM edges WHERE head = ?1 OR tail = ?1 ORDER BY id", (one,))
            found += [Edge(*row) for row in rows]
        out |= {edge.id: edge for edge in found if edge.id not in out}
        ends = dict.fromkeys(end for edge in found for end in (edge.head, edge.tail))
        front = [end for end in ends if end not in reached]
        reached |= set(front)
    if not out:
        from intarsia.knowledge.store.names import unknown

        rows = connection.execute("SELECT head FROM edges UNION SELECT tail FROM edges")
        raise unknown(dict(zip((row[0] for row in rows), count(), strict=False)), "entity", name)
    return list(out.values())


def read_facts(connection: sqlite3.Connection, change: int) -> Facts:
    """All facts, ready to be linked to texts."""
    from intarsia.knowledge.asking.linking import surfaces
    from intarsia.knowledge.graph.growing import GrowingGraph

    rows = connection.execute(f"SELECT {COLUMNS} FROM edges ORDER BY id")
    edges = [Edge(*row) for row in rows]
    about = dict(connection.execute("SELECT name, text FROM about").fetchall())
    facts = [Fact(edge.head, edge.relation, edge.tail) for edge in edges]
    graph = GrowingGraph.of([FactSnapshot("facts", facts, descriptions=about)])
    ids = graph.facts(0)
    degrees = Counter(ids[:, 0].tolist()) + Counter(ids[:, 2].tolist())
    return Facts(change, graph, edges, ids, surfaces(graph), degrees)


def paths_around(
    facts: Facts, query: str, hops: int, most: int, likeness: Callable[[str, list[str]], Array] | None
) -> tuple[list[Path], list[str]]:
    """(facts and pairs of facts from what a question names, best first; the names).

    - likeness: from a question and lines to a number each; None: paths go by their weight in a random walk."""
    from intarsia.knowledge.asking.linking import mentions
    from intarsia.knowledge.asking.walking import ranked

    if not facts.edges:
        return [], []
    found = mentions(facts.graph, query, facts.degrees, facts.surfaces)
    start = [mention.entities[0] for mention in found]
    if not start:
        return [], []
    chosen, weights = ranked(facts.rows, len(facts.graph.entities), start, hops, WALKED)
    paths = [
        (tuple(facts.edges[i] for i in path), weight)
        for path, weight in _paths(facts.rows, chosen.tolist(), weights.tolist(), set(start))
    ][:PATHS]
    made = [Path(edges, weight) for edges, weight in paths]
    if likeness is not None and made:
        scores = likeness(query, [path.line for path in made])
        made = [Path(path.edges, float(score)) for path, score in zip(made, scores, strict=True)]
    order = sorted(range(len(made)), key=lambda i: (-made[i].score, i))
    return [made[i] for i in order[:most]], [facts.graph.entities[i] for i in start]


def _paths(
    rows: Array, chosen: list[int], weights: list[float], start: set[int]
) -> list[tuple[tuple[int, ...], float]]:  # fmt: skip
    """(places of one fact, or of two in a row, from a start; their least weight), most first."""
    weight = dict(zip(chosen, weights, strict=True))
    touching: dict[int, list[int]] = {}
    for i in chosen:
        for end in {int(rows[i, 0]), int(rows[i, 2])}:
            touching.setdefault(end, []).append(i)
    out: dict[tuple[int, ...], float] = {}
    for i in chosen:
        ends = {int(rows[i, 0]), int(rows[i, 2])}
        if not ends & start:
            continue
        out[(i,)] = weight[i]
        for middle in ends - start:
            for j in touching[middle]:
                if not {int(rows[j, 0]), int(rows[j, 2])} & start:
                    out.setdefault((i, j), min(weight[i], weight[j]))
    return sorted(out.items(), key=lambda pair: -pair[1])
