"""The documents of one file."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from intarsia.data.documents.html import html_text
from intarsia.data.documents.pdf import pdf_text
from intarsia.data.documents.plain import plain_text
from intarsia.data.documents.rows import to_document
from intarsia.data.documents.word import word_text
from intarsia.data.files import PACKED, split_name
from intarsia.data.records import Document
from intarsia.errors import BadInput

PLAIN = (".txt", ".md", ".rst")
TABLES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
WHOLE = {
    ".txt": plain_text, ".md": plain_text, ".docx": word_text, ".pdf": pdf_text, ".rst": plain_text, ".html": html_text,
    ".htm": html_text,
}  # fmt: skip
FORMATS = (*WHOLE, *TABLES)
"""`.docx` and `.pdf` are packed in themselves; the others may be packed (`.jsonl.gz`)."""


def is_document(name: str) -> bool:
    """Whether a file of this name is of one of `FORMATS`."""
    _, suffix, packing = split_name(name)
    return suffix in FORMATS and not (packing and suffix in (".docx", ".pdf"))


def documents_in(path: Path, name: str = "", label: str = "", domain: str = "") -> Iterator[Document]:
    """The documents of a file: of a table one for each row, else one.

    `name` (default: the file's), `label` and `domain` are what is known of them from where it lies. Raises `BadInput`
    for what cannot be read, and `MissingExtra`."""
    from intarsia.data.readers import rows  # which asks this package for documents

    name = name or path.name
    if not is_document(path.name):
        hint = "; save it as .docx" if path.suffix.lower() in (".doc", ".odt", ".rtf", ".pages") else ""
        raise BadInput(
            f"{path}: unknown format '{split_name(path.name)[1] or path.name}'{hint}; known: {', '.join(FORMATS)}, "
            f"plain texts and tables also with {' or '.join(PACKED)}"
        )
    suffix = split_name(path.name)[1]
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: is empty; give a document with text in it")
    if suffix in WHOLE:
        yield Document(WHOLE[suffix](path), label, name=name, domain=domain)
        return
    number = 0
    for number, (where, row) in enumerate(rows(path), 1):
        yield to_document(row, where, name=f"{name}#{number}", label=label, domain=domain)
    if not number:
        raise BadInput(f"{path}: no documents in it")
