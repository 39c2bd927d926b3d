"""`interpretation.lens`: what each layer would predict, read by one of several lenses."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table

Method = Literal["auto", "logit", "affine", "tuned", "future", "identity", "sink", "ensemble"]

WORDS = {
    "logit": "the logit lens (final norm and head, nothing else)",
    "affine": "an affine lens (least squares onto the final state)",
    "tuned": "a tuned lens (affine maps trained on KL)",
    "future": "a future lens (linear maps onto later positions)",
    "identity": "the token identity Patchscope (the layers above read the state behind a few-shot prompt)",
    "sink": "the sink lens (the layers above read the state behind one attention sink)",
    "ensemble": "an ensemble of fitted maps and the sink lens",
}


class LensConfig(Config):
    method: Method = Field(
        "auto",
        description="auto: sink for causal language models, else logit. logit: final norm and head. sink: the layers "
        "above read the state behind one token. identity: the same behind the Patchscopes prompt. affine, tuned, "
        "future: fitted maps, then final norm and head. ensemble: fitted maps and sink together",
    )
    lens: Path | None = Field(
        None, description="folder of fitted maps (interpretation.fit_lens), for affine, tuned, future and ensemble"
    )
    max_texts: int = Field(12, ge=1, description="texts read; more are drawn down to this many by the seed")
    max_tokens: int = Field(48, ge=2, description="tokens of a text that are read; the rest is cut off")
    batch_size: int = Field(8, ge=1, description="texts in one forward pass")
    stride: int = Field(1, ge=1, description="read every n-th layer, counted back from the last")
    pictures: int = Field(2, ge=0, description="texts drawn as a picture of layers x tokens")
    picture_tokens: int = Field(20, ge=2, description="tokens of a text that a picture shows")


class LensLayer(pydantic.BaseModel):
    """One layer's averages over all positions but the first of each text. Of the future lens, all that is compared with
    (the final distribution, the next token) stands `ahead` positions later.

    `agreement`: share of positions whose top token is the network's own (precision@1). `surprisal`: -log p_L of the
    layer's top token under the final distribution p_L. `kl`: KL(p_L || p_l). `entropy`: of p_l. `rank`: mean rank that
    the layer gives to the final prediction (1 is best). `next_rank`, `next_agreement`: rank of the text's actual next
    token, and share of positions where it comes first; None for encoders. Nats throughout."""

    layer: int
    agreement: float
    surprisal: float
    kl: float
    entropy: float
    rank: float
    next_rank: float | None = None
    next_agreement: float | None = None


class LensPicture(pydantic.BaseModel):
    """The top token of each layer (row) at each position (column) of one text, and its probability."""

    tokens: list[str]
    top: list[list[str]]
    probability: list[list[float]]


class Lens(Finding):
    """What each layer would predict, read by the lens `method`.

    `settled` is the share of positions whose top token is final from this layer on, by layer."""

    method: str = "logit"
    ahead: int = 0
    layers: list[LensLayer] = Field(default_factory=list)
    settled: list[float] = Field(default_factory=list)
    texts: int = 0
    positions: int = 0
    pictures: list[LensPicture] = Field(default_factory=list)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"lens_mean_agreement": (self.mean_agreement, Column(name="lens agreement", format=".1%"))}

    @property
    def mean_agreement(self) -> float:
        """Precision@1 averaged over the layers."""
        return sum(layer.agreement for layer in self.layers) / len(self.layers)

    @property
    def half_settled(self) -> int | None:
        """The first layer from which at least half of the predictions no longer change."""
        return next((row.layer for row, part in zip(self.layers, self.settled, strict=True) if part >= 0.5), None)

    def tables(self) -> list[Table]:
        nexts = self.layers and self.layers[0].next_rank is not None
        columns = [
            Column(name="layer", format="d"),
            Column(name="agrees", format=".1%", help="top token is the network's own"),
            Column(name="settled", format=".1%", help="top token no longer changes from here on"),
            Column(name="surprisal", unit="nats", format=".2f", help="of its top token under the network's own"),
            Column(name="KL", unit="nats", format=".2f", help="of the network's own distribution from the layer's"),
            Column(name="entropy", unit="nats", format=".2f"),
            Column(name="rank", format=",.1f", help="mean rank of the network's own prediction; 1 is best"),
        ]
        if nexts:
            columns.append(Column(name="rank of the actual next token", format=",.1f", help="mean; 1 is best"))
            columns.append(Column(name="actual next token on top", format=".1%"))
        rows: list[list[Any]] = []
        for row, settled in zip(self.layers, self.settled, strict=True):
            cells: list[Any] = [
                row.layer, row.agreement, settled, row.surprisal, row.kl, row.entropy, row.rank
            ]  # fmt: skip
            rows.append([*cells, row.next_rank, row.next_agreement] if nexts else cells)
        return [Table(title="The lens, layer by layer", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = [float(row.layer) for row in self.layers]
        shares = [Series(name="agrees with the final prediction", x=x, y=[row.agreement for row in self.layers])]
        shares.append(Series(name="settled: no longer changes", x=x, y=list(self.settled)))
        if any(row.next_agreement is not None for row in self.layers):
            right = [row.next_agreement for row in self.layers]
            shares.append(Series(name="right: the text's next token", x=x, y=right))
        distances = [
            Series(name="KL to the final distribution", x=x, y=[row.kl for row in self.layers]),
            Series(name="surprisal of the layer's top token", x=x, y=[row.surprisal for row in self.layers]),
            Series(name="entropy", x=x, y=[row.entropy for row in self.layers]),
        ]
        early = "How early the prediction is there"
        far = "How far each layer is from the final prediction"
        return [
            Figure(title=early, kind="line", x="layer", y="share of positions", series=shares, format=".0%"),
            Figure(title=far, kind="line", x="layer", y="nats", series=distances, format=".2f"),
        ]

    def picture_figures(self) -> list[Figure]:
        """One heatmap a text: the last layer on top, a column for each token that was read."""
        figures = []
        for picture in self.pictures:
            names = [f"layer {row.layer}" for row in self.layers]
            figures.append(
                Figure(
                    title="What each layer would say next",
                    kind="heatmap",
                    x="token read",
                    y="probability of the top token",
                    format=".0%",
                    matrix=[list(row) for row in reversed(picture.probability)],
                    texts=[list(row) for row in reversed(picture.top)],
                    row_names=names[::-1],
                    column_names=picture.tokens,
                    note="Each cell holds the token that this layer puts first after reading the column's token; "
                    "the top row is what the network says. Darker: more certain.",
                )
            )
        return figures

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.picture_figures(), *self.tables()]


@technique(
    "interpretation.lens",
    kind="look",
    family="lenses",
    source="nostalgebraist 2020 (logit lens); Belrose et al. 2023 (tuned lens); Pal et al. 2023 (future lens); "
    "Ghandeharioun et al. 2024 (Patchscopes), section 4.1",
    place="prompting · base model · representation engineering",
    example={"texts": ["The Eiffel Tower is in Paris.", "Water boils at 100 degrees."]},
)
def lens(model: Model, config: LensConfig, *, texts: list[Any], seed: int = 0) -> Lens:
    """A lens: at which layer the next token is already decided, and what the layers before it would say.

    The state of each layer is read as a distribution over the next token, and compared with the network's own. How it
    is read is the `method`. `logit`: through the network's own final norm and head (soft caps, scales and biases
    included), as if the layer were the last. `sink`: by the layers above it, which find the state at the second
    position of a text whose first token serves as attention sink; it needs no training and reads early layers far
    better. `affine`, `tuned`, `future`: through maps fitted on text (`lens`, see `interpretation.fit_lens`).
    `ensemble`: fitted maps and the sink lens together. Each is a Patchscope with another target (`lenses.presets`).

    Averages leave out the first position of each text: models use it as an attention sink, and its state is unlike all
    others. `texts`: strings or records with `.text`. Raises `BadInput` for a network without a head over its
    vocabulary, and for maps of another model."""
    from intarsia.interpretation.lenses.reading import look

    return look(model, config, texts, seed)
