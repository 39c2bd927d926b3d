"""How this assistant answers, step by step: plain Python, and yours to change.

Each run is recorded: `intarsia flow ls`, `intarsia flow show ID`. Over HTTP: `intarsia serve --flows flow.py`."""

from __future__ import annotations

from collections.abc import Sequence

from intarsia.prompting.assistant import (
    Assistant,
    Reply,
    Turn,
    facts_reply,
    gather,
    quoted,
    quotes,
    refusal,
    told_by_facts,
    written_by,
)
from intarsia.prompting.base import Backend
from intarsia.prompting.data import Store
from intarsia.prompting.execute import agent, flow, step

assistant = Assistant.open(__file__)


@flow
async def answer(
    question: str, history: Sequence[Turn] = (), backend: Backend | None = None, store: Store | None = None
) -> Reply:
    """Answer a question from the documents and facts, with where the answer stands; or say that they do not say.

    history: the questions and answers before it. backend, store: others than those of assistant.yaml."""
    settings, store = assistant.settings, store or assistant.store
    before = history[-1].question if history else ""
    found = await step(
        "gather", gather, store, question, before,
        passages=settings.passages, hops=settings.hops, facts=settings.facts,
    )  # fmt: skip

    # A question for one relation of one thing: the graph knows it, or nobody does.
    told = await step("facts", told_by_facts, store, found, settings.relations)
    if told is not None:
        return facts_reply(told, found, settings.quote_words)

    if found.strength < settings.least:
        return refusal(found)

    # The model sees the passages, numbered and fenced. What it cites has to exist and to hold what it says.
    if settings.answers == "write":
        written = await written_by(backend or assistant.backend, assistant.prompt("answer"), found, settings, history)
        if written is not None:
            return written

    # Else the documents' own sentences: a quote is always right about what stands there.
    nearest = await step("quote", quotes, store, found)
    return quoted(nearest, found, settings.quote_words) if nearest else refusal(found)


@flow
async def work(question: str, backend: Backend | None = None) -> str:
    """Let the model call the tools of tools.py before it answers: for models that are good at it."""
    prompt = assistant.prompt("work").render(about=assistant.settings.about, question=question)
    done = await agent(backend or assistant.backend, assistant.tools(), prompt, steps=4)
    return done.text
