"""`interpretation.neurons`: what excites each neuron, and what it writes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table, TokenMap

if TYPE_CHECKING:
    from intarsia.models import Model


class NeuronsConfig(Config):
    neurons: list[str] = Field([], description="neurons to show, as layer:number (7:42); default: the most selective")
    show: int = Field(8, ge=1, description="how many of the most selective neurons are shown")
    top: int = Field(4, ge=1, description="texts shown for each neuron")
    side: Literal["highest", "lowest"] = Field(
        "highest", description="which activations excite: gated MLPs use both signs"
    )
    stride: int = Field(1, ge=1, description="read every n-th layer, counted back from the last")
    context: int = Field(12, ge=0, description="tokens shown before and after a text's strongest one")
    writes: int = Field(8, ge=1, description="tokens shown that a neuron writes for and against")
    max_texts: int = Field(500, ge=1, description="texts read; more are drawn down to this many by the seed")
    max_tokens: int = Field(128, ge=2, description="tokens of a text that are read")
    batch_size: int = Field(16, ge=1, description="texts in one forward pass")


class Excerpt(pydantic.BaseModel):
    """A stretch of text and a neuron's activation at each of its tokens; `peak` is the index of the strongest."""

    text: int
    tokens: list[str]
    values: list[float]
    peak: int


class NeuronView(pydantic.BaseModel):
    """One neuron.

    - mean, std, maximum, minimum: over all tokens. positive: share of tokens above zero. sparsity: 0 for a constant,
      near 1 when few tokens carry everything. selectivity: how many standard deviations its best texts lie from its
      mean.
    - writes, against: tokens that its row of the down projection makes likelier and less likely when it is positive, by
      the network's own final norm and head, with the logit each gains in units of the row's length."""

    layer: int
    neuron: int
    mean: float
    std: float
    maximum: float
    minimum: float
    positive: float
    sparsity: float
    selectivity: float
    excerpts: list[Excerpt] = []
    writes: list[str] = []
    against: list[str] = []

    @property
    def name(self) -> str:
        return f"{self.layer}:{self.neuron}"


class LayerNeurons(pydantic.BaseModel):
    """The neurons of one layer: medians over neurons, and how many are never above zero or hardly vary (dead)."""

    layer: int
    neurons: int
    sparsity: float
    selectivity: float
    strongest: float
    dead: int


class Neurons(Finding):
    """Statistics of every neuron (input of an MLP's down projection), and a closer view of some."""

    layers: list[LayerNeurons] = Field(default_factory=list)
    views: list[NeuronView] = Field(default_factory=list)
    side: str = "highest"
    texts: int = 0
    tokens: int = 0

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"dead_neurons": (sum(row.dead for row in self.layers), Column(name="dead neurons", format=",d"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="neuron"),
            Column(name="fires most on"),
            Column(name="writes for"),
            Column(name="selectivity", format=".1f", help="standard deviations from its mean to its best texts"),
            Column(name="sparsity", format=".2f"),
            Column(name="above zero", format=".0%"),
        ]
        rows: list = [
            [v.name, " ".join(dict.fromkeys(e.tokens[e.peak].strip() or "␣" for e in v.excerpts)), " ".join(
                t.strip() or "␣" for t in v.writes[:5]), v.selectivity, v.sparsity, v.positive]
            for v in self.views
        ]  # fmt: skip
        tables = [Table(title="Neurons", columns=columns, rows=rows)]
        if any(v.against for v in self.views):
            columns = [Column(name="neuron"), Column(name="writes for"), Column(name="writes against")]
            rows = [[v.name, " ".join(v.writes), " ".join(v.against)] for v in self.views]
            tables.append(Table(title="What they write", columns=columns, rows=rows))
        columns = [
            Column(name="layer", format="d"),
            Column(name="neurons", format=",d"),
            Column(name="sparsity", format=".2f", help="median"),
            Column(name="selectivity", format=".1f", help="median"),
            Column(name="largest activation", format=".2f"),
            Column(name="dead", format="d", help="hardly vary over the texts"),
        ]
        rows = [[r.layer, r.neurons, r.sparsity, r.selectivity, r.strongest, r.dead] for r in self.layers]
        return [*tables, Table(title="Layers", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = [float(row.layer) for row in self.layers]
        sparsity = Series(name="sparsity", x=x, y=[row.sparsity for row in self.layers])
        selectivity = Series(name="selectivity", x=x, y=[row.selectivity for row in self.layers])
        return [
            Figure(title="How sparse the neurons of a layer are", kind="line", x="layer", y="median sparsity",
                   series=[sparsity], format=".2f"),
            Figure(title="How far the best texts lie from the mean", kind="line", x="layer",
                   y="standard deviations, median", series=[selectivity], format=".1f"),
        ]  # fmt: skip

    def maps(self) -> list[TokenMap]:
        """The top activating texts of each shown neuron, each token coloured by the activation."""
        out = []
        for view in self.views:
            edge = max((abs(v) for e in view.excerpts for v in e.values), default=0.0)
            for number, e in enumerate(view.excerpts, 1):
                out.append(
                    TokenMap(
                        title=f"Neuron {view.name}: text {number} of {len(view.excerpts)}", tokens=e.tokens,
                        values=list(e.values), scale="diverging", maximum=edge or None, meaning="activation",
                        format=".2f",
                    )
                )  # fmt: skip
        return out

    def blocks(self) -> list[Block]:
        return [self.tables()[0], *self.maps(), *self.figures(), *self.tables()[1:]]


@technique(
    "interpretation.neurons",
    kind="look",
    family="neurons",
    source="top activating texts: Bau et al. 2020; Bills et al. 2023; what a neuron writes: Geva et al. 2022, "
    "section 3; sparsity: Treves & Rolls 1991",
    place="fine-tuning · global · neuron activation",
    gives="Neurons",
    example={
        "texts": ["The Eiffel Tower is in Paris.", "Water boils at 100 degrees.", "Two plus two is four."],
        "show": 2,
        "top": 2,
    },
)
def neurons(model: Model, config: NeuronsConfig, *, texts: list[Any], seed: int = 0) -> Neurons:
    """What excites each neuron of a model, and what it writes: statistics of all, a closer view of the most selective.

    One pass over the texts; mean, spread, extremes, sparsity and the best texts of every neuron are kept, never the
    activations. The first token of each text is left out (an attention sink, with activations unlike all others).
    What a neuron writes is what its activation alone adds to the stream, read through the final norm and head.

    `texts`: strings or records with `.text`. Top texts show a neuron's extremes, not what it does on the rest, and look
    tidier than they are: test a reading with `interpretation.explain_neuron` and `interpretation.ablate`. Raises
    `BadInput` for a network whose neurons cannot be read (mixtures of experts)."""
    from intarsia.interpretation.neurons.watching import look

    return look(model, config, texts, seed)
