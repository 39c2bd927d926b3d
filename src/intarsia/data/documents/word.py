"""Word documents (`.docx`) to text: paragraphs divided by blank lines, headings and tables as Markdown writes them.

So whoever leaves headings and tables out of a text knows them. Footnotes, comments, text boxes, formulas, the page's
header and footer, and what tracked changes removed are not read."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from intarsia.errors import BadInput, MissingExtra, first_line

LARGEST = 2**30
"""The most bytes that its parts may have unpacked."""

_HEADING = re.compile(r"(?i)(title|subtitle|heading)(?: ([1-6]))?")
_W = "{http://schemas.openxmlformats.org/wordprocessingml/2006/main}"
_MC = "{http://schemas.openxmlformats.org/markup-compatibility/2006}"
_SIGNS = {f"{_W}tab": "\t", f"{_W}br": "\n", f"{_W}cr": "\n", f"{_W}noBreakHyphen": "-"}
# Text boxes stand in a document twice, for new readers and for old ones; deleted text is kept beside what replaced it.
_LEFT_OUT = {f"{_W}del", f"{_W}moveFrom", f"{_W}pict", f"{_W}drawing", f"{_MC}AlternateContent"}


def word_text(path: Path) -> str:
    """The text of a `.docx` file. Raises `BadInput` where there is none or it is damaged, and `MissingExtra`."""
    try:
        import docx
    except ImportError:
        raise MissingExtra(f"{path}: reading .docx", "detect") from None
    with path.open("rb") as file:
        start = file.read(4)
    if start == b"\xd0\xcf\x11\xe0":
        raise BadInput(f"{path}: an old Word document, or one with a password; save it as .docx without one")
    try:
        with zipfile.ZipFile(path) as parts:
            if sum(part.file_size for part in parts.infolist()) > LARGEST:
                raise BadInput(f"{path}: over {LARGEST >> 20} MiB unpacked; save it without its pictures")
        document = docx.Document(str(path))
        styles = {style.style_id: style.name or "" for style in document.styles}
        text = "\n\n".join(_blocks(document.element.body, styles))
    except BadInput:
        raise
    except Exception as error:  # a damaged part may raise anything
        raise BadInput(f"{path}: not a readable .docx file: {first_line(error, 120)}") from None
    if not text.strip():
        raise BadInput(f"{path}: has no text in it; a scan must be made readable first (OCR)")
    return text


def _blocks(parent: Any, styles: dict[str, str]) -> Iterator[str]:
    """The paragraphs and tables in an element, in order, without empty ones."""
    for child in parent:
        if child.tag == f"{_W}p":
            if text := _text(child).strip():
                yield _headed(child, text, styles)
        elif child.tag == f"{_W}tbl":
            yield from _table(child, styles)
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent", f"{_W}ins", f"{_W}customXml", f"{_W}smartTag"):
            yield from _blocks(child, styles)


def _text(element: Any) -> str:
    parts = []
    for child in element:
        if child.tag == f"{_W}t":
            parts.append(child.text or "")
        elif child.tag in _SIGNS:
            parts.append(_SIGNS[child.tag])
        elif child.tag not in _LEFT_OUT and child.tag != f"{_W}pPr":  # its tabs are places, not signs
            parts.append(_text(child))
    return "".join(parts)


def _headed(paragraph: Any, text: str, styles: dict[str, str]) -> str:
    style = paragraph.find(f"{_W}pPr/{_W}pStyle")
    name = "" if style is None else styles.get(style.get(f"{_W}val", ""), "")
    if not (found := _HEADING.fullmatch(name)):
        return text
    return f"{'#' * int(found[2] or 1)} {' '.join(text.split())}"


def _within(element: Any, tag: str) -> Iterator[Any]:
    """The children of a kind, also where a content control is around them; not those of a table in the table."""
    for child in element:
        if child.tag == tag:
            yield child
        elif child.tag in (f"{_W}sdt", f"{_W}sdtContent"):
            yield from _within(child, tag)


def _table(table: Any, styles: dict[str, str]) -> Iterator[str]:
    rows = [list(_within(row, f"{_W}tc")) for row in _within(table, f"{_W}tr")]
    if max((len(row) for row in rows), default=0) < 2:
        for row in rows:  # a frame around text, not a table
            for cell in row:
                yield from _blocks(cell, styles)
        return
    lines = []
    for row in rows:
        cells = [" ".join(" ".join(_blocks(cell, {})).split()).replace("|", r"\|") for cell in row]
        lines.append(f"| {' | '.join(cells)} |")
    yield "\n".join([lines[0], f"|{' --- |' * len(rows[0])}", *lines[1:]])
