"""The data level: documents and facts, read, split, kept and found again.

- `load_documents`: whole documents with their sections, from files, folders, tables, databases and pictures.
- `split`: documents into chunks of so many tokens, with exact offsets.
- `Store`: one folder with documents, vectors, words and facts, and the search over them (`store/`)."""

from intarsia.prompting.data.documents import Chunk, Section, SourceDocument
from intarsia.prompting.data.loading import load_documents
from intarsia.prompting.data.splitting import count_about, split
from intarsia.prompting.data.store import Context, Edge, Found, Hit, Passage, Store

__all__ = [
    "Chunk",
    "Context",
    "Edge",
    "Found",
    "Hit",
    "Passage",
    "Section",
    "SourceDocument",
    "Store",
    "count_about",
    "load_documents",
    "split",
]
