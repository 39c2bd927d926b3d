"""`interpretation.erase`: what a model loses with a concept that no linear probe can read any more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.concepts.concept import NEGATIVE, POSITIVE, At
from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model

Interval = tuple[float, float, float]


class EraseConfig(Config):
    layers: list[int] = Field([], description="layers after which the concept is erased; default: all of them")
    at: At = Field("mean", description="the examples' state that the erasers are fitted on: last, mean or marked")
    measure: Literal["auto", "loss", "label", "word"] = Field(
        "auto", description="what is measured on the texts: their own tokens, their label, or a word after them"
    )
    word: str | None = Field(None, description="the word that should follow each text, with its leading space")
    target: str | None = Field(None, description="a label for all texts, in place of each text's own")
    folds: int = Field(4, ge=2, description="parts of the cross-validation of the new probes")
    draws: int = Field(3, ge=1, description="erasures of shuffled examples that the concept's is compared with")
    max_texts: int = Field(200, ge=4, description="texts of each set; more are drawn down to this many by the seed")
    max_tokens: int = Field(96, ge=2, description="tokens of a text that are read")
    batch_size: int = Field(16, ge=1, description="texts in one forward pass")


class EraseLayer(pydantic.BaseModel):
    """How well a new probe, fitted after the erasure, ranks held-out positive texts above negative ones (AUROC):
    before, after the concept's erasure, and after that of shuffled examples (mean)."""

    layer: int
    before: float
    after: float
    shuffled: float


class Erase(Finding):
    """What an erasure takes from probes, and from the model.

    - loss, hits: of the texts before; rise: of the loss after the erasure, mean over texts with its interval; and the
      same for shuffled examples, mean over draws."""

    layers: list[EraseLayer] = Field(default_factory=list)
    erased: list[int] = Field(default_factory=list)
    name: str = ""
    loss: float = 0.0
    hits: float = 0.0
    rise: Interval = (0.0, 0.0, 0.0)
    hits_after: float = 0.0
    shuffled_rise: float = 0.0
    shuffled_hits: float = 0.0
    texts: int = 0

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"erasure_cost": (self.rise, Column(name="erasing costs", format="+.3f"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="erased"),
            Column(name="loss rises by", unit="nats", format="+.4f", help=f"{self.name}, {self.loss:.3f} as it is"),
            Column(name="right predictions", format=".1%"),
        ]
        rows: list = [
            ["nothing", 0.0, self.hits],
            ["the concept", self.rise, self.hits_after],
            ["shuffled examples", self.shuffled_rise, self.shuffled_hits],
        ]
        tables = [Table(title="What the model loses", columns=columns, rows=rows)]
        columns = [
            Column(name="layer", format="d"),
            Column(name="before", format=".3f"),
            Column(name="after", format=".3f", help="AUROC of a new probe on held-out texts; 0.5 is chance"),
            Column(name="shuffled examples erased", format=".3f"),
        ]
        rows = [[r.layer, r.before, r.after, r.shuffled] for r in self.layers]
        return [*tables, Table(title="What new probes still read", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = [float(r.layer) for r in self.layers]
        series = [
            Series(name="before", x=x, y=[r.before for r in self.layers]),
            Series(name="concept erased", x=x, y=[r.after for r in self.layers]),
            Series(name="shuffled examples erased", x=x, y=[r.shuffled for r in self.layers]),
        ]
        return [
            Figure(title="What a new probe reads of the concept", kind="line", x="layer", y="AUROC", series=series,
                   format=".2f", marks=[Mark(value=0.5, text="chance")])
        ]  # fmt: skip


@technique(
    "interpretation.erase",
    kind="look",
    family="concepts",
    source="Belrose et al. 2023, LEACE, theorem 4.3 and section 6 (concept scrubbing); Elazar et al. 2021 "
    "(amnesic probing)",
    place="fine-tuning · global · concept-based",
    extra="quality",
    gives="Erase",
    example={
        "positive": POSITIVE,
        "negative": NEGATIVE,
        "texts": ["I watched the film and it was", "They told me the food was"],
        "word": " good",
        "layers": [1],
        "folds": 2,
    },
)
def erase(
    model: Model, config: EraseConfig, *, positive: list[Any], negative: list[Any], texts: list[Any], seed: int = 0
) -> Erase:
    """Erase a concept from the stream, and measure what the model and new probes lose.

    At every token but the first (an attention sink) LEACE makes the smallest change after which no linear probe can
    read the concept from the states it was fitted on; each layer's eraser is fitted on states that the erasers below
    have already changed, on half of the examples. Probes are then fitted anew on the other half: what they still read
    comes from too few examples, or has been rebuilt by later layers. The texts say what it costs the model; erasing
    shuffled examples is as large an edit with no meaning.

    `positive`, `negative`: texts with and without the concept. `texts`: on which the model is measured. A cost shows
    that the model used what lies in these directions, which may be more than the concept. Raises `BadInput` for a
    layer that does not exist, or fewer than four texts of either set."""
    from intarsia.interpretation.concepts.erasing import look

    return look(model, config, positive, negative, texts, seed)
