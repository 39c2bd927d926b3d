"""`interpretation.probe`: in which layers a label can be read off the states, and whether the model uses it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.data import LabelledText
from intarsia.report import Cell, Column, Figure, Finding, Mark, Series, Table

if TYPE_CHECKING:
    from intarsia.models import Model

Interval = tuple[float, float, float]


class ProbeConfig(Config):
    at: Literal["last", "mean", "marked"] = Field(
        "last",
        description="the state that is probed: last token, mean of all but the first, or marked [[so]] in the text",
    )
    method: Literal["linear", "mdl"] = Field(
        "linear", description="accuracy by cross-validation, or bits of the online code (minimum description length)"
    )
    as_prompts: bool = Field(True, description="put the texts into the model's label task prompt, where it has one")
    folds: int = Field(5, ge=2, description="parts of the cross-validation; records of one group stay together")
    strength: float = Field(
        0.0, ge=0, description="inverse strength of the penalty (C); 0 chooses it inside each training part"
    )
    stride: int = Field(1, ge=1, description="probe every n-th layer, counted back from the last")
    max_texts: int = Field(1000, ge=4, description="texts read; more are drawn down to this many by the seed")
    max_tokens: int = Field(128, ge=2, description="tokens of a text that are read")
    batch_size: int = Field(16, ge=1, description="texts in one forward pass")
    causal: bool = Field(True, description="erase what the probe found from the best layer, and see what that changes")
    causal_texts: int = Field(64, ge=1, description="texts on which the erasure is tried")
    causal_layer: int | None = Field(None, description="the layer that is erased (default: the best one)")
    draws: int = Field(3, ge=1, description="random erasures and control tasks that the real ones are compared with")


class ProbeLayer(pydantic.BaseModel):
    """One layer.

    - accuracy, control: of the label and of the control task, cross-validated, with 95 % intervals over groups.
    - selectivity: accuracy - control accuracy. bits, control_bits: online code lengths (method mdl).
    - compression: bits without a model / bits."""

    layer: int
    accuracy: Interval | None = None
    control: float | None = None
    bits: float | None = None
    control_bits: float | None = None
    compression: float | None = None

    @property
    def selectivity(self) -> float | None:
        if self.accuracy is None or self.control is None:
            return None
        return self.accuracy[0] - self.control


class Erased(pydantic.BaseModel):
    """What changes when a direction is erased: the concept's own, or a random one's (mean over draws).

    Erasers are fitted on half of the folds; all figures are of the other half.

    - accuracy: of a new probe on the erased states of the layer, cross-validated.
    - later: of a new probe on the last layer's states, after the erasure.
    - kl: of the next-token (or class) distribution at the place, before from after, nats, mean over texts.
    - changed: share of texts whose top prediction there is another.
    - loss: of the right label, where the model gives labels; right: how often the label is right."""

    what: str
    rank: int
    accuracy: float | None
    later: float | None
    kl: float
    changed: float
    loss: float | None = None
    right: float | None = None


class Probe(Finding):
    """A label as probes read it, layer by layer.

    - chance: accuracy of always saying the most frequent label. uniform_bits: code length without a model.
    - words: how many different words there are at the probed places; seen: share of them that a probe sees in training.
    - erased: before any erasure, after that of the label's directions, and after random ones."""

    labels: list[str] = Field(default_factory=list)
    layers: list[ProbeLayer] = Field(default_factory=list)
    method: str = "linear"
    chance: float = 0.0
    uniform_bits: float = 0.0
    texts: int = 0
    groups: int = 0
    words: int = 0
    seen: float = 0.0
    at: str = "last"
    erased: list[Erased] = Field(default_factory=list)
    erased_layer: int | None = None

    @property
    def best(self) -> ProbeLayer:
        """The layer from which the label reads best."""
        if self.method == "mdl":
            return min(self.layers, key=lambda row: row.bits or 0.0)
        return max(self.layers, key=lambda row: row.accuracy[0] if row.accuracy else 0.0)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        best = self.best
        if best.accuracy is not None:
            return {"probe_accuracy": (best.accuracy, Column(name="probe accuracy", format=".1%"))}
        return {"probe_compression": (best.compression, Column(name="probe compression", format=".2f"))}

    def tables(self) -> list[Table]:
        linear = self.method == "linear"
        if linear:
            columns = [
                Column(name="layer", format="d"),
                Column(name="accuracy", format=".1%", better="higher", help="cross-validated"),
                Column(name="control task", format=".1%", help="each word has a random label"),
                Column(name="selectivity", format="+.1%", better="higher", help="accuracy - control task"),
                Column(name="above chance", format="+.1%", help=f"chance is {self.chance:.1%}"),
            ]
            rows: list = [
                [r.layer, r.accuracy, r.control, r.selectivity, (r.accuracy or (0.0,))[0] - self.chance]
                for r in self.layers
            ]
        else:
            columns = [
                Column(name="layer", format="d"),
                Column(name="code length", unit="bits", format=",.0f", better="lower"),
                Column(name="compression", format=".2f", better="higher", help="bits without a model / bits"),
                Column(name="control task", unit="bits", format=",.0f"),
            ]
            rows = [[r.layer, r.bits, r.compression, r.control_bits] for r in self.layers]
        tables = [Table(title="The probe, layer by layer", columns=columns, rows=rows)]
        if self.erased:
            labelled = any(e.loss is not None for e in self.erased)
            columns = [
                Column(name="taken out"),
                Column(name="directions", format="d"),
                Column(name="new probe here", format=".1%", help=f"chance is {self.chance:.1%}"),
                Column(name="new probe in the last layer", format=".1%"),
                Column(name="output moved", unit="nats", format=".3f", help="KL at the probed place"),
                Column(name="another top prediction", format=".0%"),
            ]
            if labelled:
                columns += [Column(name="loss of the label", unit="nats", format=".3f")]
                columns += [Column(name="label right", format=".1%")]
            rows = [
                [e.what, e.rank, e.accuracy, e.later, e.kl, e.changed, *([e.loss, e.right] if labelled else [])]
                for e in self.erased
            ]
            title = f"Does the model use it? Erased at layer {self.erased_layer}"
            tables.append(Table(title=title, columns=columns, rows=rows))
        return tables

    def figures(self) -> list[Figure]:
        x = [float(row.layer) for row in self.layers]
        if self.method == "mdl":
            series = [
                Series(name="label", x=x, y=[r.bits for r in self.layers]),
                Series(name="control task", x=x, y=[r.control_bits for r in self.layers]),
            ]
            marks = [Mark(value=self.uniform_bits, text="no model")]
            return [
                Figure(
                    title="Bits to send the labels", kind="line", x="layer", y="bits", series=series, format=",.0f",
                    marks=marks, note="Lower: the label is easier to learn from this layer's states.",
                )
            ]  # fmt: skip
        value = [r.accuracy or (0.0, 0.0, 0.0) for r in self.layers]
        series = [
            Series(name="label", x=x, y=[v[0] for v in value], low=[v[1] for v in value], high=[v[2] for v in value]),
            Series(name="control task", x=x, y=[r.control for r in self.layers]),
        ]
        marks = [Mark(value=self.chance, text="chance")]
        return [
            Figure(
                title="Where the label can be read", kind="line", x="layer", y="accuracy", series=series, format=".0%",
                marks=marks, note="A probe that also does the control task well is memorising words.",
            )
        ]  # fmt: skip


