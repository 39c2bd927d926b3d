"""A row of a table or of a database as a document."""

from __future__ import annotations

import datetime
import decimal
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intarsia.data.columns import find
from intarsia.data.documents.invisible import without_unseen
from intarsia.data.documents.rows import TEXT
from intarsia.data.files import split_name
from intarsia.errors import BadInput, did_you_mean
from intarsia.prompting.data.documents import SourceDocument

TITLE = ("title", "name", "heading", "subject", "headline")
ID = ("id", "_id", "uid", "uuid", "doc_id", "document_id", "key")
MEDIA = {
    ".jsonl": "application/jsonl", ".json": "application/json", ".csv": "text/csv",
    ".tsv": "text/tab-separated-values", ".parquet": "application/vnd.apache.parquet",
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """Which columns are a row's text, its title and its id; empty: found by their usual names."""

    text: tuple[str, ...] = ()
    title: str = ""
    id: str = ""

    def check(self, row: Mapping[str, Any], where: str) -> None:
        """Raises `BadInput` for a column that is named and not there."""
        for name in (*self.text, self.title, self.id):
            if name and name not in row:
                hint = did_you_mean(name, row, n=1)
                raise BadInput(f"{where}: no column '{name}'; present: {', '.join(row) or 'none'}{hint}")


def rows_of_file(path: Path, name: str, columns: Columns) -> Iterator[SourceDocument]:
    """The rows of a file of records. Raises `BadInput` for what cannot be read or has no text in any row."""
    from intarsia.data.readers import rows

    yield from documents_of(rows(path), name, columns, MEDIA[split_name(path.name)[1]])


def documents_of(
    rows: Iterable[tuple[str, Mapping[str, Any]]], name: str, columns: Columns, media: str
) -> Iterator[SourceDocument]:
    """A document for each row that has text; `rows`: each with the place that messages about it begin with.

    Its source is `name#id`, or `name#number` where there is no id, or one that came before."""
    seen: set[str] = set()
    for number, (where, row) in enumerate(rows, 1):
        if number == 1:
            columns.check(row, where)
        document = _document(row, name, columns, media, number, seen)
        if document is not None:
            seen.add(document.source)
            yield document
    if not seen:
        raise BadInput(f"{name}: no row with text in it")


def _document(
    row: Mapping[str, Any], name: str, columns: Columns, media: str, number: int, seen: set[str]
) -> SourceDocument | None:
    texts = columns.text or tuple(filter(None, [find(row, TEXT)]))
    own_title = columns.title or find(row, TITLE) or ""
    own_id = columns.id or find(row, ID) or ""
    told = [column for column in texts if _written(row[column])]
    if texts:
        text = "\n\n".join(_written(row[column]) for column in told)
    else:
        texts = ()  # no column is the text: all of them are
        text = "\n".join(f"{column}: {written}" for column, value in row.items() if (written := _written(value)))
    text, hidden = without_unseen(text)
    if not text.strip():
        return None
    mark = _written(row.get(own_id)) or str(number)
    source = f"{name}#{mark}" if f"{name}#{mark}" not in seen else f"{name}#row-{number}"
    metadata = {
        column: plain for column, value in row.items()
        if column not in (*texts, own_title) and (plain := plain_value(_number(value, media))) is not None
    }  # fmt: skip
    title = " ".join(_written(row.get(own_title)).split())
    return SourceDocument(text, source, title, metadata, media=media, hidden=hidden)


def _number(value: Any, media: str) -> Any:
    """A cell of a table that knows texts alone: a number where it is written as numbers are (`7`, `9.5`; not `007`)."""
    if not isinstance(value, str) or media not in (MEDIA[".csv"], MEDIA[".tsv"]):
        return value
    if re.fullmatch(r"-?(0|[1-9]\d{0,14})", value):
        return int(value)
    return float(value) if re.fullmatch(r"-?(0|[1-9]\d{0,14})\.\d{1,15}", value) else value


def _written(value: Any) -> str:
    """A cell as a text: empty for none, lists joined."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, bytes):
        return ""
    if isinstance(value, list | tuple):
        return ", ".join(filter(None, map(_written, value)))
    if isinstance(value, Mapping):
        return "; ".join(f"{name}: {said}" for name, inner in value.items() if (said := _written(inner)))
    return str(value)


def plain_value(value: Any) -> Any:
    """A cell as metadata; None for one that is empty, or more than plain values and lists of them."""
    if isinstance(value, bool | str | int):
        return value if value != "" else None
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, decimal.Decimal):
        return float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, list | tuple):
        items = [plain_value(item) for item in value]
        return items if items and all(item is not None and not isinstance(item, list) for item in items) else None
    if hasattr(value, "item"):  # a number of numpy
        return plain_value(value.item())
    return None
