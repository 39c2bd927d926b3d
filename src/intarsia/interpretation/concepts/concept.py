"""`interpretation.concept`: a direction in every layer that tells two sets of texts apart."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table

if TYPE_CHECKING:
    from intarsia.interpretation.concepts.vectors import Concept
    from intarsia.models import Model

Method = Literal["mean", "logistic", "leace"]
At = Literal["last", "mean", "marked"]
Interval = tuple[float, float, float]
POSITIVE = ["What a lovely day!", "I love this place.", "She is so happy.", "A great success."]
NEGATIVE = ["What an awful day!", "I hate this place.", "She is so sad now.", "A total failure."]


class ConceptConfig(Config):
    method: Method = Field(
        "mean",
        description="the direction: difference of the means, logistic regression's normal (CAV), or the one LEACE "
        "reads",
    )
    at: At = Field(
        "last",
        description="the state that is used: last token, mean of all but the first, or marked [[so]] in the text",
    )
    folds: int = Field(5, ge=2, description="parts of the cross-validation behind the figures")
    draws: int = Field(3, ge=1, description="shufflings of the labels that the direction is compared with")
    max_texts: int = Field(500, ge=2, description="texts of each set; more are drawn down to this many by the seed")
    max_tokens: int = Field(128, ge=2, description="tokens of a text that are read")
    batch_size: int = Field(16, ge=1, description="texts in one forward pass")


class ConceptLayer(pydantic.BaseModel):
    """One layer. auroc: probability that a held-out positive text lies further along the direction than a negative one.

    - control: the same for shuffled labels. gap: distance of the two means along the direction; separation: gap in
      standard deviations within a set. norm: median length of a state."""

    layer: int
    auroc: Interval
    control: float
    gap: float
    separation: float
    norm: float


class LearnConcept(Finding):
    """How well a direction tells held-out texts of the two sets apart, layer by layer."""

    layers: list[ConceptLayer] = Field(default_factory=list)
    method: str = "mean"
    positives: int = 0
    negatives: int = 0

    @property
    def best(self) -> ConceptLayer:
        """The layer where the direction tells best; among equals the one with the widest separation."""
        return max(self.layers, key=lambda row: (round(row.auroc[0], 3), row.separation))

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"concept_auroc": (self.best.auroc, Column(name="concept AUROC", format=".3f"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="layer", format="d"),
            Column(name="AUROC", format=".3f", better="higher", help="held-out texts; chance is 0.5"),
            Column(name="shuffled labels", format=".3f"),
            Column(name="separation", format=".2f", help="gap of the means in standard deviations within a set"),
            Column(name="gap", format=".3g", help="of the means along the direction, in the states' own units"),
            Column(name="state norm", format=".3g", help="median"),
        ]
        rows: list = [[r.layer, r.auroc, r.control, r.separation, r.gap, r.norm] for r in self.layers]
        return [Table(title="The direction, layer by layer", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = [float(r.layer) for r in self.layers]
        series = [
            Series(name="the concept", x=x, y=[r.auroc[0] for r in self.layers], low=[r.auroc[1] for r in self.layers],
                   high=[r.auroc[2] for r in self.layers]),
            Series(name="shuffled labels", x=x, y=[r.control for r in self.layers]),
        ]  # fmt: skip
        return [
            Figure(title="Where the direction tells the texts apart", kind="line", x="layer", y="AUROC, held out",
                   series=series, format=".2f", marks=[Mark(value=0.5, text="chance")])
        ]  # fmt: skip


@technique(
    "interpretation.concept",
    kind="learn",
    family="concepts",
    source="difference of means: Marks & Tegmark 2024, section 5; CAV: Kim et al. 2018, section 3.2; LEACE: "
    "Belrose et al. 2023, theorem 4.3",
    place="prompting · base model · representation engineering",
    extra="quality",
    gives="Concept",
    example={"positive": POSITIVE, "negative": NEGATIVE, "folds": 2},
)
def concept(model: Model, config: ConceptConfig, *, positive: list[Any], negative: list[Any], seed: int = 0) -> Concept:
    """Learn a direction in every layer that tells positive from negative texts, and an eraser for it.

    How well it tells is measured on held-out texts, beside shuffled labels. The result is saved as a folder
    (`concept.safetensors`, `concept.json`) that knows its model; `interpretation.steer` takes its path, and in Python
    it gives directions, scores and erasers.

    `positive`, `negative`: texts with and without the concept, best in pairs that differ in nothing else: a direction
    takes up whatever tells the sets apart, length and topic included. Raises `BadInput` for fewer than two of
    either."""
    from intarsia.interpretation.concepts.learning import learn

    return learn(model, config, positive, negative, seed)