@technique(
    "interpretation.probe",
    kind="look",
    family="probing",
    source="Alain & Bengio 2016 (linear probes); control tasks: Hewitt & Liang 2019, section 3; online code: Voita & "
    "Titov 2020, section 2.3.2; causal check: Elazar et al. 2021 (amnesic probing), by LEACE (Belrose et al. 2023)",
    place="fine-tuning · global · probing: classifier-based",
    extra="quality",
    gives="Probe",
    example={
        "texts": [
            LabelledText("The cat sleeps.", "animal"),
            LabelledText("A dog ran home.", "animal"),
            LabelledText("Two birds sang.", "animal"),
            LabelledText("One horse ate.", "animal"),
            LabelledText("The car stops.", "machine"),
            LabelledText("A train left.", "machine"),
            LabelledText("Two drills hum.", "machine"),
            LabelledText("One engine broke.", "machine"),
        ],
        "folds": 4,
        "strength": 0.1,
        "at": "mean",
    },
)
def probe(model: Model, config: ProbeConfig, *, texts: list[LabelledText], seed: int = 0) -> Probe:
    """In which layers a label can be read off the states by a linear probe, and whether the model uses it.

    Logistic regression on standardised states, cross-validated with whole groups. Beside it a control task: every
    word at the probed place has a random label of its own (for `last` and `mean` the text's last word stands for it);
    what a probe gets there it gets by memory, and only accuracy beyond it (selectivity) says something about the
    states. Method `mdl` counts bits instead. Then the causal check: the label's directions are erased from the best
    layer, and a new probe, the model's output and its label are compared with erasing random directions.

    `texts`: labelled texts. A probe shows that a label is there for a linear reader, not that the model reads it.
    Raises `BadInput` for a single label, or fewer than two texts of one."""
    from intarsia.interpretation.probing.probing import look

    return look(model, config, texts, seed)
