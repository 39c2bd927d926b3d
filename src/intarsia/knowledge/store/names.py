"""Names to ids and back: append-only, with suggestions for names that are not there."""

from __future__ import annotations

import difflib
import sqlite3

from intarsia.errors import BadInput

NEAR = 5


class Names:
    """Entities and relations of a graph. New names get the next free id, and are written by `flush`."""

    def __init__(self, connection: sqlite3.Connection):
        self.connection = connection
        self._entities = dict(connection.execute("SELECT name, id FROM entities ORDER BY id").fetchall())
        self._relations = dict(connection.execute("SELECT name, id FROM relations ORDER BY id").fetchall())
        self._new: dict[str, list[tuple[int, str]]] = {"entities": [], "relations": []}

    def entity_for(self, name: str) -> int:
        """The id of an entity, a new one for a new name."""
        return self._id(self._entities, "entities", name)

    def relation_for(self, name: str) -> int:
        """The id of a relation, a new one for a new name."""
        return self._id(self._relations, "relations", name)

    def flush(self) -> None:
        """Write new names, inside a transaction."""
        for table, rows in self._new.items():
            self.connection.executemany(f"INSERT INTO {table} (id, name) VALUES (?, ?)", rows)
            rows.clear()

    def entities(self) -> list[str]:
        """All in the order of their ids."""
        return list(self._entities)

    def relations(self) -> list[str]:
        """All in the order of their ids."""
        return list(self._relations)

    def entity(self, name: str) -> int:
        """The id of an entity that must be there. Raises `BadInput` with near names."""
        if name not in self._entities:
            raise unknown(self._entities, "entity", name)
        return self._entities[name]

    def relation(self, name: str) -> int:
        """The id of a relation that must be there. Raises `BadInput` with near names."""
        if name not in self._relations:
            raise unknown(self._relations, "relation", name)
        return self._relations[name]

    def _id(self, ids: dict[str, int], table: str, name: str) -> int:
        if (known := ids.get(name)) is not None:
            return known
        ids[name] = len(ids)
        self._new[table].append((ids[name], name))
        return ids[name]


def unknown(ids: dict[str, int], kind: str, name: str) -> BadInput:
    """The error for a name that is not there, with near ones; of few relations all are told."""
    near = near_names(name, ids)
    hint = f"; near: {', '.join(near)}" if near else ""
    if kind == "relation" and len(ids) <= 30:
        hint = f"; there are: {', '.join(ids)}"
    return BadInput(f"no {kind} '{name}'{hint}")


def near_names(name: str, known: dict[str, int], most: int = NEAR) -> list[str]:
    """Names that one may have meant: the same but for case, those that have all its words in them (the shortest
    first), then those spelled nearly so."""
    folded = name.casefold()
    out = [other for other in known if other.casefold() == folded]
    words = [word for word in folded.replace("_", " ").replace(".", " ").split() if word]
    if words:
        holding = [other for other in known if all(word in other.casefold() for word in words)]
        out += sorted(holding, key=lambda other: (len(other), other))[: 3 * most]
    if len(out) < most:
        # Only names of nearly its length can be near, which spares most comparisons in a large graph.
        size = len(name)
        some = [other for other in known if abs(len(other) - size) <= max(2, size // 3)]
        out += difflib.get_close_matches(name, some[:50_000], n=most, cutoff=0.6)
    return list(dict.fromkeys(out))[:most]
