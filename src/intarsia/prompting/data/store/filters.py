"""Which documents are meant: conditions on their metadata, as SQL."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable, Mapping
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.data.store.words import storable

Where = Mapping[str, Any] | Callable[[Mapping[str, Any]], bool]
COMPARED = {"=": "=", "!=": "!=", "<": "<", "<=": "<=", ">": ">", ">=": ">="}
MOST = 10_000  # values in a list
OWN = ("source", "title", "media")
"""Names that every document has, beside those of its metadata."""


def documents_where(connection: sqlite3.Connection, where: Where | None) -> list[int] | None:
    """Ids of the documents that meet all conditions; None: all of them, as nothing is asked.

    - a mapping: a name of the metadata (or `source`, `title`, `media`) and a value it must equal, a list of which it
      must be one, or comparisons: `{"year": {">=": 2020, "<": 2024}}`. Where the metadata has a list, one of it must
      meet the condition. A document without that name meets none.
    - a function: is given metadata with these names in it, says whether the document is meant.

    Raises `BadInput` for conditions of another form."""
    if where is None or where == {}:
        return None
    if callable(where):
        rows = connection.execute("SELECT id, source, title, media, metadata FROM documents ORDER BY id")
        return [
            id for id, source, title, media, metadata in rows
            if where({**json.loads(metadata), "source": source, "title": title, "media": media})
        ]  # fmt: skip
    if not isinstance(where, Mapping):
        raise BadInput(f"where: {where!r} is neither a mapping of names to values nor a function")
    clauses, values = [], []
    for name, wanted in where.items():
        clause, given = _condition(str(name), wanted)
        clauses.append(clause)
        values += given
    rows = connection.execute(f"SELECT id FROM documents WHERE {' AND '.join(clauses)} ORDER BY id", values)
    return [row[0] for row in rows]


def _condition(name: str, wanted: Any) -> tuple[str, list[Any]]:
    if name in OWN:
        clause, values = _compared(name, "value", wanted)
        return f"EXISTS (SELECT 1 FROM (SELECT {name} AS value) WHERE {clause})", values
    name = storable(name)
    if '"' in name or not name:
        raise BadInput(f"where: {name!r} cannot be a name of metadata")
    clause, values = _compared(name, "value", wanted)
    return f"EXISTS (SELECT 1 FROM json_each(metadata, ?) WHERE {clause})", [f'$."{name}"', *values]


def _compared(name: str, column: str, wanted: Any) -> tuple[str, list[Any]]:
    if isinstance(wanted, Mapping):
        if not wanted or any(sign not in COMPARED for sign in wanted):
            raise BadInput(f"where: {name}: {list(wanted)} are no comparisons; known: {', '.join(COMPARED)}")
        values = [_plain(name, value) for value in wanted.values()]
        kind = "AND ".join(
            f"{column} {COMPARED[sign]} ? {'' if sign in ('=', '!=') else f'AND typeof({column}) {_sort(value)} '}"
            for sign, value in zip(wanted, values, strict=True)
        )
        return kind, values
    if isinstance(wanted, list | tuple | set | frozenset):
        values = [_plain(name, value) for value in wanted]
        if len(values) > MOST:
            raise BadInput(f"where: {name}: {len(values):,} values, at most {MOST:,} are taken")
        return (f"{column} IN ({', '.join('?' * len(values))})" if values else "0"), values
    return f"{column} = ?", [_plain(name, wanted)]


def _sort(value: Any) -> str:
    """SQLite orders any number before any text: only values of one sort are compared."""
    return "= 'text'" if isinstance(value, str) else "IN ('integer', 'real')"


def _plain(name: str, value: Any) -> Any:
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadInput(f"where: {name}: a number of more than 64 bits: {value}")
    if isinstance(value, str):
        return storable(value)
    if value is None or not isinstance(value, str | int | float):
        raise BadInput(f"where: {name}: a text, a number or a truth value is wanted, given: {value!r}")
    return value
