"""Rows of a database as documents, read and never written: SQLite by itself, others through SQLAlchemy."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, unquote, unquote_plus, urlencode

from intarsia.data.files import must_exist
from intarsia.errors import BadInput, MissingExtra, did_you_mean, first_line
from intarsia.prompting.data.documents import SourceDocument
from intarsia.prompting.data.rows import Columns, documents_of

MEDIA = "application/sql"
_QUERY = re.compile(r"[?&]query=(.*)", re.DOTALL)
_READS = re.compile(r"\s*(?:--[^\n]*\n\s*|/\*.*?\*/\s*)*(?:select|with|values)\b", re.IGNORECASE | re.DOTALL)
_ALLOWED = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE)


def rows_of_database(source: str, columns: Columns) -> Iterator[SourceDocument]:
    """The rows of a table or of a query; `sqlite:FILE?table=NAME`, `URL?query=SELECT ...`.

    Raises `BadInput` for a source without either, a query that does more than read, and what the database says."""
    url, own, rest = _parts(source)
    if len(own) != 1 or not next(iter(own.values())).strip():
        raise BadInput(f"{source}: name its rows: {url}?table=NAME, or {url}?query=SELECT ...")
    if "query" in own and not _READS.match(own["query"]):
        raise BadInput(f"{source}: the query must be a SELECT: nothing is written here")
    # A password is no part of a citation.
    kind, asked = next(iter(own.items()))
    name = re.sub(r"(://[^/@:]*):[^/@]*@", r"\1@", url) + f"?{kind}={asked}"
    file = url.startswith("sqlite:") and not url.startswith("sqlite:///")
    rows = _sqlite(url, own, source) if file else _sqlalchemy(url, rest, own, source)
    yield from documents_of(rows, name, columns, MEDIA)


def _parts(source: str) -> tuple[str, dict[str, str], list[tuple[str, str]]]:
    """(the URL, `table` or `query`, the other options). A query comes last, and is taken as it stands: it has signs
    that mean something in a URL too."""
    found = _QUERY.search(source)
    before, query = (source[: found.start()], found[1]) if found else (source, "")
    url, _, options = before.partition("?")
    given = parse_qsl(options, keep_blank_values=True)
    own = {name: value for name, value in given if name == "table"}
    if found:
        own["query"] = query if " " in query.strip() else unquote_plus(query)
    return url, own, [(name, value) for name, value in given if name != "table"]


def _sqlite(url: str, own: dict[str, str], source: str) -> Iterator[tuple[str, dict[str, Any]]]:
    path = Path(unquote(url.removeprefix("sqlite:"))).expanduser()
    must_exist(path)
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        if table := own.get("table"):
            names = [
                row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type IN ('table','view')")
            ]
            if table not in names:
                raise BadInput(f"{path}: no table '{table}'{did_you_mean(table, names)}; there are: {', '.join(names)}")
        connection.set_authorizer(lambda action, *_: sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY)
        cursor = connection.execute(f'SELECT * FROM "{table.replace(chr(34), chr(34) * 2)}"' if table else own["query"])
        names = [column[0] for column in cursor.description]
        for number, row in enumerate(cursor, 1):
            yield f"{source}: row {number}", dict(zip(names, row, strict=True))
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise BadInput(f"{source}: {first_line(error)}") from None
    finally:
        connection.close()


def _sqlalchemy(
    url: str, rest: list[tuple[str, str]], own: dict[str, str], source: str
) -> Iterator[tuple[str, dict[str, Any]]]:
    try:
        import sqlalchemy as sa
    except ImportError:
        raise MissingExtra(f"{source}: reading a database", "sql") from None
    try:
        engine = sa.create_engine(f"{url}?{urlencode(rest)}" if rest else url)
    except (sa.exc.ArgumentError, sa.exc.NoSuchModuleError, ImportError) as error:
        raise BadInput(f"{source}: {first_line(error)}") from None
    try:
        with engine.connect() as connection:
            # What the database itself can be told; and whatever happens, nothing is committed.
            read_only = {
                "postgresql": "SET TRANSACTION READ ONLY", "mysql": "SET TRANSACTION READ ONLY",
                "mariadb": "SET TRANSACTION READ ONLY", "sqlite": "PRAGMA query_only = ON",
            }.get(engine.dialect.name)  # fmt: skip
            if read_only:
                connection.execute(sa.text(read_only))
            if table := own.get("table"):
                names = sa.inspect(connection).get_table_names() + sa.inspect(connection).get_view_names()
                schema, _, bare = table.rpartition(".")
                if not schema and table not in names:
                    raise BadInput(
                        f"{source}: no table '{table}'{did_you_mean(table, names)}; there are: {', '.join(names)}"
                    )
                query: Any = sa.select(sa.text("*")).select_from(sa.table(bare, schema=schema or None))
            else:
                query = sa.text(own["query"])
            result = connection.execution_options(stream_results=True).execute(query)
            names = list(result.keys())
            for number, row in enumerate(result, 1):
                yield f"{source}: row {number}", dict(zip(names, row, strict=True))
            connection.rollback()
    except sa.exc.SQLAlchemyError as error:
        raise BadInput(f"{source}: {first_line(error)}") from None
    finally:
        engine.dispose()
