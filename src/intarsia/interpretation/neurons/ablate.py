"""`interpretation.ablate`: what goes wrong without a neuron, a head, an MLP or a block."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Block, Cell, Column, Figure, Finding, Mark, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model

Interval = tuple[float, float, float]


class AblateConfig(Config):
    what: Literal["heads", "neurons", "attention", "mlp", "blocks"] = Field("heads", description="what is taken out")
    how: Literal["mean", "zero", "resample"] = Field(
        "mean", description="what stands in its place: its mean over tokens, nothing, or what it is in another text"
    )
    first: bool = Field(
        False, description="also at each text's first token: an attention sink, without which every model breaks down"
    )
    measure: Literal["auto", "loss", "label", "word"] = Field(
        "auto", description="what the damage is measured by: the texts' own tokens, their label, or a word after them"
    )
    word: str | None = Field(None, description="the word that should follow each text, with its leading space")
    only: list[str] = Field([], description="components by name (layer:number, or a layer); default: all")
    layers: list[int] = Field([], description="layers whose components are ablated; default: all")
    candidates: int = Field(
        64, ge=1, description="neurons that are ablated: those with the largest first-order estimate of the damage"
    )
    together: int = Field(
        8, ge=0, description="the most damaging components are also taken out together, up to so many"
    )
    draws: int = Field(5, ge=1, description="random sets of components that this is compared with")
    show: int = Field(20, ge=1, description="rows of the table")
    max_texts: int = Field(16, ge=1, description="texts used; more are drawn down to this many by the seed")
    max_tokens: int = Field(32, ge=2, description="tokens of a text that are read")


ONE = {"heads": "head", "neurons": "neuron", "attention": "attention", "mlp": "MLP", "blocks": "block"}
MANY = {"heads": "heads", "neurons": "neurons", "attention": "attention", "mlp": "MLPs", "blocks": "blocks"}


class Ablated(pydantic.BaseModel):
    """One component: the rise of the loss without it (nats, mean over texts, 95 % interval over texts).

    - hits: change of the share of right predictions. number: -1 for a whole attention, MLP or block."""

    layer: int
    number: int
    rise: Interval
    hits: float

    @property
    def name(self) -> str:
        return f"{self.layer}:{self.number}" if self.number >= 0 else str(self.layer)


class Together(pydantic.BaseModel):
    """The n most damaging components out at once: the rise of the loss, and its mean and range for random sets."""

    count: int
    rise: float
    random: float
    low: float
    high: float


class Ablate(Finding):
    """Components ranked by what goes wrong without them.

    - base: loss of the whole model (nats), base_hits: share of right predictions. all: components that could be
      ablated.
    - estimate: Spearman correlation of the first-order estimate with the measured rise (neurons only)."""

    what: str = "heads"
    how: str = "mean"
    loss: str = ""
    base: float = 0.0
    base_hits: float = 0.0
    components: list[Ablated] = Field(default_factory=list)
    all: int = 0
    together: list[Together] = Field(default_factory=list)
    estimate: float | None = None
    texts: int = 0
    show: int = 20

    def ranked(self) -> list[Ablated]:
        """The most damaging first."""
        return sorted(self.components, key=lambda c: -c.rise[0])

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        worst = self.ranked()[0]
        return {"worst_ablation": (worst.rise, Column(name=f"without {ONE[self.what]} {worst.name}", format="+.3f"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name=ONE[self.what]),
            Column(name="loss rises by", unit="nats", format="+.4f", help=f"{self.loss}, {self.base:.3f} as it is"),
            Column(name="right predictions", format="+.1%", help=f"{self.base_hits:.1%} as it is"),
        ]
        ranked = self.ranked()
        rows: list = [[c.name, c.rise, c.hits] for c in ranked[: self.show]]
        tables = [Table(title=f"What is missed most: {MANY[self.what]}", columns=columns, rows=rows)]
        helped = [c for c in reversed(ranked) if c.rise[2] < 0][:5]
        if helped:
            rows = [[c.name, c.rise, c.hits] for c in helped]
            tables.append(Table(title="Without these the loss falls", columns=columns, rows=rows))
        if self.together:
            columns = [
                Column(name="taken out together", format="d"),
                Column(name="the most damaging", unit="nats", format="+.3f"),
                Column(name="random ones", unit="nats", format="+.3f"),
            ]
            rows = [[t.count, t.rise, (t.random, t.low, t.high)] for t in self.together]
            tables.append(Table(title="Several at once", columns=columns, rows=rows))
        return tables

    def figures(self) -> list[Figure]:
        figures = []
        numbers = sorted({c.number for c in self.components})
        layers = sorted({c.layer for c in self.components})
        if self.what == "heads":
            known = {(c.layer, c.number): c.rise[0] for c in self.components}
            figures.append(
                Figure(
                    title="Rise of the loss without each head", kind="heatmap", x="head", y="nats", format="+.3f",
                    scale="diverging", matrix=[[known.get((layer, n)) for n in numbers] for layer in reversed(layers)],
                    row_names=[f"layer {layer}" for layer in reversed(layers)], column_names=[str(n) for n in numbers],
                )
            )  # fmt: skip
        elif self.what != "neurons":
            found = sorted(self.components, key=lambda c: c.layer)
            series = Series(name=ONE[self.what], x=[float(c.layer) for c in found], y=[c.rise[0] for c in found],
                            low=[c.rise[1] for c in found], high=[c.rise[2] for c in found])  # fmt: skip
            figures.append(
                Figure(title=f"Rise of the loss without a layer's {ONE[self.what]}", kind="line", x="layer", y="nats",
                       series=[series], format="+.3f", marks=[Mark(value=0.0, text="as it is")])
            )  # fmt: skip
        if len(self.together) > 1:
            x = [float(t.count) for t in self.together]
            series_ = [
                Series(name="the most damaging", x=x, y=[t.rise for t in self.together]),
                Series(name="random ones", x=x, y=[t.random for t in self.together], low=[t.low for t in self.together],
                       high=[t.high for t in self.together]),
            ]  # fmt: skip
            figures.append(
                Figure(title="Several out at once", kind="line", x="how many", y="rise of the loss, nats",
                       series=series_, format="+.2f")
            )  # fmt: skip
        return figures

    def blocks(self) -> list[Block]:
        return [*self.figures(), *self.tables()]


@technique(
    "interpretation.ablate",
    kind="look",
    family="neurons",
    source="Michel et al. 2019 (heads), section 3; resampling: Chan et al. 2022 (causal scrubbing); first-order "
    "estimate: Molchanov et al. 2017, section 2.2",
    place="fine-tuning · global · neuron activation",
    gives="Ablate",
    example={"texts": ["The Eiffel Tower is in Paris.", "Two plus two is four."], "what": "heads", "together": 2},
)
def ablate(model: Model, config: AblateConfig, *, texts: list[Any], seed: int = 0) -> Ablate:
    """Take out heads, neurons, attention, MLPs or blocks one by one, and rank them by the damage.

    At every token but the first a component is put to its mean over the texts, to zero, or to what it is in another
    text (which stays in the range that the rest of the model knows; zero often does not). A block is its attention
    and its MLP together. Only the blocks above it run again. Neurons are too many to try all: a first-order estimate
    chooses candidates. The most damaging are also taken out together and compared with random sets.

    `texts`: strings or records; labelled texts measure the label where the model has a label task or a classifier's
    head. A small rise does not mean that a component does nothing: others may stand in for it. The ranking and the
    sets are measured on the same texts, which favours the ranked. Raises `BadInput` for a component that does not
    exist."""
    from intarsia.interpretation.neurons.ablating import look

    return look(model, config, texts, seed)
