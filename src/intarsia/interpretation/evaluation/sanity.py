"""`interpretation.sanity`: does an explanation change when the model forgets what it learnt?"""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import technique
from intarsia.interpretation.evaluation.settings import EvaluationConfig
from intarsia.models import Model
from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table

Interval = tuple[float, float, float]


class SanityConfig(EvaluationConfig):
    """Settings of `interpretation.sanity`."""

    methods: list[str] = Field(
        ["leave_one_out", "gradient_x_input"], min_length=1, description="the attribution methods that are tested"
    )
    settings: dict[str, str] = Field({}, description="settings of a method by its name (lime.samples=64)")
    steps: int = Field(4, ge=1, description="how many depths: the top 1/n of the blocks, 2/n, up to all of them")
    draws: int = Field(1, ge=1, description="random models of each depth")
    threshold: float = Field(0.3, gt=0, lt=1, description="a mean rank correlation above this fails the test")
    max_texts: int = Field(8, ge=1, description="texts explained; more are drawn down to this many by the seed")


class SanityRow(pydantic.BaseModel):
    """One method on models whose top `blocks` blocks are random: Spearman's rho with the explanation of the model
    itself, of the scores and of their absolute values: means over texts with 95 % intervals (None: no text varies)."""

    method: str
    blocks: int
    signed: Interval | None
    absolute: Interval | None


class Sanity(Finding):
    """The randomisation test by method and by how much of the model is random. `passed`: rank correlations with all
    blocks random are below the threshold."""

    rows: list[SanityRow] = Field(default_factory=list)
    depth: int = 0
    passed: dict[str, bool] = Field(default_factory=dict)
    texts: int = 0

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        return {"sanity_passed": (sum(self.passed.values()), Column(name="methods that pass", format="d"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="method"),
            Column(name="random blocks", format="d"),
            Column(name="rank correlation", format=".2f", help="Spearman's rho of the scores"),
            Column(name="of absolute scores", format=".2f"),
            Column(name="passes"),
        ]
        rows: list[list[Any]] = [
            [
                r.method, r.blocks, r.signed, r.absolute,
                ("yes" if self.passed[r.method] else "no") if r.blocks == self.depth else "",
            ]
            for r in self.rows
        ]  # fmt: skip
        return [Table(title="Explanations of models that forgot", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        series = []
        for method in self.passed:
            mine = [r for r in self.rows if r.method == method]
            x, y = [0.0, *(float(r.blocks) for r in mine)], [1.0, *(r.signed[0] if r.signed else None for r in mine)]
            low = [1.0, *(r.signed[1] if r.signed else None for r in mine)]
            high = [1.0, *(r.signed[2] if r.signed else None for r in mine)]
            series.append(Series(name=method, x=x, y=y, low=low, high=high))
        return [
            Figure(
                title="How much of the explanation survives when the top blocks are random", kind="line",
                x="random blocks, from the top", y="rank correlation with the model's own", series=series, format=".2f",
                marks=[Mark(axis="y", value=0.0, text="nothing in common")],
            )
        ]  # fmt: skip


@technique(
    "interpretation.sanity",
    kind="look",
    family="evaluation",
    source="Adebayo et al. 2018 (Sanity checks for saliency maps), sections 3 and 4",
    place="evaluation · faithfulness",
    example={
        "methods": ["leave_one_out", "gradient_x_input"],
        "texts": ["This film is terrible and I love it.", "The food was cold, and late."],
        "steps": 2,
        "max_tokens": 12,
    },
)
def sanity(model: Model, config: SanityConfig, *, texts: list[Any], seed: int = 0) -> Sanity:
    """Whether explanations are about the model: they must change when its top blocks are re-initialised.

    The same choice of the same text is explained in models whose upper blocks learnt nothing, ever more of them. A
    method whose scores stay alike describes the text (its rare or its last tokens) and not the model. Passing proves
    little, failing proves much.

    `texts`: strings or records with `.text`. Raises `BadInput` for an unknown method."""
    from intarsia.interpretation.evaluation.sanity_run import look

    return look(model, config, texts, seed)
