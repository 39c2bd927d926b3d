"""What the model may call in the flow `work`. What a tool gives is text from outside: it is fenced, and no tool that
writes can be called because of it, unless a person agrees."""

from __future__ import annotations

from intarsia.prompting.assistant import Assistant
from intarsia.prompting.execute import tool

assistant = Assistant.open(__file__)


@tool
def search(query: str) -> str:
    """Search the documents for passages.

    - query: a question, or words that the passage holds"""
    return assistant.store.search(query, k=3).context(600).text or "nothing found"


@tool
def facts(name: str) -> str:
    """Known facts about a thing.

    - name: what it is called"""
    return "\n".join(f"[E{edge.id}] {edge.line}" for edge in assistant.store.edges(name)[:20])
