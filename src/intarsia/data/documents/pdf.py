"""PDF documents to text, page by page."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from intarsia.errors import BadInput, MissingExtra, first_line

_BROKEN_WORD = re.compile(r"([^\W\d_]+)-\n([^\W\d_]+)")


def pdf_text(path: Path) -> str:
    """The text of a `.pdf` file: its `pdf_pages`, divided by blank lines."""
    return "\n\n".join(page for page in pdf_pages(path) if page)


def pdf_pages(path: Path) -> list[str]:
    """The text of each page, empty ones included, words that a line's end divides joined.

    A hyphen at a line's end stays where the same document writes the word with it elsewhere (`well-known`). Raises
    `BadInput` for a damaged file, one with a password and a scan without text, and `MissingExtra`."""
    try:
        import pypdf
    except ImportError:
        raise MissingExtra(f"{path}: reading .pdf", "detect") from None
    try:
        with _quiet(), path.open("rb") as file:
            reader = pypdf.PdfReader(file)
            if reader.is_encrypted and not reader.decrypt(""):
                raise BadInput(f"{path}: needs a password; save a copy without one")
            pages = [page.extract_text() or "" for page in reader.pages]
    except BadInput:
        raise
    except Exception as error:  # a damaged file may raise anything
        raise BadInput(f"{path}: not a readable PDF: {first_line(error, 120)}") from None
    if not any(page.strip() for page in pages):
        number = f"{len(pages)} page{'' if len(pages) == 1 else 's'}"
        raise BadInput(
            f"{path}: {number} without any text, so it is a scan; make it readable first (OCR): "
            f"ocrmypdf {path.name} new.pdf"
        )
    # Half a surrogate pair is what a broken font gives: no text has one.
    pages = [page.strip().encode("utf-8", "ignore").decode() for page in pages]
    whole = _hyphened("\n\n".join(pages))
    return [joined(page, whole) for page in pages]


def joined(text: str, whole: set[str] | None = None) -> str:
    """The text with words whole that were divided at a line's end.

    - whole: words that have a hyphen anyway; default: those that the text writes so elsewhere."""
    whole = _hyphened(text) if whole is None else whole

    def word(found: re.Match[str]) -> str:
        first, second = found.groups()
        keeps = not second[0].islower() or f"{first}-{second}".casefold() in whole
        return f"{first}{'-' if keeps else ''}{second}"

    return _BROKEN_WORD.sub(word, text)


def _hyphened(text: str) -> set[str]:
    return {word.casefold() for word in re.findall(r"[^\W\d_]+-[^\W\d_]+", text)}


@contextmanager
def _quiet() -> Iterator[None]:
    """pypdf logs every oddity that it mends; what it cannot mend it raises."""
    logger = logging.getLogger("pypdf")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)
