"""Plain text, from a file or from standard input: all of it is one document."""

from __future__ import annotations

import sys
from pathlib import Path

from intarsia.data.files import split_name, unpacked
from intarsia.errors import BadInput

STANDARD_INPUT = "standard input"

# What a file begins with that is no text, whatever its name says.
_BEGINNINGS = {
    b"%PDF": "a PDF: name it .pdf",
    b"PK\x03\x04": "a Word document or an archive: name it .docx, or unpack it",
    b"\xd0\xcf\x11\xe0": "an old Word document: save it as .docx",
    b"{\\rtf": "a rich text document: save it as .docx or .txt",
    b"\x1f\x8b": "packed: name it .txt.gz",
}


def plain_text(path: Path) -> str:
    """The text of a file. Raises `BadInput` where it is empty, binary or not UTF-8."""
    return _text(unpacked(path), str(path), "" if split_name(path.name)[2] else path.name)


def standard_input() -> str:
    """All of standard input. Raises `BadInput` as `plain_text` does."""
    source = getattr(sys.stdin, "buffer", sys.stdin)
    given = source.read()
    return _text(given if isinstance(given, bytes) else given.encode("utf-8", "surrogatepass"), STANDARD_INPUT)


def _text(raw: bytes, label: str, name: str = "") -> str:
    from intarsia.data.readers import decoded  # which asks this package for documents

    for beginning, what in _BEGINNINGS.items():
        if raw.startswith(beginning):
            raise BadInput(f"{label}: is no text but {what}")
    if b"\0" in raw and raw[:2] not in (b"\xff\xfe", b"\xfe\xff"):
        raise BadInput(f"{label}: is binary, not text; give .txt, .md, .docx or .pdf in UTF-8")
    text = decoded(raw, label, name)
    if not text.strip():
        raise BadInput(f"{label}: is empty; give a document with text in it")
    return text
