"""What the installed Python says of itself, as documents: the topics of `help()` (the language reference), and the
docstrings of its library, a document a module. Nothing is imported that is not safe to, and nothing is fetched."""

from __future__ import annotations

import inspect
import platform
from collections.abc import Iterator

from intarsia.data.docstrings import docstrings
from intarsia.data.documents.headings import rst_headings
from intarsia.data.python_chapters import CHAPTER_OF
from intarsia.prompting.data.documents import Section, SourceDocument
from intarsia.prompting.data.whole import sections_of

MEDIA = "text/x-rst"


def python_manual() -> Iterator[SourceDocument]:
    """Topics (`python:topics/assert`), then modules (`python:json`, a section for each function, class and method,
    `python:json#loads`), in the order of their names."""
    version = platform.python_version()
    try:
        from pydoc_data.topics import topics
    except ImportError:
        topics = {}
    for topic, body in sorted(topics.items()):
        text = body.strip("\n")
        headings = rst_headings(text)
        title = headings[0].title if headings else topic
        metadata = {"kind": "topic", "python": version}
        yield SourceDocument(text, f"python:topics/{topic}", title, metadata, sections_of(headings, len(text)), MEDIA)
    modules: dict[str, tuple[str, list[tuple[str, str]]]] = {}
    for package, chapter in CHAPTER_OF.items():
        for module, name, docstring in docstrings(package):
            modules.setdefault(module, (chapter, []))[1].append((name, inspect.cleandoc(docstring)))
    for module, (chapter, entries) in sorted(modules.items()):
        yield _module(module, entries, {"kind": "module", "chapter": chapter, "python": version})


def _module(module: str, entries: list[tuple[str, str]], metadata: dict[str, str]) -> SourceDocument:
    parts: list[str] = []
    sections: list[Section] = []
    length = 0
    for name, docstring in entries:
        if not docstring.strip():
            continue
        piece = f"{module}.{name}\n\n{docstring}\n\n"
        sections.append(Section((f"{module}.{name}",), length, length + len(piece), name))
        parts.append(piece)
        length += len(piece)
    return SourceDocument("".join(parts), f"python:{module}", module, metadata, tuple(sections), MEDIA)
