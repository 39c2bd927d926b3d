"""`interpretation.structural_probe`: whether states hold a syntax tree as distances."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data import LabelledText
from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model


class StructuralProbeConfig(Config):
    treebank: str | None = Field(None, description="a file in CoNLL-U format, in place of the texts")
    rank: int = Field(64, ge=1, description="dimensions that the states are projected to")
    epochs: int = Field(60, ge=1, description="passes over the training sentences")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam, on standardised states")
    test_share: float = Field(0.3, gt=0, lt=1, description="sentences held out, where no `test` is given")
    stride: int = Field(1, ge=1, description="probe every n-th layer, counted back from the last")
    max_texts: int = Field(500, ge=2, description="sentences used; more are drawn down to this many by the seed")
    max_tokens: int = Field(128, ge=2, description="the longest sentence")
    batch_size: int = Field(16, ge=1, description="sentences in one forward pass")


class StructuralLayer(pydantic.BaseModel):
    """One layer, on held-out sentences. uuas: share of gold edges in the tree that the distances span; spearman: rank
    correlation of distances with the tree's, averaged over sentences; random: UUAS of a random projection."""

    layer: int
    uuas: float
    spearman: float
    random: float


class StructuralProbe(Finding):
    """How well distances between projected states follow the tree. chain: UUAS of linking every word to the next."""

    layers: list[StructuralLayer] = Field(default_factory=list)
    chain: float = 0.0
    rank: int = 0
    trained_on: int = 0
    tested_on: int = 0

    @property
    def best(self) -> StructuralLayer:
        """The layer with the highest UUAS."""
        return max(self.layers, key=lambda row: row.uuas)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"uuas": (self.best.uuas, Column(name="UUAS", format=".1%"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="layer", format="d"),
            Column(name="UUAS", format=".1%", better="higher", help="gold edges found"),
            Column(name="above the chain", format="+.1%", help=f"next-word chain: {self.chain:.1%}"),
            Column(name="random projection", format=".1%"),
            Column(name="Spearman", format=".3f", better="higher"),
        ]
        rows: list = [[r.layer, r.uuas, r.uuas - self.chain, r.random, r.spearman] for r in self.layers]
        return [Table(title="The tree, layer by layer", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = [float(r.layer) for r in self.layers]
        series = [
            Series(name="probe", x=x, y=[r.uuas for r in self.layers]),
            Series(name="random projection", x=x, y=[r.random for r in self.layers]),
        ]
        marks = [Mark(value=self.chain, text="every word with the next")]
        title = "Share of the tree's edges found"
        return [Figure(title=title, kind="line", x="layer", y="UUAS", series=series, format=".0%", marks=marks)]


@technique(
    "interpretation.structural_probe",
    kind="look",
    family="probing",
    source="Hewitt & Manning 2019, A Structural Probe for Finding Syntax in Word Representations, sections 2 and 3",
    place="fine-tuning · global · probing: classifier-based",
    gives="StructuralProbe",
    example={
        "texts": [
            LabelledText("the cat sat", "2 3 0"),
            LabelledText("a dog chased the cat", "2 3 0 5 3"),
            LabelledText("birds sing", "2 0"),
            LabelledText("the old man slept", "3 3 4 0"),
            LabelledText("she saw a red car", "2 0 5 5 2"),
            LabelledText("we ate", "2 0"),
        ],
        "rank": 8,
        "epochs": 10,
    },
)
def structural_probe(
    model: Model,
    config: StructuralProbeConfig,
    *,
    texts: list[LabelledText] | None = None,
    test: list[LabelledText] | None = None,
    seed: int = 0,
) -> StructuralProbe:
    """Whether states hold a syntax tree: a projection in which squared distances between words are tree distances.

    For each layer a matrix B [rank, width] is trained to make |B(h_i - h_j)|^2 the number of edges between words i
    and j, a word's state being the mean over its tokens. Judged on held-out sentences by the tree that the distances
    span (UUAS) and by their rank correlation, against linking each word with the next and against a random B.
    Punctuation counts in no score.

    `texts`: sentences with words set apart by spaces, labelled by their heads (`the cat sat`: `2 3 0`); or give
    `treebank`, a CoNLL-U file. `test`: held-out sentences; else a share of the texts. A causal model has not read the
    words to the right, so that its early words know little of the tree. Raises `BadInput` for heads that are no
    tree."""
    from intarsia.interpretation.probing.structure import look

    return look(model, config, texts, test, seed)
