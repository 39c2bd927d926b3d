"""`moe.plan`, `moe.place`: which device holds which expert, what that saves on text not seen, and what is proved."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.moe.routing.trace import Trace
from intarsia.report import Block, Cell, Column, Figure, Finding, Mark, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model
    from intarsia.moe.placement.placement import Placement


class PlaceConfig(Config):
    devices: int = Field(4, ge=1, description="devices that share the experts, equally many of every layer on each")
    nodes: int = Field(1, ge=1, description="the devices stand in so many equal nodes")
    far: float = Field(4.0, ge=1, description="what a step to another node costs, if one to another device costs 1")
    goal: Literal["auto", "crossing", "rows"] = Field(
        "auto",
        description="crossing: steps of the first choice that change device; rows: vectors sent, where a token uses "
        "several experts; auto: rows for those, else crossing",
    )
    groups: int = Field(
        1, ge=1, description="groups of experts that the router chooses among first, kept whole (DeepSeek: n_group)"
    )
    max_load: float | None = Field(
        None, gt=1, description="the fullest device's load at most, over the mean, such as 1.1; unset: as it comes"
    )
    replicas: int = Field(0, ge=0, description="experts of every layer that a device holds copies of, beside its own")
    others: list[str] = Field([], description="traces of other text, on which the plan is judged too")
    hold_out: float = Field(0.5, gt=0, lt=1, description="share of the sequences that the plan is judged by")
    effort: int = Field(1500, ge=1, description="rounds of search, where the optimum cannot be had outright")
    prove: float = Field(0.0, ge=0, description="seconds that an integer programme may try to prove more [s]")
    to: Path | None = Field(None, description="write the placement (placement.json) here")


class PlanConfig(PlaceConfig):
    trace: list[str] = Field([], description="traces of this model to plan from, instead of text")
    length: int = Field(256, ge=2, description="texts are cut into pieces of so many tokens")
    max_tokens: int | None = Field(100_000, ge=2, description="tokens of the text that are run at most")
    batch_size: int = Field(8, ge=1, description="pieces in one forward pass")


class Judged(pydantic.BaseModel):
    """A placement on tokens it was not made from. Rows: of a token in a layer, both ways; see `placement.traffic`."""

    name: str
    text: str
    crossing: float
    nodes: float
    coherent: float
    vanilla: float
    home: float
    load: float
    worst: float


class Balanced(pydantic.BaseModel):
    """A placement that gives some crossing for an evener load."""

    crossing: float
    load: float
    taken: bool = False


class Plan(Finding):
    """A placement of experts, and what it is worth."""

    volatile = frozenset({"seconds"})
    experts: int = 0
    layers: list[int] = Field(default_factory=list)
    k: int = 1
    devices: int = 1
    nodes: int = 1
    model: str = ""
    router_sha256: str = ""
    device_of_expert: list[list[int]] = Field(default_factory=list)
    replicas: list[list[list[int]]] = Field(default_factory=list)
    planned: float = 0.0
    bound: float = 0.0
    node_bound: float | None = None
    optimal: bool = False
    solver: str = ""
    seconds: float = 0.0
    tokens: int = 0
    judged: list[Judged] = Field(default_factory=list)
    balanced: list[Balanced] = Field(default_factory=list)
    by_step: dict[str, list[float]] = Field(default_factory=dict)
    picture: Figure | None = None

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        mine = self.of("plan")
        return {"crossing": (mine.crossing, Column(name="changes device", format=".1%", better="lower"))}

    def of(self, name: str, text: str = "held out") -> Judged:
        """One row: `plan`, `contiguous`, ...; on the held-out sequences, or other text by its name."""
        return next(j for j in self.judged if j.name == name and j.text == text)

    @property
    def placement(self) -> Placement:
        """What runtimes and exports take."""
        import numpy as np

        from intarsia.moe.placement.placement import Placement

        mine = self.of("plan")
        return Placement(
            np.array(self.device_of_expert), self.devices, self.nodes,
            tuple(tuple(tuple(d) for d in layer) for layer in self.replicas), tuple(self.layers), self.model,
            self.router_sha256, self.k,
            {"planned": self.planned, "bound": self.bound, "optimal": self.optimal, "solver": self.solver,
             "held_out": mine.model_dump(exclude={"name", "text"})},
        )  # fmt: skip

    def tables(self) -> list[Table]:
        several = self.nodes > 1
        columns = [
            Column(name="placement"),
            Column(name="judged on"),
            Column(name="changes device", format=".1%", better="lower", help="of the steps between layers"),
            *([Column(name="changes node", format=".1%", better="lower")] if several else []),
            Column(name="rows, coherent", format=".2f", better="lower", help="vectors sent, a token and layer"),
            Column(name="rows, vanilla", format=".2f", better="lower", help="the token goes home every layer"),
            Column(name="rows, home", format=".2f", better="lower", help="the same, homes chosen by the prompt"),
            Column(name="load", unit="x mean", format=".2f", better="lower", help="of the fullest device"),
        ]
        rows: list[list[Any]] = [
            [j.name, j.text, j.crossing, *([j.nodes] if several else []), j.coherent, j.vanilla, j.home, j.load]
            for j in self.judged
        ]
        note = "coherent: a token stays where its expert is, and the key-value cache is everywhere; its exchange is "
        note += "not in these rows. vanilla, home: two all-to-alls a layer, the cache at home."
        tables = [Table(title="What it costs on text not planned from", columns=columns, rows=rows, note=note)]
        proof = [
            Column(name=""),
            Column(name="changes device", format=".1%"),
        ]
        facts: list[list[Any]] = [["on the text planned from", self.planned], ["cannot be below", self.bound]]
        if self.replicas:
            facts = [[f"{word}, without copies", value] for word, value in facts]
        if self.node_bound is not None:
            facts.append(["changes of node cannot be below", self.node_bound])
        how = f"By {self.solver}" + ("; proved optimal." if self.optimal else "; no proof that it is the optimum.")
        tables.append(Table(title="How good it can be", columns=proof, rows=facts, note=how))
        if len(self.balanced) > 1:
            names = [
                Column(name="changes device", format=".1%"),
                Column(name="load", unit="x mean", format=".3f"),
                Column(name="taken"),
            ]
            some: list[list[Any]] = [[b.crossing, b.load, "✓" if b.taken else ""] for b in self.balanced]
            tables.append(
                Table(title="Load against crossing", columns=names, rows=some, note="On the text planned from.")
            )
        return tables

    def figures(self) -> list[Figure]:
        figures = []
        if len(self.layers) > 2:
            x = [float(layer) for layer in self.layers[1:]]
            series = [Series(name=name, x=x, y=list(values)) for name, values in self.by_step.items()]
            figures.append(
                Figure(
                    title="Tokens that change device, step by step", kind="line", x="layer", y="share", series=series,
                    format=".0%", note="Held-out sequences.",
                )
            )  # fmt: skip
        if len(self.balanced) > 1:
            points = Series(name="placements", x=[b.load for b in self.balanced], y=[b.crossing for b in self.balanced])
            taken = next((b for b in self.balanced if b.taken), None)
            figures.append(
                Figure(
                    title="Load against crossing", kind="scatter", x="load of the fullest device, x mean",
                    y="changes device", series=[points], format=".3f",
                    marks=[Mark(axis="x", value=taken.load, text="taken")] if taken else [],
                )
            )  # fmt: skip
        return [*figures, *([self.picture] if self.picture else [])]

    def blocks(self) -> list[Block]:
        tables = self.tables()
        return [*tables[:2], *self.figures(), *tables[2:]]


@technique(
    "moe.place",
    kind="look",
    family="expert placement",
    source="Yao et al. 2024 (ExFlow); solvers and bounds: own, after Kuhn 1955 and Viterbi 1967",
    needs="trace",
    gives="Plan",
    extra="moe",
    example={"subject": "trace.npz", "devices": 2},
)
def place(trace: Trace, config: PlaceConfig, *, seed: int = 0) -> Plan:
    """Place the experts of a mixture-of-experts model on devices so that tokens seldom change device.

    Experts of successive layers go together: a token that used expert a is likely to use some b next. Planned from half
    of the trace's sequences, judged on the other half and on `others`, beside what engines do by themselves. Always
    with a bound: how low the share could be at all.

    One expert a device, or few enough balanced partitions (Mixtral on 2 or 4 devices): the optimum. Else descent,
    Viterbi over a pool of solutions and local search. Nothing of the model changes; `moe.permute` and `moe.export` hand
    the placement on.

    - TRACE: a file of `moe.trace`, or several with commas between (read as one).

    Raises `BadInput` for more devices than experts, nodes that do not divide the devices or experts, and a trace of one
    sequence or one routed layer."""
    from intarsia.moe.planning import plan_of

    return plan_of(trace, config, seed)


@technique(
    "moe.plan",
    kind="look",
    family="expert placement",
    source="Yao et al. 2024 (ExFlow); solvers and bounds: own, after Kuhn 1955 and Viterbi 1967",
    needs="experts",
    gives="Plan",
    extra="moe",
    example={"text": ["The museum opens at ten.", "Tickets are sold at the door."], "devices": 2},
)
def plan(model: Model, config: PlanConfig, *, text: list[Any] | None = None, seed: int = 0) -> Plan:
    """Record a text's routing through a model and place the model's experts: `moe.trace` and `moe.place` in one.

    - text: strings, or records with `.text`; of the kind that the model will serve. Or traces (`trace`), recorded
      earlier.

    Raises `BadInput` for a network without experts, a trace of another model, and as `moe.place`."""
    from intarsia.moe.planning import plan_for

    return plan_for(model, config, text, seed)
