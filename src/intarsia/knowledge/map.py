"""`knowledge.map`: the entities of a graph on a plane, with the new ones marked."""

from __future__ import annotations

from typing import Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.report import Column, Figure, Finding, Series, Table


class MapConfig(Config):
    method: Literal["tsne", "pca"] = Field("tsne", description="t-SNE keeps neighbours, PCA distances")
    most: int = Field(1500, ge=10, description="entities that are drawn; of more, a random part of each snapshot")
    names: int = Field(24, ge=0, description="entities with their name beside them: those with most facts")
    by: Literal["snapshot", "relation"] = Field(
        "snapshot", description="what colours them: when they came, or the relation most of their facts have"
    )
    snapshot: int | None = Field(None, description="as the graph was after this snapshot; unset: the last one")


class Spot(pydantic.BaseModel):
    """One entity on the plane. - group: what colours it; facts: how many it has."""

    name: str
    x: float
    y: float
    group: str
    facts: int


class GraphMap(Finding):
    """Where entities lie."""

    spots: list[Spot] = Field(default_factory=list)
    groups: list[str] = Field(default_factory=list)
    entities: int = 0
    together: float | None = None
    named: int = 0

    def tables(self) -> list[Table]:
        columns = [Column(name="group"), Column(name="drawn", format=",d"), Column(name="with most facts")]
        rows = []
        for group in self.groups:
            mine = sorted((s for s in self.spots if s.group == group), key=lambda s: -s.facts)
            rows.append([group, len(mine), ", ".join(spot.name for spot in mine[:5])])
        note = f"{len(self.spots):,} of {self.entities:,} entities."
        if self.together is not None:
            note += f" {self.together:.0%} of the ten nearest neighbours in the vectors are so on the plane too."
        return [Table(title="What is drawn", columns=columns, rows=rows, note=note)]

    def figures(self) -> list[Figure]:
        series = []
        for group in self.groups:
            mine = [spot for spot in self.spots if spot.group == group]
            if mine:
                series.append(
                    Series(name=group, x=[s.x for s in mine], y=[s.y for s in mine], labels=[s.name for s in mine])
                )
        named = sorted(self.spots, key=lambda spot: -spot.facts)[: self.named]
        figures = [Figure(title=self.title, kind="scatter", series=series, format=".1f", note="A point an entity.")]
        if named:
            names = [spot.name for spot in named]
            one = Series(name="entities", x=[s.x for s in named], y=[s.y for s in named], labels=names)
            title = "Where those with most facts lie"
            figures.append(Figure(title=title, kind="scatter", series=[one], format=".1f"))
        return figures


@technique(
    "knowledge.map",
    kind="look",
    family="pictures",
    source="van der Maaten & Hinton 2008 (t-SNE)",
    needs="facts",
    extra="knowledge",
    example={"subject": "python", "most": 500},
)
def map_entities(graph: KnowledgeGraph, config: MapConfig, *, seed: int = 0) -> GraphMap:
    """Draw the entities of a grown graph on a plane, those of the last snapshot marked.

    The vectors are brought to two dimensions; near means alike. A figure says how many of the nearest neighbours stay
    neighbours: a map of hundreds of dimensions always shows less than there is.

    - GRAPH: the folder of a graph that `knowledge.grow` learned, or `python`."""
    from intarsia.knowledge.asking.mapping import look

    return look(graph, config, seed)
