"""Questions made from a store's documents, each with the place that answers it: something to measure by from the start.

They are made from headings, and where a document has none, from its sentences, so they share words with what answers
them: easier than what people ask. Replace them."""

from __future__ import annotations

import random
from typing import Any

from intarsia.errors import BadInput
from intarsia.prompting.assistant.quoting import sentences
from intarsia.prompting.data.documents import headed
from intarsia.prompting.data.store import Store

MOST, LEAST_WORDS = 20, 8


def made_of(store: Store, most: int = MOST, seed: int = 0) -> list[dict[str, Any]]:
    """At most so many questions, from as many documents as there are: `{"question", "sources"}`.

    Raises `BadInput` for a store without text that could be asked for."""
    draws = random.Random(seed)
    rows: list[list[dict[str, Any]]] = []
    for stored in store.documents():
        document = store.document(stored.source)
        found = []
        for section in document.sections:
            text = document.text[section.start : section.end]
            body = text.strip().partition("\n")[2] if section.path else text
            if len(body.split()) < LEAST_WORDS:
                continue
            place = f"{document.source}#{section.anchor}" if section.anchor else document.source
            if section.path:
                asked = f"What is said about {headed(document.title, section.path[-2:])}?"
            else:
                told = max(sentences(body), key=len, default="").split()[:12]
                asked = f"Where does it say: {' '.join(told)}?" if told else ""
            if asked:
                found.append({"question": asked, "sources": [place]})
        draws.shuffle(found)
        rows.append(found)
    draws.shuffle(rows)
    out: list[dict[str, Any]] = []
    while len(out) < most and any(rows):
        out += [found.pop() for found in rows if found][: most - len(out)]
    if not out:
        raise BadInput(f"no passage of {LEAST_WORDS} words in these documents: there is nothing to answer from")
    return out
