"""Documents from whatever holds them: files, folders, patterns, tables, databases, pictures, Python's own manual."""

from __future__ import annotations

import os
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from intarsia.data.documents.folders import LONG, files_in, left_out_told
from intarsia.data.documents.single import TABLES, WHOLE, is_document
from intarsia.data.files import must_exist, split_name
from intarsia.data.pictures import SUFFIXES as PICTURES
from intarsia.errors import BadInput, Note, did_you_mean
from intarsia.prompting.data.documents import SourceDocument
from intarsia.prompting.data.rows import Columns, rows_of_file
from intarsia.prompting.data.whole import whole_file

PYTHON = "python-docs"
FORMATS = (*WHOLE, *TABLES, *PICTURES)
_SCHEME = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_PATTERN = re.compile(r"[*?\[]")


def load_documents(
    source: str | Path, *, text: str | tuple[str, ...] = (), title: str = "", id: str = "", pictures: Any = None,
    limit: int | None = None,
) -> Iterator[SourceDocument]:  # fmt: skip
    """The documents of a source, one by one.

    - a file: `.txt`, `.md`, `.rst`, `.html`, `.htm`, `.docx` (one document each), `.pdf` (one, a section a page),
      `.jsonl`, `.json`, `.csv`, `.tsv`, `.parquet` (a document a row), a picture (its description).
    - a folder, or a pattern (`notes/**/*.md`): all such files in it, but hidden ones. What cannot be read is left out,
      with one note that says which and why; of a table that breaks off after its first row, that is an error.
    - `sqlite:FILE?table=NAME` or `?query=SELECT ...`: a document a row, the file opened for reading alone; the same of
      any database that SQLAlchemy knows: `postgresql://host/name?table=NAME` (the extra `sql`).
    - `python-docs`: what the installed Python says of itself: its topics, and the docstrings of its library.

    - text: columns whose cells are the text, in their order; default: the column that is called so (`text`, `content`,
      `body` ...), else all of a row, as `name: value` lines. title, id: columns too; by default by their usual names.
      All other columns are metadata.
    - pictures: a `Model` that writes about pictures (BLIP, SmolVLM ...); without one they are left out, with a note.
    - limit: no more documents than this.

    Raises `BadInput` for what is not there or cannot be read, and `MissingExtra`."""
    if limit is not None and limit < 1:
        raise BadInput(f"{source}: limit must be at least 1, given: {limit}")
    columns = Columns((text,) if isinstance(text, str) else tuple(text), title, id)
    for number, document in enumerate(_documents(source, columns, pictures), 1):
        yield document
        if number == limit:
            return


def source_name(source: str | Path) -> str:
    """What a source is called in a store: a path as it was given, but for detours; anything else as it is."""
    given = str(source)
    if is_database(given) or given == PYTHON:
        return given
    path, hash_, fragment = given.partition("#")
    return Path(os.path.normpath(Path(path).expanduser())).as_posix() + hash_ + fragment


def is_database(source: str) -> bool:
    """Whether it names rows of a database."""
    return source.startswith("sqlite:") or bool(_SCHEME.match(source))


def _documents(source: str | Path, columns: Columns, pictures: Any) -> Iterator[SourceDocument]:
    given = str(source)
    if given == PYTHON and not Path(given).exists():
        from intarsia.prompting.data.python_manual import python_manual

        return python_manual()
    if (found := _SCHEME.match(given)) and found[1].lower() in ("http", "https", "ftp", "file"):
        raise BadInput(f"{given}: nothing is fetched here: save it, and give the file")
    if is_database(given):
        from intarsia.prompting.data.databases import rows_of_database

        return rows_of_database(given, columns)
    path = Path(given).expanduser()
    if not path.exists() and _PATTERN.search(given):
        root = Path(path.anchor)
        files = sorted(file for file in root.glob(str(path.relative_to(path.anchor))) if file.is_file())
        if not files:
            raise BadInput(f"{given}: no file is called so")
        return _many(given, files, columns, pictures)
    must_exist(path)
    if path.is_dir():
        return _many(given, files_in(path, about=True), columns, pictures)
    return documents_of_file(path, columns, pictures)


def _many(label: str, files: list[Path], columns: Columns, pictures: Any) -> Iterator[SourceDocument]:
    """The documents of files; what cannot be read is told at the end."""
    left_out: dict[str, list[str]] = {}
    count = 0
    for path in files:
        documents = documents_of_file(path, columns, pictures)
        try:
            first = next(documents)
        except BadInput as error:
            reason = str(error).removeprefix(f"{path}: ")
            if not known(path.name):
                reason = "no format of documents"
            left_out.setdefault(reason if len(reason) <= LONG else f"{reason[:LONG]}…", []).append(path.name)
            continue
        yield first
        count += 1
        for document in documents:
            yield document
            count += 1
    told = left_out_told(left_out)
    if not count:
        raise BadInput(f"{label}: no documents in it; known: {', '.join(FORMATS)}" + (f"; {told}" if told else ""))
    if told:
        warnings.warn(Note(f"{label}: {told}"), stacklevel=3)


def known(name: str) -> bool:
    """Whether a file of this name can be read."""
    return is_document(name) or Path(name).suffix.lower() in PICTURES


def documents_of_file(path: Path, columns: Columns, pictures: Any = None) -> Iterator[SourceDocument]:
    """The documents of one file. Raises `BadInput` for what cannot be read, and `MissingExtra`."""
    suffix = split_name(path.name)[1]
    if not known(path.name):
        hint = "; save it as .docx" if suffix in (".doc", ".odt", ".rtf", ".pages") else did_you_mean(suffix, FORMATS)
        raise BadInput(f"{path}: unknown format '{suffix or path.name}'{hint}; known: {', '.join(FORMATS)}")
    if path.stat().st_size == 0:
        raise BadInput(f"{path}: is empty; give a document with text in it")
    if suffix in PICTURES:
        from intarsia.prompting.data.describing import described

        yield described(path, source_name(path), pictures)
    elif suffix in TABLES:
        yield from rows_of_file(path, source_name(path), columns)
    else:
        yield whole_file(path, source_name(path))
