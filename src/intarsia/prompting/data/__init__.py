"""The data level: documents and facts, read, split, kept and found again.

- `load_documents`: whole documents with their sections, from files, folders, tables, databases and pictures.
- `split`: documents into chunks of so many tokens, with exact offsets.
- `Store`: one folder with documents, vectors, words and facts, and the search over them (`store/`)."""

from typing import TYPE_CHECKING

from intarsia.lazy import lazily
from intarsia.prompting.data.documents import Chunk, Section, SourceDocument
from intarsia.prompting.data.splitting import count_about, split

if TYPE_CHECKING:
    from intarsia.prompting.data.loading import load_documents
    from intarsia.prompting.data.store import Context, Edge, Found, Hit, Passage, Store

# These need numpy, which nobody should wait for who only counts tokens.
_LATER = {
    "Context": "intarsia.prompting.data.store",
    "Edge": "intarsia.prompting.data.store",
    "Found": "intarsia.prompting.data.store",
    "Hit": "intarsia.prompting.data.store",
    "Passage": "intarsia.prompting.data.store",
    "Store": "intarsia.prompting.data.store",
    "load_documents": "intarsia.prompting.data.loading",
}

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

__getattr__ = lazily(__name__, _LATER)
