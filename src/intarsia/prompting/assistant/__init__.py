"""A domain assistant: questions answered from a folder's documents and facts, with where each answer stands.

- `new_assistant`: writes the project, a person's own from then on: settings, prompts, tools, a flow, questions.
- `Assistant`: that folder, opened: its store, its model, its prompts, its tools, its flow.
- What a flow is put together from, each to be called by itself: `gather` (passages and facts for a question),
  `told_by_facts`, `written_by` (a model, held to a shape and to what it cites), `quotes`, `support`, `refusal`.
- `measure`: how often the right place is cited, how often it says that it does not know, and how long it takes."""

from __future__ import annotations

from intarsia.lazy import lazily

_HOMES = {
    "Assistant": "opening",
    "Citation": "replies",
    "Evidence": "gathering",
    "MeasuredAssistant": "measuring",
    "Reply": "replies",
    "Settings": "settings",
    "Turn": "replies",
    "facts_reply": "facts",
    "gather": "gathering",
    "measure": "measuring",
    "new_assistant": "scaffolding",
    "quoted": "quoting",
    "quotes": "quoting",
    "refusal": "replies",
    "support": "supporting",
    "told_by_facts": "facts",
    "update": "documents",
    "written_by": "writing",
}
__all__ = [*_HOMES]

__getattr__ = lazily(__name__, _HOMES)


def __dir__() -> list[str]:
    return sorted(__all__)
