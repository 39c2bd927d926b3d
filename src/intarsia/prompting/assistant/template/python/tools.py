"""What the model may call in the flow `work`. What a tool gives is text from outside: it is fenced, and no tool that
writes can be called because of it, unless a person agrees."""

from __future__ import annotations

from intarsia.prompting.assistant import Assistant
from intarsia.prompting.assistant.python_names import describe
from intarsia.prompting.execute import tool

assistant = Assistant.open(__file__)


@tool
def lookup(name: str) -> str:
    """The signature and the documentation of something in Python's standard library.

    - name: with its module, as in json.loads"""
    return describe(name)


@tool
def search(query: str) -> str:
    """Search Python's documentation for passages.

    - query: a question, or words that the passage holds"""
    return assistant.store.search(query, k=3).context(600).text or "nothing found"


@tool
def facts(name: str) -> str:
    """Known facts about something in Python's standard library: what it raises, inherits from, calls.

    - name: with its module, as in bz2.open"""
    return "\n".join(f"[E{edge.id}] {edge.line}" for edge in assistant.store.edges(name)[:20])
