"""Documents as data: whole texts from plain, Word and PDF files, from tables, and from folders of all of these.

- `read_documents(path, limit)`: the documents of a file, a folder or standard input.
- `LABELS`: whose text a document may be said to be."""

from __future__ import annotations

from intarsia.data.documents.labels import LABELS, BadLabel
from intarsia.data.documents.reading import read_documents
from intarsia.data.documents.rows import to_document

__all__ = ["LABELS", "BadLabel", "read_documents", "to_document"]
