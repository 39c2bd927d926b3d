"""A file that is one document, with its sections."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from intarsia.data.documents.headings import Heading, markdown_headings, rst_headings
from intarsia.data.documents.html import read_page
from intarsia.data.documents.invisible import without_comments, without_unseen
from intarsia.data.documents.pdf import pdf_pages
from intarsia.data.documents.plain import plain_text
from intarsia.data.documents.word import word_text
from intarsia.data.files import split_name
from intarsia.prompting.data.documents import Section, SourceDocument

MEDIA = {
    ".txt": "text/plain", ".md": "text/markdown", ".rst": "text/x-rst", ".html": "text/html", ".htm": "text/html",
    ".pdf": "application/pdf",
    ".docx": "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
}  # fmt: skip
_FRONT = re.compile(r"---[ \t]*\n(.*?\n)(?:---|\.\.\.)[ \t]*(?:\n|$)", re.DOTALL)


def whole_file(path: Path, name: str) -> SourceDocument:
    """The document of a file of text. Raises `BadInput` for what cannot be read, and `MissingExtra`.

    The front matter of Markdown (`---` and YAML) becomes title and metadata."""
    suffix = split_name(path.name)[1]
    media = MEDIA[suffix]
    if suffix in (".html", ".htm"):
        page = read_page(path)
        return SourceDocument(
            page.text, name, page.title, sections=sections_of(page.headings, len(page.text)), media=media,
            hidden=page.hidden,
        )  # fmt: skip
    if suffix == ".pdf":
        return _pages(pdf_pages(path), name, split_name(path.name)[0], media)
    read = word_text(path) if suffix == ".docx" else plain_text(path)
    text, hidden = without_unseen(read)
    metadata: dict[str, Any] = {}
    if suffix == ".md":
        text, metadata = _front(text)
        text, comments = without_comments(text)
        hidden += comments
    headings: list[Heading] = []
    if suffix in (".md", ".docx"):
        headings = markdown_headings(text)
    elif suffix == ".rst":
        headings = rst_headings(text)
    title = str(metadata.pop("title", "") or "") or (headings[0].title if headings else split_name(path.name)[0])
    return SourceDocument(text, name, title, metadata, sections_of(headings, len(text)), media, hidden)


def sections_of(headings: Sequence[Heading], length: int) -> tuple[Section, ...]:
    """Sections without gaps from headings in order."""
    out: list[Section] = []
    open_: list[Heading] = []
    if not headings or headings[0].start > 0:
        out.append(Section((), 0, headings[0].start if headings else length))
    for i, heading in enumerate(headings):
        end = headings[i + 1].start if i + 1 < len(headings) else length
        open_ = [other for other in open_ if other.level < heading.level]
        if heading.title:
            open_.append(heading)
        if end > heading.start:
            anchor = next((other.anchor for other in reversed(open_) if other.anchor), "")
            out.append(Section(tuple(other.title for other in open_), heading.start, min(end, length), anchor))
    return tuple(out) if headings else ()


def _pages(pages: Sequence[str], name: str, title: str, media: str) -> SourceDocument:
    """The pages of a PDF, each a section without a heading: `file.pdf#page=3`."""
    sections, hidden = [], 0
    parts: list[str] = []
    length = 0
    for number, page in enumerate(pages, 1):
        seen, count = without_unseen(page)
        hidden += count
        if not seen.strip():
            continue
        if parts:
            parts.append("\n\n")
            length += 2
        sections.append(Section((), length, length + len(seen), f"page={number}"))
        parts.append(seen)
        length += len(seen)
    text = "".join(parts)
    ends = [*(section.start for section in sections[1:]), len(text)]
    whole = tuple(Section((), s.start, end, s.anchor) for s, end in zip(sections, ends, strict=True))
    return SourceDocument(text, name, title, sections=whole, media=media, hidden=hidden)


def _front(text: str) -> tuple[str, dict[str, Any]]:
    """(the text without its front matter, what that says in plain values)."""
    found = _FRONT.match(text)
    if not found:
        return text, {}
    import yaml

    try:
        given = yaml.safe_load(found[1])
    except yaml.YAMLError:
        return text, {}
    if not isinstance(given, dict) or not text[found.end() :].strip():
        return text, {}
    from intarsia.prompting.data.rows import plain_value

    plain = {str(name): plain_value(value) for name, value in given.items()}
    return text[found.end() :].lstrip("\n"), {name: value for name, value in plain.items() if value is not None}
