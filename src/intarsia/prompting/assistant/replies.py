"""What an assistant says: an answer, where it stands, and which of its words are copied."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from intarsia.prompting.assistant.gathering import Evidence
from intarsia.prompting.data.store import Edge, Passage
from intarsia.prompting.execute.copying import Copied, copied
from intarsia.prompting.execute.trust import plain

NOTHING = "The documents do not say."
By = Literal["facts", "model", "quotes", "nothing"]


@dataclass(frozen=True)
class Turn:
    """One question and its answer, earlier in a conversation."""

    question: str
    answer: str


@dataclass(frozen=True)
class Citation:
    """Where an answer stands. id: its number in the answer, `2` or `E17`; place: `page.md#part`, or a fact's source;
    about: headings, or the fact itself."""

    id: str
    place: str
    about: str = ""

    @staticmethod
    def of(one: Passage | Edge) -> Citation:
        if isinstance(one, Edge):
            return Citation(f"E{one.id}", one.source, one.line)
        return Citation(one.id, one.citation, one.about)


@dataclass(frozen=True)
class Reply:
    """- by: what it was made of: the graph's facts, the model, quotes of passages, or nothing: it was refused.
    - citations: of what the answer rests on. nearest: what else was found, best first.
    - copied: stretches of the answer that stand word for word in a passage; `source` is a citation's id.
    - strength: how near the nearest passage is to the question, 0 to 1."""

    answer: str
    by: By
    citations: tuple[Citation, ...] = ()
    nearest: tuple[Citation, ...] = ()
    copied: tuple[Copied, ...] = ()
    strength: float = field(default=0.0)

    @property
    def refused(self) -> bool:
        return self.by == "nothing"


def reply(
    answer: str, by: By, cited: Sequence[Passage | Edge], evidence: Evidence, quote_words: int
) -> Reply:  # fmt: skip
    """A reply that cites what it rests on, with the words that are copied from the passages marked."""
    answer = plain(answer)
    citations = tuple(Citation.of(one) for one in cited)
    ids = {citation.id for citation in citations}
    passages = [p for p in evidence.passages if p.id in ids] + [p for p in evidence.passages if p.id not in ids]
    marks = copied(answer, ((p.id, p.text) for p in passages), least=quote_words)
    return Reply(answer, by, citations, _others(evidence.passages, ids), tuple(marks), evidence.strength)


def refusal(evidence: Evidence) -> Reply:
    """Nothing is answered; what was nearest is told."""
    return Reply(NOTHING, "nothing", nearest=_others(evidence.passages, set()), strength=evidence.strength)


def _others(passages: Iterable[Passage], ids: set[str]) -> tuple[Citation, ...]:
    return tuple(Citation.of(passage) for passage in passages if passage.id not in ids)
