"""`interpretation.attention`: what each head attends to, as scores of all heads and pictures of some."""

from __future__ import annotations

from typing import Any

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Table

TOP = 5
KINDS = {
    "previous": ("previous token", "mean attention to the token just before"),
    "induction": ("induction", "on random tokens said twice: attention to what followed the same token before"),
    "first": ("first token", "mean attention to the text's first token, where heads rest that have nothing to do"),
    "entropy": ("entropy", "0: all attention on one token; 1: spread evenly over all"),
}


class AttentionConfig(Config):
    prompt: str | None = Field(None, description="one text to look at, in place of `texts`")
    layer: int | None = Field(None, description="with `head`: the head that is drawn; -1 is the last layer")
    head: int | None = Field(None, ge=0, description="with `layer`: the head that is drawn")
    pictures: int = Field(2, ge=0, description="heads drawn where none is named: the strongest of each kind")
    picture_tokens: int = Field(24, ge=2, description="tokens of the first text that a picture shows")
    max_texts: int = Field(12, ge=1, description="texts read; more are drawn down to this many by the seed")
    max_tokens: int = Field(128, ge=2, description="tokens of a text that are read; the rest is cut off")
    repeated: int = Field(24, ge=2, description="random tokens that are said twice, to find induction heads")


class HeadScores(pydantic.BaseModel):
    """One head's averages over all positions but the first two of each text.

    - entropy: of its attention, as a share of the most there could be (even attention to all tokens in view).
    - previous: attention to the token before. first: attention to the text's first token (the sink).
    - induction: on random tokens said twice, attention to what came after the same token the first time; None where
      tokens see what follows them."""

    layer: int
    head: int
    entropy: float
    previous: float
    first: float
    induction: float | None = None


class AttentionPicture(pydantic.BaseModel):
    """One head's pattern on one text: rows are the tokens that attend, columns what they attend to."""

    layer: int
    head: int
    why: str
    tokens: list[str]
    pattern: list[list[float]]


class AttentionView(Finding):
    """What heads attend to: scores of each, and the patterns of some."""

    heads: list[HeadScores] = Field(default_factory=list)
    pictures: list[AttentionPicture] = Field(default_factory=list)
    texts: int = 0
    positions: int = 0

    def top(self, kind: str, count: int = TOP) -> list[HeadScores]:
        """The heads with the highest score of a kind (`previous`, `induction`, `first`, `entropy`)."""
        scored = [head for head in self.heads if getattr(head, kind) is not None]
        return sorted(scored, key=lambda head: -getattr(head, kind))[:count]

    def tables(self) -> list[Table]:
        columns = [Column(name="kind"), Column(name="layer", format="d"), Column(name="head", format="d")]
        columns.append(Column(name="score", format=".2f"))
        rows: list[list[Cell | tuple[float, float, float]]] = []
        for kind in ("previous", "induction", "first"):
            rows += [[KINDS[kind][0], h.layer, h.head, getattr(h, kind)] for h in self.top(kind)]
        return [Table(title="The strongest heads of each kind", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        layers = sorted({h.layer for h in self.heads})
        width = 1 + max(h.head for h in self.heads)
        by_place = {(h.layer, h.head): h for h in self.heads}
        figures = []
        for kind, (name, meaning) in KINDS.items():
            matrix = [
                [getattr(by_place[i, j], kind) if (i, j) in by_place else None for j in range(width)]
                for i in reversed(layers)
            ]
            if all(value is None for row in matrix for value in row):
                continue
            figures.append(
                Figure(
                    title=f"Heads: {name}",
                    kind="heatmap",
                    x="head",
                    y=name,
                    matrix=matrix,
                    format=".2f",
                    row_names=[f"layer {i}" for i in reversed(layers)],
                    column_names=[str(j) for j in range(width)],
                    note=meaning[0].upper() + meaning[1:] + ".",
                )
            )
        return figures

    def picture_figures(self) -> list[Figure]:
        """A heatmap a head: who attends (rows) to whom (columns)."""
        return [
            Figure(
                title=f"Layer {p.layer}, head {p.head}: {p.why}",
                kind="heatmap",
                x="attended to",
                y="attention",
                format=".2f",
                matrix=[list(row) for row in p.pattern],
                row_names=p.tokens,
                column_names=p.tokens,
            )
            for p in self.pictures
        ]

    def blocks(self) -> list[Block]:
        return [*self.picture_figures(), *self.tables(), *self.figures()]


@technique(
    "interpretation.attention",
    kind="look",
    family="attention",
    source="Clark et al. 2019 (what does BERT look at), section 3; Olsson et al. 2022 (induction heads), appendix",
    place="fine-tuning · local · attention",
    example={"texts": ["The capital of France is the city of"]},
)
def attention(model: Model, config: AttentionConfig, *, texts: list[Any] | None = None, seed: int = 0) -> AttentionView:
    """Attention views: what each head attends to on texts, and which heads look back, copy or rest.

    A pattern says from where a head moves information, not what it moves nor whether anything uses it: very different
    patterns can give the same prediction (Jain & Wallace 2019), a weight on a vector of length zero moves nothing
    (Kobayashi et al. 2020), and most weight often rests on the first token without meaning anything (Xiao et al.
    2024). Where the question is whether attention matters, it can be evidence (Wiegreffe & Pinter 2019); check a head
    by ablating it.

    `texts`: strings or records with `.text`. Raises `BadInput` for a network whose patterns cannot be read."""
    from intarsia.interpretation.attention.viewing import look

    return look(model, config, texts, seed)
