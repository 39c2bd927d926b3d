"""`interpretation.perturbed_masking`: how much each word matters for a model's view of each other word."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Block, Cell, Column, Figure, Finding, Table

if TYPE_CHECKING:
    from intarsia.models import Model


class PerturbedMaskingConfig(Config):
    distance: Literal["auto", "state", "probability", "kl"] = Field(
        "auto",
        description="impact as distance of states, fall of the word's own probability, or KL of the predictions "
        "(nats); "
        "auto: state for masked models, as in the paper, KL for causal ones",
    )
    layer: int = Field(-1, description="layer whose states are compared (-1: the last)")
    max_texts: int = Field(8, ge=1, description="sentences read; more are drawn down to this many by the seed")
    max_tokens: int = Field(64, ge=2, description="the longest sentence")
    pictures: int = Field(3, ge=0, description="sentences drawn as a matrix")
    batch_size: int = Field(32, ge=1, description="masked variants in one forward pass")


UNITS = {"state": "distance", "probability": "probability lost", "kl": "KL, nats"}


class ImpactMatrix(pydantic.BaseModel):
    """One sentence: impact [i][j] of word j on word i (None where there is none), and the tree that impacts span.

    edges: pairs of word numbers; gold: those of the given heads, None without them."""

    words: list[str]
    impact: list[list[float | None]]
    edges: list[tuple[int, int]]
    gold: list[tuple[int, int]] | None = None


class PerturbedMasking(Finding):
    """Impact matrices of sentences. uuas, chain: share of gold edges in the spanned trees and in the chain of
    neighbours, where heads are given. near: share of all impact that comes from the neighbouring words."""

    sentences: list[ImpactMatrix] = Field(default_factory=list)
    pictures: int = 3
    uuas: float | None = None
    chain: float | None = None
    near: float = 0.0
    causal: bool = False
    distance: str = "state"

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {} if self.uuas is None else {"uuas": (self.uuas, Column(name="UUAS", format=".1%"))}

    def strongest(self) -> list[list[Any]]:
        """For each sentence its strongest impacts: rows of sentence, word, the word that matters for it, impact."""
        rows: list[list[Any]] = []
        for s in self.sentences:
            flat = [(v, i, j) for i, line in enumerate(s.impact) for j, v in enumerate(line) if v is not None]
            for v, i, j in sorted(flat, key=lambda item: -item[0])[:3]:
                rows.append([" ".join(s.words), s.words[i], s.words[j], v])
        return rows

    def tables(self) -> list[Table]:
        columns = [
            Column(name="sentence"),
            Column(name="word"),
            Column(name="depends on"),
            Column(name=UNITS[self.distance], format=".3f"),
        ]
        tables = [Table(title="The strongest impacts", columns=columns, rows=self.strongest())]
        if self.uuas is not None:
            columns = [Column(name="tree"), Column(name="gold edges found", format=".1%")]
            rows: list = [["spanned by impacts", self.uuas], ["every word with the next", self.chain]]
            tables.append(Table(title="Against the given trees", columns=columns, rows=rows))
        return tables

    def figures(self) -> list[Figure]:
        return [
            Figure(
                title="How much each word matters for each other word",
                kind="heatmap", x="the word taken away", y=UNITS[self.distance], format=".2f", matrix=s.impact,
                row_names=s.words, column_names=s.words,
                note="A row: the word whose prediction is looked at. Darker: taking the column's word away "
                "changes it more.",
            )
            for s in self.sentences[: self.pictures]
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.tables()]


@technique(
    "interpretation.perturbed_masking",
    kind="look",
    family="probing",
    source="Wu et al. 2020, Perturbed Masking: Parameter-free Probing, sections 2 and 3",
    place="fine-tuning · global · probing: parameter-free",
    gives="PerturbedMasking",
    example={"texts": ["The keys to the old cabinet are lost."]},
)
def perturbed_masking(
    model: Model, config: PerturbedMaskingConfig, *, texts: list[Any], seed: int = 0
) -> PerturbedMasking:
    """How much each word matters for the model's view of each other word: syntax without training a probe.

    In a masked language model word i is masked, then i and j: the impact of j on i is how far the state at i moves
    (or how much of the word's own probability is lost). A causal model never sees the word it predicts, so that word i
    needs no mask: instead the state that predicts it, at the token before, is compared with the one after the same text
    without j; only words before i have an impact there. A causal text is read after the token that begins (or ends)
    texts, as the first token of all is an attention sink. A maximum spanning tree over the impacts, both directions
    averaged, gives a parse.

    `texts`: sentences with words set apart by spaces; labelled by their heads (`the cat sat`: `2 3 0`) they are also
    scored. Impact is not only syntax: neighbours matter most to every language model. Raises `BadInput` for a sentence
    of a single word."""
    from intarsia.interpretation.probing.masking import look

    return look(model, config, texts, seed)
