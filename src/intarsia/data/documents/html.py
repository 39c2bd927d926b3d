"""Web pages to text: headings, lists, tables and code as Markdown writes them; what frames a page (menus, footers,
scripts) is left out, and so is what nobody sees on it, which is counted: instructions to a model are hidden there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from intarsia.data.documents.headings import Heading
from intarsia.data.documents.invisible import without_unseen
from intarsia.data.documents.unseen import drops, unseen_by_style
from intarsia.data.files import unpacked
from intarsia.errors import BadInput, MissingExtra

ENTRY = 7
"""The level of what a page defines term by term (`<dt id=...>`), below all headings."""
_BLOCKS = frozenset((
    "address", "article", "aside", "blockquote", "body", "center", "dd", "details", "div", "dl", "dt", "fieldset",
    "figcaption", "figure", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr", "html", "legend", "li", "main",
    "ol", "p", "pre", "section", "summary", "table", "tbody", "tfoot", "thead", "tr", "ul",
))  # fmt: skip
_HEADINGS = {f"h{n}": n for n in range(1, 7)}
_LAYOUT = "h1, h2, h3, h4, h5, h6, table, pre, dl"  # what stands in no cell of a table of data
_TITLE = 120
_TAG = re.compile(r"<[^>]*>")


@dataclass(frozen=True)
class Page:
    """A page that was read. headings: by their places in `text`. hidden: pieces that nobody sees, left out."""

    text: str
    title: str
    headings: tuple[Heading, ...]
    hidden: int


def html_text(path: Path) -> str:
    """The text of a page. Raises `BadInput` where there is none, and `MissingExtra`."""
    return read_page(path).text


def read_page(path: Path) -> Page:
    """A page from a file, whatever encoding it declares. Raises `BadInput` where it has no text, and `MissingExtra`."""
    page = page_of(unpacked(path), str(path))
    if not page.text:
        raise BadInput(f"{path}: has no text that can be seen; a page that scripts write must be saved by a browser")
    return page


def page_of(source: bytes | str, label: str = "the page") -> Page:
    """A page from its source."""
    try:
        from selectolax.lexbor import LexborHTMLParser
    except ImportError:
        raise MissingExtra(f"{label}: reading .html", "documents") from None
    if isinstance(source, bytes):
        source = _decoded(source)
    parser = LexborHTMLParser(source)
    writer = _Writer(unseen_by_style(parser))
    if parser.body is not None:
        writer.walk(parser.body)
    title = parser.css_first("title")
    text, headings = writer.finished()
    name = " ".join(title.text().split()) if title is not None else ""
    return Page(text, name or next((h.title for h in headings if h.title), ""), headings, writer.hidden)


_CHARSET = re.compile(rb"<meta[^>]{0,200}?charset\s*=\s*[\"']?\s*([\w-]{2,30})", re.IGNORECASE)


def _decoded(raw: bytes) -> str:
    """By its byte order mark, else UTF-8, else what the page declares, else what browsers take it for."""
    for mark, name in ((b"\xef\xbb\xbf", "utf-8-sig"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16")):
        if raw.startswith(mark):
            return raw.decode(name, "replace")
    declared = _CHARSET.search(raw[:4096])
    for name in ("utf-8", declared[1].decode() if declared else "", "cp1252"):
        try:
            return raw.decode(name)
        except (LookupError, UnicodeDecodeError):
            continue
    return raw.decode("utf-8", "replace")


class _Writer:
    """Walks a page and writes its text, block by block. Without recursion: a page may be nested however deep."""

    def __init__(self, unseen: frozenset[int]):
        self.unseen, self.hidden = unseen, 0
        self.parts: list[str] = []  # blocks, with what stands between them
        self.length = 0
        self.headings: list[Heading] = []
        self.line: list[str] = []  # the block that is being written
        self.lists: list[int | None] = []  # numbers of the items of ordered lists, None of others
        self.item = ""  # what the next block begins with
        self.anchor = ""  # the last anchor before a heading
        self.tables: list[list[list[str]]] = []
        self.entries = 0
        self.code = 0

    def walk(self, body: Any) -> None:
        """All of it, in order."""
        node = body
        while True:
            inside = node.child if self._enter(node) else None
            if inside is not None:
                node = inside
                continue
            while node.next is None or node.mem_id == body.mem_id:
                if node.mem_id == body.mem_id:
                    return
                node = node.parent
                self._leave(node)
                if node.mem_id == body.mem_id:
                    return
            node = node.next

    def finished(self) -> tuple[str, tuple[Heading, ...]]:
        self._flush()
        return "".join(self.parts), tuple(h for h in self.headings if h.start < self.length)

    def _enter(self, node: Any) -> bool:
        """Whether to go inside."""
        tag = node.tag
        if tag == "-text":
            self._say(node.text_content or "")
            return False
        if tag.startswith("-"):
            self.hidden += tag == "-comment" and bool((node.comment_content or "").strip())
            return False
        attributes = node.attributes
        if node.mem_id in self.unseen or drops(tag, attributes) == "hidden":
            self.hidden += bool(_TAG.sub("", node.html or "").strip())  # `text` does not look into templates
            return False
        if drops(tag, attributes) == "frame":
            return False
        if (name := attributes.get("id") or (attributes.get("name") if tag == "a" else "")) and tag not in ("dt",):
            self.anchor = name
        if tag == "br":
            self.line.append("\n")
        elif tag in _BLOCKS or tag in ("td", "th"):
            self._begin(node, tag, attributes)
        if node.child is None:
            self._leave(node)
            return False
        return True

    def _begin(self, node: Any, tag: str, attributes: dict[str, Any]) -> None:
        if self.tables and tag in ("tr", "td", "th"):
            if tag == "tr":
                self.tables[-1].append([])
            self.line = []
            return
        if self.tables:
            self.line.append(" ")
            return
        self._flush()
        if tag == "table" and not any(inner.mem_id != node.mem_id for inner in node.css(_LAYOUT)):
            self.tables.append([])
        elif tag in ("ul", "ol"):
            self.lists.append(_number(attributes.get("start")) if tag == "ol" else None)
        elif tag == "li" and self.lists:
            number = self.lists[-1]
            self.item = "- " if number is None else f"{number}. "
            if number is not None:
                self.lists[-1] = number + 1
        elif tag == "pre":
            self.code += 1
        elif tag == "dt" and attributes.get("id"):
            self.anchor = attributes["id"]

    def _leave(self, node: Any) -> None:
        tag = node.tag
        if self.tables:
            if tag in ("td", "th") and self.tables[-1]:
                self.tables[-1][-1].append(_folded("".join(self.line)).replace("|", r"\|"))
                self.line = []
            elif tag == "table":
                self._table(self.tables.pop())
            return
        if tag in _HEADINGS:
            self._head(_HEADINGS[tag], _anchor_of(node) or self.anchor)
        elif tag == "dt" and node.attributes.get("id"):
            self.entries += 1
            self._head(ENTRY, node.attributes["id"])
        elif tag == "dl" and self.entries:
            self._flush()
            self.entries = 0
            self.headings.append(Heading(ENTRY, "", self.length + (2 if self.parts else 0)))
        elif tag == "pre":
            self._pre()
        elif tag in ("ul", "ol") and self.lists:
            self._flush()
            self.lists.pop()
        elif tag in _BLOCKS:
            self._flush()

    def _say(self, text: str) -> None:
        seen, count = without_unseen(text)
        self.hidden += count
        self.line.append(seen if self.code else re.sub(r"\s+", " ", seen))

    def _head(self, level: int, anchor: str) -> None:
        title = _folded("".join(self.line))
        self.line = [] if title else self.line
        if title:
            start = self._put(f"{'#' * level} {title}" if level < ENTRY else title)
            short = title if len(title) <= _TITLE else f"{title[:_TITLE].rsplit(' ', 1)[0]} …"
            self.headings.append(Heading(level, short, start, anchor))
        self.anchor = ""

    def _pre(self) -> None:
        self.code = max(0, self.code - 1)
        code = "".join(self.line).strip("\n").rstrip()
        self.line = []
        if code.strip():
            fence = "`" * max(3, 1 + max((len(run) for run in re.findall("`+", code)), default=0))
            self._put(f"{fence}\n{code}\n{fence}")

    def _table(self, rows: list[list[str]]) -> None:
        self.line = []
        rows = [row for row in rows if any(row)]
        if max((len(row) for row in rows), default=0) < 2:
            for row in rows:
                self._put(" ".join(row))
            return
        width = max(map(len, rows))
        lines = [f"| {' | '.join([*row, *[''] * (width - len(row))])} |" for row in rows]
        self._put("\n".join([lines[0], f"|{' --- |' * width}", *lines[1:]]))

    def _flush(self) -> None:
        """End the block that is being written."""
        raw, self.line = "".join(self.line), []
        text = "\n".join(folded for line in raw.split("\n") if (folded := _folded(line)))
        if text:
            self._put(text)

    def _put(self, text: str) -> int:
        """Write a block; where it begins."""
        close = bool(self.lists)
        indent = "  " * max(len(self.lists) - 1, 0)
        if self.item or (self.lists and indent):
            text = indent + self.item + text.replace("\n", f"\n{indent}{' ' * len(self.item)}")
        self.item = ""
        between = "" if not self.parts else "\n" if close and self._in_list else "\n\n"
        self._in_list = close
        self.parts += [between, text]
        self.length += len(between) + len(text)
        return self.length - len(text)

    _in_list = False


def _anchor_of(node: Any) -> str:
    """A heading's own anchor, one in it, or that of the section it opens."""
    if found := node.attributes.get("id"):
        return found
    inner = node.css_first("[id], a[name]")
    if inner is not None and (found := inner.attributes.get("id") or inner.attributes.get("name")):
        return found
    parent = node.parent
    if parent is not None and parent.tag in ("section", "div", "article") and parent.attributes.get("id"):
        before = node.prev
        while before is not None and (before.tag.startswith("-") and not (before.text_content or "").strip()):
            before = before.prev
        return parent.attributes["id"] if before is None or before.tag == "span" else ""
    return ""


def _folded(text: str) -> str:
    return " ".join(text.split())


def _number(text: str | None) -> int:
    return int(text) if text and re.fullmatch(r"-?\d{1,9}", text) else 1
