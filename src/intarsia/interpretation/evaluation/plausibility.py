"""`interpretation.plausibility`: would people have marked the same words?"""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import technique
from intarsia.data import RationaleText
from intarsia.interpretation.evaluation.settings import EvaluationConfig
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table, TokenMap

Interval = tuple[float, float, float]


class PlausibilityConfig(EvaluationConfig):
    """Settings of `interpretation.plausibility`."""

    methods: list[str] = Field(["leave_one_out"], min_length=1, description="the attribution methods that are judged")
    settings: dict[str, str] = Field({}, description="settings of a method by its name (lime.samples=64)")
    share: float | None = Field(
        None, gt=0, le=1, description="share of tokens an explanation marks; by default as many as people marked"
    )
    iou: float = Field(0.5, ge=0, lt=1, description="overlap above which a marked stretch counts as found")
    explain_label: bool = Field(
        True, description="explain the label of the record; else what the model chooses, right or wrong"
    )
    floors: int = Field(20, ge=1, description="random scores whose mean is the floor")
    pictures: int = Field(3, ge=0, description="texts drawn with a colour a token, people's words in ‹›")


class PlausibilityRow(pydantic.BaseModel):
    """One method (or `random`): means over the texts with 95 % intervals; `gain`: average precision over random's."""

    method: str
    token_f1: Interval
    iou_f1: Interval
    auprc: Interval
    average_precision: Interval
    gain: Interval | None = None


class Plausibility(Finding):
    """Agreement of explanations with what people marked."""

    rows: list[PlausibilityRow] = Field(default_factory=list)
    texts: int = 0
    right: int = 0
    marked: float = 0
    maps: list[TokenMap] = Field(default_factory=list)

    def row(self, method: str) -> PlausibilityRow:
        """The figures of a method."""
        return next(r for r in self.rows if r.method == method)

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        best = max(self.rows, key=lambda r: r.average_precision[0])
        return {"plausibility_map": (best.average_precision, Column(name="MAP with people", format=".3f"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="method"),
            Column(name="token F1", format=".3f", better="higher"),
            Column(name="IOU F1", format=".3f", better="higher", help="over stretches of words"),
            Column(name="AUPRC", format=".3f", better="higher"),
            Column(name="MAP", format=".3f", better="higher", help="mean average precision of the ranking"),
            Column(name="MAP over random", format=".3f", help="paired over the texts"),
        ]
        rows: list[list[Any]] = [
            [r.method, r.token_f1, r.iou_f1, r.auprc, r.average_precision, r.gain] for r in self.rows
        ]
        return [Table(title="Agreement with people", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = [r.method for r in self.rows]
        parts = [[r.average_precision[i] for r in self.rows] for i in range(3)]
        series = Series(name="MAP", x=x, y=list(parts[0]), low=list(parts[1]), high=list(parts[2]))
        title = "How well the ranking of tokens finds what people marked"
        return [Figure(title=title, kind="bar", x="method", y="MAP", series=[series], format=".2f")]

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.tables(), *self.maps]


@technique(
    "interpretation.plausibility",
    kind="look",
    family="evaluation",
    source="DeYoung et al. 2020 (ERASER), section 4.1",
    place="evaluation · plausibility",
    example={
        "methods": ["leave_one_out", "gradient_x_input"],
        "texts": [
            RationaleText("This film is terrible and long.", "bad", rationale=((13, 21),)),
            RationaleText("The food was cold, and late.", "bad", rationale=((13, 17), (23, 27))),
        ],
        "explain_label": False,
    },
)
def plausibility(
    model: Model, config: PlausibilityConfig, *, texts: list[RationaleText], seed: int = 0
) -> Plausibility:
    """How far explanations agree with the words that people marked as the reason.

    Agreement convinces, it does not prove: a model that is right for a wrong reason has a faithful explanation that no
    person would give. Read it beside `interpretation.faithfulness`.

    `texts`: records with `rationale` (a column of `[start, end]` characters, or of words of the text). Raises
    `BadInput` for records without one."""
    from intarsia.interpretation.evaluation.plausibility_run import look

    return look(model, config, texts, seed)
