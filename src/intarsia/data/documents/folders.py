"""The documents of a folder and the folders in it; where a document lies says whose it is and of what kind."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from intarsia.data.documents.labels import LABELS, BadLabel
from intarsia.data.documents.single import FORMATS, documents_in, is_document
from intarsia.data.files import natural, split_name
from intarsia.data.records import Document
from intarsia.errors import BadInput, Note
from intarsia.progress import track

SHOWN, LONG = 5, 120
_ABOUT = ("readme", "license", "licence", "copying", "changelog")
"""Stems of files that are about the documents beside them."""


def documents_of(folder: Path, limit: int | None = None) -> list[Document]:
    """All documents of a folder, in the order of their paths, with a note about those that were left out.

    Folders called after a label give it to what is in them, the others are the domain. Raises `BadInput` when there
    are none, `BadLabel`, and whatever is wrong with a table after its first row: half of a data set is worse than
    none."""
    found: list[Document] = []
    left_out: dict[str, list[str]] = {}
    for path in track(files_in(folder), "reading documents"):
        if limit is not None and len(found) >= limit:
            break
        name = path.relative_to(folder).as_posix()
        if not is_document(path.name):
            left_out.setdefault("no format of documents", []).append(name)
            continue
        documents = documents_in(path, name, *_said(path.relative_to(folder)))
        try:
            found.append(next(documents))
        except BadLabel:
            raise
        except BadInput as error:
            reason = str(error).removeprefix(f"{path}: ")
            left_out.setdefault(reason if len(reason) <= LONG else f"{reason[:LONG]}…", []).append(name)
            continue
        found += islice(documents, None if limit is None else limit - len(found))
    told = left_out_told(left_out)
    if not found:
        raise BadInput(f"{folder}: no documents in it; known: {', '.join(FORMATS)}" + (f"; {told}" if told else ""))
    if told:
        warnings.warn(Note(f"{folder}: {told}"), stacklevel=3)
    return found


def files_in(folder: Path, *, about: bool = False) -> list[Path]:
    """The files of a folder and the folders in it, in order, but hidden ones and, unless `about`, those that are about
    the others."""
    files = []
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        passed = not about and split_name(path.name)[0].lower() in _ABOUT
        if not any(map(_hidden, parts)) and not passed and path.is_file():
            files.append((list(map(natural, parts)), path))
    return [path for _, path in sorted(files)]


def _hidden(name: str) -> bool:
    return name.startswith((".", "~$")) or name == "__MACOSX"  # ~$: what Word leaves beside an open file


def _said(place: Path) -> tuple[str, str]:
    """Label and domain of a file, from the folders it lies in; of several labels the innermost counts."""
    folders = place.parts[:-1]
    labels = [name.lower() for name in folders if name.lower() in LABELS]
    return labels[-1] if labels else "", "/".join(name for name in folders if name.lower() not in LABELS)


def left_out_told(left_out: dict[str, list[str]]) -> str:
    """Which files were left out, and why: names by reason, as a line for a `Note`; empty where none were."""
    if not left_out:
        return ""
    reasons = []
    for reason, names in left_out.items():
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        reasons.append(f"{', '.join(names[:SHOWN])}{more} ({reason})")
    number = sum(map(len, left_out.values()))
    return f"left out {number} file{'' if number == 1 else 's'}: {'; '.join(_some(reasons))}"


def _some(reasons: list[str]) -> Iterator[str]:
    yield from reasons[:SHOWN]
    if len(reasons) > SHOWN:
        yield f"and others for {len(reasons) - SHOWN} more reasons"
