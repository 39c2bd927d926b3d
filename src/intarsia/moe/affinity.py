"""`moe.affinity`: how much the expert of one layer says about the next, and whether that holds elsewhere."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.moe.routing.trace import Trace
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table


class AffinityConfig(Config):
    against: list[str] = Field(
        [], description="further traces: of other text, or of other checkpoints of the model; each is compared"
    )
    devices: int = Field(4, ge=2, description="devices that the share of favourites is told for")
    lags: int = Field(3, ge=1, description="layers apart, up to")
    pictures: int = Field(2, ge=0, description="steps between layers drawn as a picture of expert x expert")


class StepAffinity(pydantic.BaseModel):
    """One step between routed layers (by their index in the network).

    - bits: mutual information, bias taken off; share: of the next expert's entropy.
    - favourites: share of tokens whose next expert is one of the likeliest (as many as a device holds); chance: the
      same if the next expert did not depend on this one.
    - load: of the busiest expert over the mean, in the later layer; entropy: of that layer's load, in bits."""

    before: int
    after: int
    bits: float
    share: float
    favourites: float
    chance: float
    load: float
    entropy: float


class TraceAffinity(pydantic.BaseModel):
    """One trace in means over its steps. `likeness`: how alike its steps are to those of the first trace, 0 to 1."""

    name: str
    tokens: int
    steps: list[StepAffinity]
    by_lag: list[float]
    likeness: float | None = None

    def mean(self, key: str) -> float:
        """Of one figure, over the steps."""
        return sum(getattr(step, key) for step in self.steps) / len(self.steps)


class Affinity(Finding):
    """How much routing in one layer says about the next."""

    experts: int = 0
    k: int = 0
    traces: list[TraceAffinity] = Field(default_factory=list)
    pictures: list[Figure] = Field(default_factory=list)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"bits": (self.traces[0].mean("bits"), Column(name="affinity", unit="bits", format=".2f"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="trace"),
            Column(name="tokens", format=",d"),
            Column(name="affinity", unit="bits", format=".2f", help="mutual information of successive experts"),
            Column(name="of the entropy", format=".0%"),
            Column(name="favourites", format=".1%", help="next expert among the likeliest that fit on a device"),
            Column(name="by chance", format=".1%"),
            Column(name="busiest expert", unit="x mean", format=".2f"),
            Column(name="load entropy", unit="bits", format=".2f"),
            Column(name="like the first", format=".2f", help="1: the same next experts; 0: none in common"),
        ]
        keys = ("bits", "share", "favourites", "chance", "load", "entropy")
        rows: list[list[Any]] = [[t.name, t.tokens, *(t.mean(k) for k in keys), t.likeness] for t in self.traces]
        note = "Means over the steps. A router that has collapsed onto few experts shows high favourites without any "
        note += "affinity: read them beside the load and the bits."
        tables = [Table(title="Affinity", columns=columns, rows=rows, note=note)]
        first = self.traces[0]
        each: list[list[Any]] = [[f"{s.before} to {s.after}", *(getattr(s, k) for k in keys)] for s in first.steps]
        tables.append(
            Table(title=f"Step by step: {first.name}", columns=[Column(name="layers"), *columns[2:8]], rows=each)
        )
        return tables

    def figures(self) -> list[Figure]:
        figures = []
        if len(self.traces[0].steps) > 1:
            lines = [
                Series(name=t.name, x=[float(s.after) for s in t.steps], y=[s.bits for s in t.steps])
                for t in self.traces
            ]
            figures.append(
                Figure(title="Affinity through the layers", kind="line", x="later layer", y="bits", series=lines)
            )
        if len(self.traces[0].by_lag) > 1:
            lags = [
                Series(name=t.name, x=[float(i + 1) for i in range(len(t.by_lag))], y=list(t.by_lag))
                for t in self.traces
            ]
            figures.append(Figure(title="Affinity over distance", kind="line", x="layers apart", y="bits", series=lags))
        if len(self.traces) > 2:
            names = [t.name for t in self.traces]
            pairs = [
                Series(name="affinity (bits)", x=names, y=[t.mean("bits") for t in self.traces]),
                Series(name="load entropy (bits)", x=names, y=[t.mean("entropy") for t in self.traces]),
            ]
            figures.append(Figure(title="Affinity with the load beside it", kind="bar", y="bits", series=pairs))
        return [*figures, *self.pictures]

    def blocks(self) -> list[Block]:
        return [self.tables()[0], *self.figures(), *self.tables()[1:]]


@technique(
    "moe.affinity",
    kind="look",
    family="expert placement",
    source="Yao et al. 2024 (ExFlow), inter-layer expert affinity",
    needs="trace",
    gives="Affinity",
    example={"subject": "trace.npz"},
)
def affinity(trace: Trace, config: AffinityConfig) -> Affinity:
    """How much the expert of a token in one layer says about its expert in the next, and further on.

    In bits, against what independent routing would show, with the load beside it; step by step, over several layers'
    distance, and against traces of other text or of other checkpoints of the same network: does what was seen there
    hold here?

    - TRACE: a file of `moe.trace`, or several with commas between (read as one).

    Raises `BadInput` for traces of another number of layers or experts."""
    from intarsia.moe.looking import look

    return look(trace, config)
