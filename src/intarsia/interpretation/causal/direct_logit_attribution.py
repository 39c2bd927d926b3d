"""`interpretation.direct_logit_attribution`: what each part of the network writes, itself, for one word."""

from __future__ import annotations

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.wording import one_line
from intarsia.models import Model
from intarsia.report import Block, Column, Figure, Finding, Series, Table


class DirectLogitAttributionConfig(Config):
    prompt: str = Field(min_length=1, description="the text; an encoder's has its mask token where it predicts")
    answer: str | None = Field(
        None, description="the word whose first token's logit is taken apart; unset: what the model puts first"
    )
    foil: str | None = Field(None, description="take apart logit of answer - logit of this word instead")
    neurons: int = Field(10, ge=0, description="neurons in the table, the largest first")


class Part(pydantic.BaseModel):
    """What one part adds to the logit: `embed`, `attention 3`, `MLP 3`, `constants`."""

    name: str
    kind: str
    layer: int | None = None
    value: float


class DirectLogitAttribution(Finding):
    """The logit (before a soft cap) as a sum over the parts of the network.

    - parts: they sum to `logit`; `error` is what is missing, by rounding.
    - heads: [layer][head], and the rest of attention (its bias) by layer; None where heads do not add up.
    - neurons: (layer, neuron, contribution, activation), the largest first.
    - capped: whether the network squashes its logits afterwards (Gemma 2)."""

    prompt: str
    answer: str
    foil: str | None = None
    logit: float
    error: float
    parts: list[Part] = Field(default_factory=list)
    heads: list[list[float]] | None = None
    biases: list[float] | None = None
    neurons: list[tuple[int, int, float, float]] = Field(default_factory=list)
    capped: bool = False

    @property
    def what(self) -> str:
        """The quantity that is taken apart."""
        foil = f" - logit of {one_line(self.foil)!r}" if self.foil is not None else ""
        return f"logit of {one_line(self.answer)!r}{foil}"

    def of_kind(self, kind: str) -> list[Part]:
        """Parts of one kind (`attention`, `mlp`, `embed`, `constant`)."""
        return [part for part in self.parts if part.kind == kind]

    def figures(self) -> list[Figure]:
        layers = sorted({part.layer for part in self.parts if part.layer is not None})
        x = [float(layer) for layer in layers]
        series = []
        for kind, name in (("attention", "attention"), ("mlp", "MLP")):
            found = {part.layer: part.value for part in self.of_kind(kind)}
            if found:
                series.append(Series(name=name, x=x, y=[found.get(layer) for layer in layers]))
        running, total = [], sum(part.value for part in self.parts if part.layer is None)
        for layer in layers:
            total += sum(part.value for part in self.parts if part.layer == layer)
            running.append(total)
        figures = [
            Figure(title="What each layer adds", kind="line", x="layer", y=self.what, series=series, format=".2f"),
            Figure(
                title="The sum so far", kind="line", x="layer", y=self.what, format=".2f",
                series=[Series(name="embedding, constants and all layers up to here", x=x, y=running)],
            ),
        ]  # fmt: skip
        if self.heads is not None:
            figures.append(
                Figure(
                    title="What each head adds",
                    kind="heatmap",
                    x="head",
                    y=self.what,
                    format=".2f",
                    scale="diverging",
                    matrix=[list(row) for row in reversed(self.heads)],
                    row_names=[f"layer {i}" for i in reversed(range(len(self.heads)))],
                    column_names=[str(h) for h in range(len(self.heads[0]))],
                )
            )
        return figures

    def tables(self) -> list[Table]:
        value = Column(name="contribution", format=".3f")
        named: list[tuple[str, float]] = [(part.name, part.value) for part in self.parts]
        if self.heads is not None:
            named = [(n, v) for n, v in named if not n.startswith("attention")]
            named += [(f"head {i}.{h}", v) for i, row in enumerate(self.heads) for h, v in enumerate(row)]
        named.sort(key=lambda pair: -abs(pair[1]))
        tables = [
            Table(
                title="The largest parts",
                columns=[Column(name="part"), value],
                rows=[[name, number] for name, number in named[:15]],
                note=f"All parts sum to {self.logit:.3f} (rounding: {self.error:.1e}).",
            )
        ]
        if self.neurons:
            columns = [Column(name="layer", format="d"), Column(name="neuron", format="d"), value]
            columns.append(Column(name="activation", format=".3f"))
            tables.append(Table(title="The largest neurons", columns=columns, rows=[list(n) for n in self.neurons]))
        return tables

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.tables()]


@technique(
    "interpretation.direct_logit_attribution",
    kind="look",
    family="mechanistic",
    source="Elhage et al. 2021 (A mathematical framework for transformer circuits), residual stream as a sum",
    place="fine-tuning · local · feature attribution: decomposition",
    example={"prompt": "The Eiffel Tower is in the city of", "answer": "Paris"},
)
def direct_logit_attribution(model: Model, config: DirectLogitAttributionConfig) -> DirectLogitAttribution:
    """Direct logit attribution: the logit of a word as a sum over embedding, heads, MLPs and neurons.

    The final stream is a sum of what every part wrote, and with the final norm's scale held at what it is for this
    prompt, the logit is linear in it. So each part has a share of its own, and the shares add up to the logit. It
    shows what parts write directly, not what they do through later layers: patch for that.

    Raises `BadInput` for networks that norm between blocks (BERT): there the stream is no sum."""
    from intarsia.interpretation.causal.contributions import take_apart

    return take_apart(model, config)
