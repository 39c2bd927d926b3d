"""`knowledge.retrieve`: what a graph knows around the entities of a text, as lines for a prompt."""

from __future__ import annotations

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.report import Block, Column, Finding, Table


class RetrieveConfig(Config):
    text: str = Field(description="the text whose entities are looked up")
    most: int = Field(20, ge=1, description="facts")
    predicted: int = Field(0, ge=0, description="facts that are not known but likely, beside these")
    least_confidence: float = Field(0.5, ge=0, le=1, description="of a predicted fact")
    hops: int = Field(2, ge=1, le=3, description="steps from an entity of the text to a fact's at most")


class Linked(pydantic.BaseModel):
    """An entity found in the text. - words: what stands there; others: entities that go by the same words."""

    words: str
    entity: str
    about: str = ""
    others: list[str] = []


class Retrieved(pydantic.BaseModel):
    """A fact with its weight (how near it is to the text's entities); `confidence` of a predicted one, else None."""

    head: str
    relation: str
    tail: str
    weight: float
    confidence: float | None = None

    @property
    def line(self) -> str:
        """As a line of a prompt."""
        relation = self.relation.replace("_", " ").strip("/").rpartition("/")[2] or self.relation
        mark = f" (likely, {self.confidence:.0%})" if self.confidence is not None else ""
        return f"{self.head} {relation} {self.tail}{mark}"


class Subgraph(Finding):
    """What the graph knows around a text."""

    text: str = ""
    linked: list[Linked] = Field(default_factory=list)
    facts: list[Retrieved] = Field(default_factory=list)

    @property
    def prompt(self) -> str:
        """Entities and facts as plain lines, for a prompt."""
        about = [f"{row.entity}: {row.about}" for row in self.linked if row.about]
        return "\n".join([*about, *(fact.line for fact in self.facts)])

    def tables(self) -> list[Table]:
        linked = [[row.words, row.entity, row.about, ", ".join(row.others)] for row in self.linked]
        columns = [Column(name="words"), Column(name="entity"), Column(name="about"), Column(name="or")]
        facts = [[f.head, f.relation, f.tail, f.weight, f.confidence] for f in self.facts]
        names = [Column(name="head"), Column(name="relation"), Column(name="tail")]
        more = [Column(name="weight", format=".4f", help="personalised PageRank of its ends")]
        if any(fact.confidence is not None for fact in self.facts):
            more.append(Column(name="confidence", format=".0%", help="of facts that are not known"))
        else:
            facts = [row[:4] for row in facts]
        return [
            Table(title="Facts around it", columns=[*names, *more], rows=facts),
            Table(title="Entities of the text", columns=columns, rows=linked),
        ]

    def blocks(self) -> list[Block]:
        facts, linked = self.tables()
        return [linked, facts]


@technique(
    "knowledge.retrieve",
    kind="look",
    family="asking",
    source="personalised PageRank: Haveliwala 2002",
    needs="facts",
    extra="knowledge",
    example={"subject": "python", "text": "Why does json.loads raise a ValueError?"},
)
def retrieve(graph: KnowledgeGraph, config: RetrieveConfig) -> Subgraph:
    """The facts around the entities that a text names, the nearest first: context for a prompt.

    Entities are found by their names and by the words of their descriptions, the longest match first. Facts within
    `hops` steps are ranked by a random walk that starts again and again at these entities. Predicted facts of the
    text's entities can be added, above a confidence. `.prompt` has all of it as plain lines.

    - GRAPH: the folder of a graph (learned, where `predicted` is asked for), or `python`.

    Raises `BadInput` when the text names no entity of the graph, with near names."""
    from intarsia.knowledge.asking.retrieving import look

    return look(graph, config)
