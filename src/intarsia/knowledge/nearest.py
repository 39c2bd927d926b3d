"""`knowledge.nearest`: what is most like an entity, and what they share."""

from __future__ import annotations

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.report import Column, Figure, Finding, Series, Table


class NearestConfig(Config):
    entity: str = Field(description="name of the entity")
    top: int = Field(10, ge=1, description="how many")
    snapshot: int | None = Field(None, description="as the graph was after this snapshot; unset: the last one")


class Neighbour(pydantic.BaseModel):
    """- likeness: cosine of the two vectors. shared: facts that both have, as "relation other"; count: how many."""

    name: str
    likeness: float
    shared: list[str] = []
    count: int = 0
    about: str = ""


class Nearest(Finding):
    """The entities whose vectors lie nearest."""

    entity: str = ""
    neighbours: list[Neighbour] = Field(default_factory=list)

    def tables(self) -> list[Table]:
        columns = [
            Column(name="entity"),
            Column(name="likeness", format=".3f", help="cosine of the vectors"),
            Column(name="shared facts", format="d"),
            Column(name="for example"),
            Column(name="about"),
        ]
        rows = [[n.name, n.likeness, n.count, "; ".join(n.shared), n.about] for n in self.neighbours]
        return [Table(title=f"Most like {self.entity}", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        names = [n.name for n in self.neighbours]
        series = [Series(name="likeness", x=names, y=[n.likeness for n in self.neighbours])]
        return [Figure(title=f"Most like {self.entity}", kind="bar", y="cosine", series=series, format=".3f")]


@technique(
    "knowledge.nearest",
    kind="look",
    family="asking",
    source="cosine of embeddings",
    needs="facts",
    extra="knowledge",
    example={"subject": "python", "entity": "bz2.BZ2File"},
)
def nearest(graph: KnowledgeGraph, config: NearestConfig) -> Nearest:
    """The entities most like one, by their vectors, with the facts that they share.

    - GRAPH: the folder of a graph that `knowledge.grow` learned, or `python`.

    Raises `BadInput` for a name that is not in the graph, with near ones."""
    from intarsia.knowledge.asking.likeness import look

    return look(graph, config)
