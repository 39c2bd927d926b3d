"""`Architectures`: what a search over the networks that one holds found, with its Pareto front."""

from __future__ import annotations

from typing import Any, ClassVar

from pydantic import BaseModel, Field

from intarsia.measure.scores import front
from intarsia.report import Cell, Column, Figure, Finding, Series, Table


class Tested(BaseModel):
    """One network. predicted: its harm before it was made; kl: what it has on the text, in nats a token; params, bytes;
    latency, energy: over those of the model that was given, where the budget asks for them; broken: bounds that it does
    not keep. blocks: that stay; neurons: of each; heads: key-value heads; width: of the stream."""

    said: str
    blocks: list[int]
    neurons: list[int]
    heads: int
    width: int
    predicted: float
    kl: float
    params: int
    bytes: int
    latency: float | None = None
    energy: float | None = None
    broken: list[str] = Field(default_factory=list)
    front: bool = False
    taken: bool = False


class Architectures(Finding):
    """- tested: networks that were made, the best by prediction. full: parameters and bytes of the model given.
    - predicted: (harm, parameters) of all that were looked at. table_error: of the latency table, where there is one.
      losses: of the training of the shared weights. tokens: of the text that quality is judged on."""

    volatile: ClassVar[frozenset[str]] = frozenset({"table_error"})

    tested: list[Tested] = Field(default_factory=list)
    full: dict[str, float] = Field(default_factory=dict)
    predicted: list[tuple[float, float]] = Field(default_factory=list)
    budget: str = ""
    by: str = ""
    table_error: float | None = None
    losses: list[float] = Field(default_factory=list)
    tokens: int = 0

    def mark(self, axes: list[str]) -> None:
        """Tell which of the tested no other one dominates in KL and in `axes` (names of costs)."""
        points = [[-one.kl, *(-float(getattr(one, axis)) for axis in axes)] for one in self.tested]
        on = set(front(points))
        for number, one in enumerate(self.tested):
            one.front = number in on

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        best = next((one for one in self.tested if one.taken), None)
        if best is None:
            return {}
        return {
            "KL": (best.kl, Column(name="KL", unit="nats", format=".3f", better="lower")),
            "parameters": (best.params, Column(name="parameters", format=",d", better="lower")),
        }

    def tables(self) -> list[Table]:
        """The front, then what was tested beside it."""
        columns = [
            Column(name="network"), Column(name="KL", unit="nats", format=".3f", better="lower"),
            Column(name="predicted", unit="nats", format=".3f"),
            Column(name="parameters", format=",d", better="lower"), Column(name="size", format="bytes", better="lower"),
            Column(name="latency", unit="of the full one", format=".2f", better="lower"),
            Column(name="energy", unit="of the full one, estimated", format=".2f", better="lower"),
            Column(name="blocks that went"), Column(name="breaks"), Column(name="taken"),
        ]  # fmt: skip
        everything = set(range(1 + max((b for one in self.tested for b in one.blocks), default=0)))

        def row(one: Tested) -> list[Any]:
            gone = sorted(everything - set(one.blocks))
            return [
                one.said, one.kl, one.predicted, one.params, one.bytes, one.latency, one.energy,
                " ".join(map(str, gone)), ", ".join(one.broken), "yes" if one.taken else "",
            ]  # fmt: skip

        order = sorted(self.tested, key=lambda one: one.params)
        note = f"KL on {self.tokens:,} tokens; budget {self.budget}; choices by {self.by}."
        made = [Table(title="The Pareto front", columns=columns, rows=[row(o) for o in order if o.front], note=note)]
        if rest := [row(one) for one in order if not one.front]:
            made.append(Table(title="Tested beside it", columns=columns, rows=rest))
        return made

    def figures(self) -> list[Figure]:
        def series(name: str, some: list[Tested]) -> Series:
            return Series(
                name=name, x=[one.params / 1e6 for one in some], y=[one.kl for one in some],
                labels=[one.said for one in some],
            )  # fmt: skip

        many = [
            series("tested", [one for one in self.tested if not one.front]),
            series("Pareto front", [one for one in self.tested if one.front and not one.taken]),
            series("taken", [one for one in self.tested if one.taken]),
        ]
        made = [
            Figure(
                title="Divergence and parameters", kind="scatter", x="million parameters", y="KL in nats",
                series=[one for one in many if one.x], format=".3f",
            )
        ]  # fmt: skip
        if self.tested:
            pairs = Series(
                name="tested", x=[one.predicted for one in self.tested], y=[one.kl for one in self.tested],
                labels=[one.said for one in self.tested],
            )  # fmt: skip
            made.append(
                Figure(title="Predicted and measured", kind="scatter", x="predicted, nats", y="KL in nats",
                       series=[pairs], format=".3f")
            )  # fmt: skip
        return made
