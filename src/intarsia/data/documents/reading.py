"""Documents from whatever holds them."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

from intarsia.data.documents.folders import documents_of
from intarsia.data.documents.plain import STANDARD_INPUT, standard_input
from intarsia.data.documents.single import documents_in
from intarsia.data.files import must_exist
from intarsia.data.records import Document
from intarsia.errors import BadInput


def read_documents(path: str | Path, limit: int | None = None) -> list[Document]:
    """The documents of a file, of a folder, or of standard input (`-`), in order.

    - `.txt`, `.md`, `.rst`: the whole file is one document; so is standard input. `.docx`, `.pdf`: the same (the
      extra `detect`), of a PDF page by page. `.html`, `.htm`: what can be seen of a page, without what frames it (the
      extra `documents`).
    - `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet`: a document for each row, from the columns `text` and, where they
      are there, `label`, `id` (or `name`), `domain` (`corpus`), `topic` (`group`), `task` (`title`, `assignment`),
      `language`, `writers` (`group` beside `topic`), `generator`, `prompt` and `split` (see
      `intarsia.data.documents.rows`). Plain texts and tables may be packed (`.jsonl.gz`).
    - a folder: all documents in it and in the folders in it, but hidden ones and those that are about the others
      (README, LICENSE). Folders called `human`, `machine`, `polished` or `mixed` say whose the documents in them are,
      other ones give their domain. What cannot be read is left out, with one note that says which and why.
    - `limit`: read no more documents than this.

    A label is one of `human`, `machine`, `polished`, `mixed`, in the usual other words too (`ai`, `generated`, `llm`,
    `real`), or empty. `Document.name` is the row's id, else the path in the folder, else the file's name; rows without
    an id are numbered (`essays.csv#3`).

    Raises `BadInput`, in one line, for what cannot be read, holds no documents, or has an unknown label; and
    `MissingExtra` where a library is not there."""
    if limit is not None and limit < 1:
        raise BadInput(f"{path}: limit must be at least 1, given: {limit}")
    if str(path) == "-":
        return [Document(standard_input(), name=STANDARD_INPUT)]
    path = Path(path).expanduser()
    must_exist(path)
    if path.is_dir():
        return documents_of(path, limit)
    return list(islice(documents_in(path), limit))
