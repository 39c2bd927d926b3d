"""`interpretation.tcav`: whether a model's answer is sensitive to a concept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.concepts.concept import NEGATIVE, POSITIVE
from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model


class TcavConfig(Config):
    method: Literal["logistic", "mean", "leace"] = Field("logistic", description="how a direction is learnt")
    at: Literal["mean", "last"] = Field(
        "mean", description="where: all tokens but the first, or the last one (the examples' and the answer's place)"
    )
    measure: Literal["auto", "loss", "label", "word"] = Field(
        "auto", description="the answer: the texts' own tokens, their label, or a word after them"
    )
    word: str | None = Field(None, description="the word that should follow each text, with its leading space")
    target: str | None = Field(None, description="a label for all texts, in place of each text's own")
    runs: int = Field(20, ge=20, description="directions learnt from redrawn examples, and from shuffled ones")
    stride: int = Field(1, ge=1, description="test every n-th layer, counted back from the last")
    max_texts: int = Field(200, ge=2, description="texts of each set; more are drawn down to this many by the seed")
    max_tokens: int = Field(96, ge=2, description="tokens of a text that are read")
    batch_size: int = Field(16, ge=1, description="texts in one forward pass")


class TcavLayer(pydantic.BaseModel):
    """One layer.

    - score: share of texts whose answer gets likelier along the concept, mean over directions; low, high: the middle
      95 % of them. random, random_low, random_high: the same for shuffled examples.
    - p: of a two-sided Welch t-test between the two sets of scores, corrected for the number of layers (Holm).
    - slope: mean derivative of the answer's log p along the concept, for a step of its gap. rank: share of directions,
      random ones and the concept's, along which a step of equal length changes the answer at least as much."""

    layer: int
    score: float
    low: float
    high: float
    random: float
    random_low: float
    random_high: float
    p: float
    rank: float
    slope: float

    @property
    def significant(self) -> bool:
        """By both tests at 5 %."""
        return self.p < 0.05 and self.rank <= 0.05


class Tcav(Finding):
    """Sensitivity of an answer to a concept, layer by layer, against directions that mean nothing."""

    layers: list[TcavLayer] = Field(default_factory=list)
    answer: str = ""
    texts: int = 0
    runs: int = 20

    def strongest(self) -> TcavLayer:
        """The significant layer with the score furthest from one half; without one, the furthest of all."""
        rows = [row for row in self.layers if row.significant] or self.layers
        return max(rows, key=lambda row: abs(row.score - 0.5))

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        row = self.strongest()
        return {"tcav": ((row.score, row.low, row.high), Column(name="TCAV score", format=".2f"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="layer", format="d"),
            Column(name="TCAV score", format=".2f", help="share of texts whose answer gets likelier along the concept"),
            Column(name="random directions", format=".2f"),
            Column(name="p", format=".2g", help="two-sided t-test against random directions, corrected for the layers"),
            Column(name="rank", format=".2f", help="share of directions at least as steep, for steps of equal length"),
            Column(name="significant"),
            Column(name="slope", unit="nats", format="+.3g", help="of log p of the answer, for a step of the gap"),
        ]
        rows: list = [
            [r.layer, (r.score, r.low, r.high), (r.random, r.random_low, r.random_high), r.p, r.rank,
             "yes" if r.significant else "no", r.slope]
            for r in self.layers
        ]  # fmt: skip
        return [Table(title=f"Sensitivity of {self.answer}", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = [float(r.layer) for r in self.layers]
        series = [
            Series(name="the concept", x=x, y=[r.score for r in self.layers], low=[r.low for r in self.layers],
                   high=[r.high for r in self.layers]),
            Series(name="random directions", x=x, y=[r.random for r in self.layers],
                   low=[r.random_low for r in self.layers], high=[r.random_high for r in self.layers]),
        ]  # fmt: skip
        return [
            Figure(title="Share of texts whose answer gets likelier along the concept", kind="line", x="layer",
                   y="TCAV score", series=series, format=".0%", marks=[Mark(value=0.5, text="neither way")])
        ]  # fmt: skip


@technique(
    "interpretation.tcav",
    kind="look",
    family="concepts",
    source="Kim et al. 2018, Quantitative Testing with Concept Activation Vectors, sections 3.3 to 3.5",
    place="fine-tuning · global · concept-based",
    extra="quality",
    gives="Tcav",
    example={
        "positive": POSITIVE,
        "negative": NEGATIVE,
        "texts": ["I watched the film and it was", "They told me the food was", "The trip has been"],
        "word": " good",
    },
)
def tcav(
    model: Model, config: TcavConfig, *, positive: list[Any], negative: list[Any], texts: list[Any], seed: int = 0
) -> Tcav:
    """Whether the model's answer is sensitive to a concept: in how many texts it gets likelier along the direction.

    For each layer the derivative of the answer's log probability is taken along directions learnt from redrawn positive
    and negative texts, and along as many learnt from shuffled ones. The score is the share of positive derivatives. It
    counts when it differs from the random directions' by a two-sided t-test (corrected for the layers) and the slope is
    steeper than theirs: the t-test alone gets sharper with every run, as the runs share their examples, and where all
    texts have much the same gradient even random directions score 0 or 1.

    `positive`, `negative`: texts with and without the concept. `texts`: those whose answer is tested; their label, a
    `word` after them, or their own tokens. A derivative is about small steps: `interpretation.steer` takes real ones.
    Raises `BadInput` where the answer does not go with the model or the place."""
    from intarsia.interpretation.concepts.sensitivity import look

    return look(model, config, positive, negative, texts, seed)
