"""`interpretation.circuit`: the edges of a network that do one task, as a ranked list."""

from __future__ import annotations

import pydantic
from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.causal.activation_patching import IOI
from intarsia.interpretation.causal.findings import Contrasted
from intarsia.interpretation.causal.settings import ContrastConfig
from intarsia.models import Model
from intarsia.report import Block, Column, Figure, Finding, Series, Table


class CircuitConfig(ContrastConfig):
    sizes: list[int] = Field([10, 30, 100, 300, 1000], min_length=1, description="circuits of so many edges are tried")
    wanted: float = Field(0.8, gt=0, description="the smallest circuit that recovers this share of the metric is named")
    check: int = Field(
        40, ge=0, description="edges that are truly patched: half of them the strongest, half drawn by the seed"
    )
    show: int = Field(30, ge=1, description="edges in the table")


class Edge(pydantic.BaseModel):
    """An edge of the computation. `effect`: what corrupting it does, approximately, as a share of the whole change;
    `measured`: the same, truly patched (None: not checked)."""

    source: str
    target: str
    effect: float
    measured: float | None = None


class Pruned(pydantic.BaseModel):
    """A circuit of the strongest edges.

    - edges: how many were kept; connected: those on a path from the embedding to the logits; nodes: on such paths.
    - faithfulness: recovered share of the metric when every other edge carries corrupt values.
    - without: share that is left when only these edges carry corrupt values (a complete circuit leaves little)."""

    edges: int
    connected: int
    nodes: int
    faithfulness: float
    without: float


class Circuit(Finding):
    """Edges by approximate effect, and how well circuits made of the strongest do the task.

    - edges: the strongest, then the others that were checked; total: how many edges there are.
    - agreement: Pearson's r of approximate and measured effects.
    - names, matrix: effects among the nodes of the named circuit's strongest edges, for the picture."""

    contrast: Contrasted
    edges: list[Edge] = Field(default_factory=list)
    total: int = 0
    circuits: list[Pruned] = Field(default_factory=list)
    wanted: float = 0.8
    whole: float = 1.0
    agreement: float | None = None
    shown: int = 30
    sources: list[str] = Field(default_factory=list)
    targets: list[str] = Field(default_factory=list)
    matrix: list[list[float | None]] = Field(default_factory=list)

    @property
    def smallest(self) -> Pruned | None:
        """The smallest circuit tried that recovers the wanted share."""
        return next((c for c in self.circuits if c.faithfulness >= self.wanted), None)

    def figures(self) -> list[Figure]:
        x = [float(c.edges) for c in self.circuits]
        figures = [
            Figure(
                title="The strongest edges", kind="heatmap", x="to", y="effect, share of the whole", format=".2f",
                scale="diverging", matrix=[list(row) for row in self.matrix],
                row_names=self.sources, column_names=self.targets,
                note="A row a sender, a column a receiver; blank where there is no strong edge.",
            ),
            Figure(
                title="How much of the task circuits of a size do", kind="line", x="edges", y="share of the metric",
                format=".0%", log_x=True,
                series=[Series(name="these edges alone", x=x, y=[c.faithfulness for c in self.circuits]),
                        Series(name="everything but these edges", x=x, y=[c.without for c in self.circuits])],
            ),
        ]  # fmt: skip
        checked = [e for e in self.edges if e.measured is not None]
        if checked:
            series = [Series(name="edges", x=[e.measured or 0.0 for e in checked], y=[e.effect for e in checked],
                             labels=[f"{e.source} → {e.target}" for e in checked])]  # fmt: skip
            figures.append(
                Figure(
                    title="The approximation against true patching",
                    kind="scatter",
                    x="measured",
                    y="approximate",
                    format=".2f",
                    series=series,
                )
            )
        return figures

    def tables(self) -> list[Table]:
        edges = [[e.source, e.target, e.effect, e.measured] for e in self.edges[: self.shown]]
        circuits = [[c.edges, c.connected, c.nodes, c.faithfulness, c.without] for c in self.circuits]
        return [
            Table(
                title="The strongest edges",
                columns=[
                    Column(name="from"),
                    Column(name="to"),
                    Column(name="effect", format=".3f", help="approximate, as a share of the whole change"),
                    Column(name="measured", format=".3f", help="truly patched"),
                ],
                rows=edges,
            ),
            Table(
                title="Circuits",
                columns=[
                    Column(name="edges", format="d"),
                    Column(name="connected", format="d", help="on a path from the embedding to the logits"),
                    Column(name="nodes", format="d"),
                    Column(name="these alone", format=".1%", better="higher"),
                    Column(name="all but these", format=".1%", better="lower"),
                ],
                rows=circuits,
            ),
            self.contrast.table(),
        ]

    def blocks(self) -> list[Block]:
        first, *rest = self.figures()
        edges, circuits, told = self.tables()
        return [first, edges, *rest, circuits, told]


@technique(
    "interpretation.circuit",
    kind="look",
    family="mechanistic",
    source="Syed et al. 2023 (edge attribution patching), section 3; Conmy et al. 2023 (ACDC), section 2",
    place="fine-tuning · global · mechanistic",
    example={**IOI, "sizes": [5, 50], "check": 10},
)
def circuit(model: Model, config: CircuitConfig, *, seed: int = 0) -> Circuit:
    """A circuit as a ranked edge list: which heads and MLPs pass what on, for one contrast.

    Nodes are the embedding, every head, every MLP and the logits; an edge is what one writes and a later one reads
    from the stream. Effect of corrupting an edge ≈ (corrupt - clean output of its source) · gradient of the metric by
    what its target reads, at the clean run: all edges from two forwards and one backward through each part. Then
    circuits of the strongest edges are run with corrupt values on every other edge (faithfulness), the rest of the
    network without the circuit, and a sample of edges is truly patched (Pearson's r).

    One contrast makes a circuit for one prompt pair: repeat it with others before calling it a mechanism. Where a norm
    stands behind attention (Gemma), heads do not add up, and each layer's attention is one node. Raises `BadInput` for
    networks that norm between blocks."""
    from intarsia.interpretation.causal.edges import find

    return find(model, config, seed)
