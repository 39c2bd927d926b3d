"""`knowledge.explain`: which facts and neighbours made a prediction, and which paths lead there."""

from __future__ import annotations

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.knowledge.store import KnowledgeGraph
from intarsia.report import Column, Figure, Finding, Series, Table


class ExplainConfig(Config):
    head: str = Field(description="name of the head")
    relation: str = Field(description="name of the relation")
    tail: str | None = Field(None, description="name of the tail; unset: the most likely one that is not known")
    facts: int = Field(
        40, ge=1, description="facts of the head, and of the tail, that are tried: the most telling ones"
    )
    longest: int = Field(3, ge=1, le=3, description="steps of a path at most")
    top: int = Field(8, ge=1, description="facts, neighbours and paths that are shown")
    snapshot: int | None = Field(None, description="as the graph was after this snapshot; unset: the last one")


class Support(pydantic.BaseModel):
    """A fact that was learned. - effect: the log-odds that the prediction loses when the head's or the tail's vector is
    learned again without it (positive: it speaks for the prediction); without: the confidence with that much less."""

    fact: str
    of: str
    effect: float
    without: float


class Path(pydantic.BaseModel):
    """A way from head to tail over learned facts. - rule: its relations; holds: of `pairs` pairs of entities (a sample)
    that such a way joins, the share that the relation in question joins too."""

    steps: list[str]
    rule: str
    holds: float
    pairs: int


class Kin(pydantic.BaseModel):
    """An entity like the head of which the same is known. - likeness: cosine of the vectors."""

    name: str
    likeness: float
    fact: str


class PredictionExplained(Finding):
    """Why a graph believes a fact."""

    fact: str = ""
    known: bool = False
    confidence: float = 0.0
    place: int = 0
    supports: list[Support] = Field(default_factory=list)
    paths: list[Path] = Field(default_factory=list)
    kin: list[Kin] = Field(default_factory=list)

    def tables(self) -> list[Table]:
        tables = []
        if self.supports:
            columns = [
                Column(name="learned fact"),
                Column(name="of"),
                Column(name="effect", format="+.2f", help="log-odds that are lost without the fact"),
                Column(name="confidence without it", format=".1%"),
            ]
            rows = [[row.fact, row.of, row.effect, row.without] for row in self.supports]
            note = f"With all of them it is {self.confidence:.1%}."
            tables.append(Table(title="Facts that made it", columns=columns, rows=rows, note=note))
        if self.paths:
            columns = [
                Column(name="way"),
                Column(name="rule holds", format=".0%", help="pairs joined so that the relation joins too"),
                Column(name="of pairs", format=",d"),
            ]
            rows = [[" · ".join(path.steps), path.holds, path.pairs] for path in self.paths]
            tables.append(Table(title="Ways from head to tail", columns=columns, rows=rows))
        if self.kin:
            columns = [Column(name="entity"), Column(name="likeness", format=".3f"), Column(name="known of it")]
            rows = [[row.name, row.likeness, row.fact] for row in self.kin]
            tables.append(Table(title="Neighbours of the head with the same answer", columns=columns, rows=rows))
        return tables

    def figures(self) -> list[Figure]:
        if not self.supports:
            return []
        series = [Series(name="effect", x=[s.fact for s in self.supports], y=[s.effect for s in self.supports])]
        title = "What each learned fact did for it"
        return [Figure(title=title, kind="bar", y="log-odds", series=series, format="+.2f")]


@technique(
    "knowledge.explain",
    kind="look",
    family="asking",
    source="facts: Rossi et al. 2022 (Kelpie), necessary explanations; paths: Lao et al. 2011; Galárraga et al. 2013",
    needs="facts",
    extra="knowledge",
    example={"subject": "python", "head": "bz2.open", "relation": "raises"},
)
def explain(graph: KnowledgeGraph, config: ExplainConfig) -> PredictionExplained:
    """Say why a graph believes a fact: the learned facts that made it, similar entities, and the ways that lead there.

    - Facts: the head's vector (and then the tail's) is learned again from all its facts, and from all but one; what the
      prediction loses is that fact's effect. All other vectors stay.
    - Ways: paths of learned facts from head to tail, each with the share of pairs so joined of which the relation
      holds as well.
    - Neighbours: the entities most like the head of which the same is known.

    - GRAPH: the folder of a graph that `knowledge.grow` learned, or `python`.

    Raises `BadInput` for a name that is not in the graph, with near ones."""
    from intarsia.knowledge.asking.explaining import look

    return look(graph, config)
