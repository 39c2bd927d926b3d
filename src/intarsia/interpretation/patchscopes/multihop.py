"""`interpretation.multihop`: two-step questions that a model fails though it knows both steps, repaired by a patch."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data.records import LabelledText
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table

COT = "Let's think step by step. "
Interval = tuple[float, float, float]
EXAMPLE = [
    LabelledText("the country where sushi comes from", "Tokyo", "Japan", ("The capital city of",)),
    LabelledText("the country where pizza comes from", "Rome", "Italy", ("The capital city of",)),
    LabelledText("the country where paella comes from", "Madrid", "Spain", ("The capital city of",)),
]


class MultihopConfig(Config):
    folder: str = Field("", description="folder with the published relations and queries, used when no texts are given")
    queries: int = Field(40, ge=1, description="queries used, drawn from those of which the model knows both steps")
    asked: int = Field(400, ge=1, description="queries whose steps the model is asked about at most")
    only_known: bool = Field(True, description="leave out queries of which the model does not know both steps")
    grid: int = Field(5, ge=0, description="source layers and target layers; 0 is all of them")
    placeholder: str = Field(
        "", description="a word put after the outer part for the patch to replace; left out, its last token is replaced"
    )
    ask: str = Field(" is", description="words put after every question that the model is asked")
    max_new_tokens: int = Field(15, ge=1, description="tokens generated for every answer; the paper takes 20")
    random_vectors: int = Field(
        8, ge=1, description="random vectors of the control, for each wording of the second part"
    )
    contamination: Literal["keep", "drop", "trajectory"] = Field(
        "keep", description="what generated tokens see of the placeholder in the layers up to the patched one"
    )


class HopRow(pydantic.BaseModel):
    """One query and what was answered: `plain`, `cot` and `patched` (in the cell chosen on other queries)."""

    query: str
    bridge: str
    answer: str
    plain: str
    cot: str
    patched: str
    plain_right: bool
    cot_right: bool
    patched_right: bool
    any_right: bool


class Multihop(Finding):
    """How often two-step questions are answered. Shares of queries with 95 % intervals over queries.

    - known: queries of which both steps are known; asked: how many were asked.
    - plain: the query as it is. cot: with "Let's think step by step." before it. chosen: patched in the cell that is
      best on the other half of the queries; random_chosen: random vectors there. any_cell: right in any of `tries`
      cells; random_any_cell, other_any_cell: random vectors and the states of other queries with as many tries.
    - gain: chosen minus the better of plain and cot, paired."""

    known: int = 0
    asked: int = 0
    rows: list[HopRow] = Field(default_factory=list)
    source_layers: list[int] = Field(default_factory=list)
    target_layers: list[int] = Field(default_factory=list)
    plain: Interval | None = None
    cot: Interval | None = None
    chosen: Interval | None = None
    random_chosen: Interval | None = None
    any_cell: Interval | None = None
    random_any_cell: Interval | None = None
    other_any_cell: Interval | None = None
    gain: Interval | None = None
    cells: list[list[float]] = Field(default_factory=list)
    best: list[tuple[int, int]] = Field(default_factory=list)
    contamination: str = "keep"

    @property
    def tries(self) -> int:
        """Cells that each query is patched into."""
        return len(self.source_layers) * len(self.target_layers)

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        return {"multihop_patched": (self.chosen, Column(name="two steps, patched", format=".1%"))} if self.rows else {}

    def tables(self) -> list[Table]:
        columns = [Column(name="way"), Column(name="right", format=".1%"), Column(name="tries", format="d")]
        ways: list[tuple[str, Any, int]] = [
            ("the query as it is", self.plain, 1),
            ("step by step", self.cot, 1),
            ("patched, cell chosen on other queries", self.chosen, 1),
            ("random vector in that cell", self.random_chosen, 1),
            ("patched, any cell (an oracle)", self.any_cell, self.tries),
            ("random vector, any cell", self.random_any_cell, self.tries),
            ("state of another query, any cell", self.other_any_cell, self.tries),
        ]
        rows: list[list[Any]] = [list(way) for way in ways if way[1] is not None]
        note = f"Both steps are known of {self.known} of {self.asked} queries asked." if self.asked else ""
        tables = [Table(title="Two-step questions", columns=columns, rows=rows, note=note)]
        if self.rows:
            columns = [Column(name="query"), Column(name="wanted"), Column(name="as it is"), Column(name="patched")]
            lines: list[list[Any]] = [
                [r.query, f"{r.bridge} → {r.answer}", _marked(r.plain, r.plain_right),
                 _marked(r.patched, r.patched_right)]
                for r in self.rows[:20]
            ]  # fmt: skip
            tables.append(Table(title="What was answered", columns=columns, rows=lines))
        return tables

    def figures(self) -> list[Figure]:
        if not self.rows:
            return []
        ways = [("as it is", self.plain), ("step by step", self.cot), ("patched", self.chosen)]
        ways += [("random vector", self.random_chosen)]
        known = [(name, value) for name, value in ways if value is not None]
        bars = Series(
            name="right", x=[name for name, _ in known], y=[v[0] for _, v in known], low=[v[1] for _, v in known],
            high=[v[2] for _, v in known],
        )  # fmt: skip
        return [
            Figure(title="One try each", kind="bar", y="share of queries", series=[bars], format=".0%"),
            Figure(
                title="Every cell", kind="heatmap", x="patched after layer", y="share of queries", format=".0%",
                matrix=[list(row) for row in reversed(self.cells)],
                row_names=[f"layer {layer}" for layer in reversed(self.source_layers)],
                column_names=[str(layer) for layer in self.target_layers],
            ),
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        first, *rest = self.tables()
        return [first, *self.figures(), *rest]


@technique(
    "interpretation.multihop",
    kind="look",
    family="patchscopes",
    source="Ghandeharioun et al. 2024 (Patchscopes), section 4.5; controls: random vectors, dev cell (ours)",
    place="prompting · base model · chain of thought",
    example={"texts": EXAMPLE, "grid": 2, "max_new_tokens": 5, "only_known": False},
)
def multihop(model: Model, config: MultihopConfig, *, texts: list[Any] | None = None, seed: int = 0) -> Multihop:
    """Multi-hop repair (the chain-of-thought patchscope): answer the inner question, patch it into the outer one.

    A query is an outer part and an inner one ("The capital city of" "the country where sushi comes from"). The state of
    the inner part's last token, read alone, replaces the last token of the outer part, and the model goes on: the same
    query with attention cut between its parts. Compared with the plain query and with "Let's think step by step.".
    Being right in any of many cells is an oracle: it stands beside random vectors with as many tries.

    `texts`: records with `text` (the inner part), `context` (the outer part, a list of one), `group` (the inner
    answer) and `label` (the final answer); left out, the published queries of `folder`, and those that its relations
    between countries and cities give. With a `placeholder` the patch goes where the inner part would stand, so that
    `ask` can follow it."""
    from intarsia.interpretation.patchscopes.multihop_run import look

    return look(model, config, texts, seed)


def _marked(text: str, right: bool) -> str:
    return ("✓ " if right else "✗ ") + " ".join(text.split())
