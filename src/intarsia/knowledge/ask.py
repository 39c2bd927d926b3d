"""`knowledge.ask`: what is the head, the tail or the relation of a fact that nobody wrote down?"""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.knowledge.evaluated import UNCALIBRATED
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.report import Column, Finding, Table


class AskConfig(Config):
    head: str | None = Field(None, description="name of the head; leave it out to ask for it")
    relation: str | None = Field(None, description="name of the relation; leave it out to ask how head and tail relate")
    tail: str | None = Field(None, description="name of the tail; leave it out to ask for it")
    top: int = Field(10, ge=1, description="answers that are not known")
    snapshot: int | None = Field(None, description="answer as the graph was after this snapshot; unset: the last one")


class AskedFor(pydantic.BaseModel):
    """One answer. `confidence`: the calibrated chance that it is the one missing answer, if there is one; None for what
    is known, but where a whole fact is asked about. `place`: among all that are not known, 1 being the best."""

    name: str
    known: bool = False
    confidence: float | None = None
    place: int | None = None
    about: str = ""


class Asked(Finding):
    """A question and its answers: what is known first, then what is likely."""

    question: str = ""
    answers: list[AskedFor] = Field(default_factory=list)
    known: int = 0
    candidates: int = 0
    calibrated: bool = True

    def tables(self) -> list[Table]:
        columns = [
            Column(name="answer"),
            Column(name="confidence", format=".1%", help="that it is the one missing answer, if there is one"),
            Column(name="place", format="d", help="among all that are not known"),
            Column(name="about"),
        ]
        rows: list[list[Any]] = [
            [row.name, None if row.known else row.confidence, "known" if row.known else row.place, row.about]
            for row in self.answers
        ]
        note = f"{self.known} known, {self.candidates:,} candidates."
        if not self.calibrated:
            note += f" {UNCALIBRATED}"
        return [Table(title=self.question, columns=columns, rows=rows, note=note)]


@technique(
    "knowledge.ask",
    kind="look",
    family="asking",
    source="link prediction: Bordes et al. 2013, section 4; temperature: Guo et al. 2017, section 4.2",
    needs="facts",
    extra="knowledge",
    example={"subject": "python", "head": "FileNotFoundError", "relation": "inherits_from"},
)
def ask(graph: KnowledgeGraph, config: AskConfig) -> Asked:
    """Answer a question about a grown graph: known facts first, then the likely ones, each with its confidence.

    Give a head and a relation to ask for tails, a relation and a tail to ask for heads, head and tail to ask how they
    relate, or all three to ask if it is so. The confidence is a softmax over all entities that are no known answer,
    with a temperature fitted on held-out facts; it supposes that one answer is missing.

    - GRAPH: the folder of a graph that `knowledge.grow` learned, or `python`.

    Raises `BadInput` for a name that is not in the graph, with near ones."""
    from intarsia.knowledge.asking.asking import look

    return look(graph, config)
