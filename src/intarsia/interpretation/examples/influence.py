"""`interpretation.influence`: which training texts made the model answer so."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Column, Figure, Finding, Series, Table


class InfluenceConfig(Config):
    method: Literal["ekfac", "tracin", "cosine", "states"] = Field(
        "ekfac",
        description="inverse curvature between the gradients, their plain product, their cosine, or without gradients "
        "the likeness of the last states",
    )
    checkpoints: list[str] = Field(
        [], description="further models of the same training, whose products are summed (TracIn)"
    )
    rank: int = Field(16, ge=1, description="each weight's gradient is projected to rank x rank numbers")
    damping: float = Field(0.1, gt=0, description="added to the curvature, as a share of its mean")
    top: int = Field(3, ge=1, description="training texts shown for each test text, at either end")
    max_train: int = Field(200, ge=2, description="training texts; more are drawn down to this many by the seed")
    max_test: int = Field(8, ge=1, description="test texts; more are drawn down to this many by the seed")
    max_tokens: int = Field(128, ge=2, description="tokens of a text that are read")
    check: int = Field(8, ge=0, description="training texts of the check by a step of training; 0 leaves it out")


class Influenced(pydantic.BaseModel):
    """One test text, its loss, and the training texts that lower it most and raise it most, each with its score."""

    text: str
    loss: float
    helpful: list[tuple[str, float]]
    harmful: list[tuple[str, float]]


class StepCheck(pydantic.BaseModel):
    """Change of the mean test loss by one small step of training on some texts (nats; negative: lower)."""

    on: str
    change: float
    low: float | None = None
    high: float | None = None


class Influence(Finding):
    """Which training texts a model's behaviour on test texts comes from.

    A score is the drop of the test loss to first order when the training text is learned a little more."""

    method: str = ""
    tests: list[Influenced] = Field(default_factory=list)
    checks: list[StepCheck] = Field(default_factory=list)
    concentration: list[float] = Field(default_factory=list)

    def tables(self) -> list[Table]:
        rows: list[list[Any]] = []
        for test in self.tests:
            for text, score in [*test.helpful, *reversed(test.harmful)]:
                rows.append([test.text, "lowers" if score > 0 else "raises", text, score])
        tables = [
            Table(
                title="The training texts behind each test text",
                columns=[
                    Column(name="test text"),
                    Column(name="its loss"),
                    Column(name="training text"),
                    Column(name="score", format="+.3g"),
                ],
                rows=rows,
            )
        ]
        if self.checks:
            tables.append(
                Table(
                    title="The check: one small step of training",
                    columns=[
                        Column(name="on"),
                        Column(name="test loss", unit="nats", format="+.5f", better="lower"),
                    ],
                    rows=[[c.on, (c.change, c.low, c.high) if c.low is not None else c.change] for c in self.checks],  # type: ignore[list-item]
                    note="The same step length each time. Right scores: the helpful texts lower the loss more than "
                    "random ones, the harmful ones less.",
                )
            )
        return tables

    def figures(self) -> list[Figure]:
        x = [(i + 1) / len(self.concentration) for i in range(len(self.concentration))]
        return [
            Figure(
                title="How much of the influence a few texts carry",
                kind="line",
                x="share of the training texts, the most influential first",
                y="share of the absolute influence",
                series=[Series(name="cumulated", x=x, y=list(self.concentration))],
                format=".0%",
            )
        ]


@technique(
    "interpretation.influence",
    kind="look",
    family="examples",
    source="TracIn: Pruthi et al. 2020, section 3; EK-FAC: Grosse et al. 2023, section 2; LoGra: Choe et al. 2024",
    place="fine-tuning · local · example-based: data influence",
    example={
        "train": ["Paris is in France.", "Rome is in Italy.", "I like soup.", "Milk is white."],
        "test": ["Lyon is in France."],
        "check": 1,
    },
)
def influence(model: Model, config: InfluenceConfig, *, train: list[Any], test: list[Any], seed: int = 0) -> Influence:
    """Which training texts made the model answer so: gradients of training and test texts, compared.

    Gradients are those of the adapter's weights where the network has a LoRA adapter, else of every block's two output
    projections (attention and MLP). Each is projected at random to rank x rank numbers from both sides. `tracin` is
    their product, `cosine` that without the lengths; `ekfac` puts the inverse curvature in between, estimated in the
    projected space from the training gradients (Kronecker eigenbasis, eigenvalues from second moments). `states` uses
    no gradient but the cosine of the last layer's states at the texts' ends: the nearest training texts, a cheap
    baseline.

    The loss is that of the label for labelled texts and a model with a label task, of the target for pairs, else of the
    text itself. The check takes one small step of training on the texts with the highest, the lowest and with random
    mean scores, and reports the test loss: scores that do not pass it should not be believed.

    Raises `BadInput` for a network that is no causal language model."""
    from intarsia.interpretation.examples.gradients import look

    return look(model, config, train, test, seed)
