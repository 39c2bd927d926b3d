"""`interpretation.cross_model`: one model's states explained by another model."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Block, Cell, Column, Figure, Finding, Series, Table

Interval = tuple[float, float, float]


class CrossModelConfig(Config):
    prompt: str = Field("paper", description="paper, sink, or a target prompt of your own, patched at its last token")
    stride: int = Field(6, ge=1, description="every n-th layer of both models, counted back from the last")
    max_texts: int = Field(200, ge=2, description="texts to fit on; more are drawn down to this many by the seed")
    max_tokens: int = Field(64, ge=2, description="tokens of a text that are read; the rest is cut off")
    positions: int = Field(100, ge=1, description="positions of the test texts that are read")
    penalty: float = Field(0.01, ge=0, description="ridge penalty of the maps, as a share of the states' mean variance")


class CrossModel(Finding):
    """How well the explainer reads the model's states.

    - agreement, surprisal: [layer][explainer's layer]: precision@1 of the model's own next token, and the surprisal of
      what is read under the model's own distribution, nats (of tokens that the model has; None where it has none).
    - own: by layer, the model read by itself with l* = l.
    - chosen: agreement in the pair of layers that is best on the other half of the texts; best: these pairs."""

    model: str = ""
    explainer: str = ""
    prompt: str = ""
    layers: list[int] = Field(default_factory=list)
    target_layers: list[int] = Field(default_factory=list)
    agreement: list[list[float]] = Field(default_factory=list)
    surprisal: list[list[float | None]] = Field(default_factory=list)
    own: list[float] = Field(default_factory=list)
    mean_agreement: Interval | None = None
    chosen: Interval | None = None
    best: list[tuple[int, int]] = Field(default_factory=list)
    fitted_positions: int = 0
    positions: int = 0
    texts: int = 0

    def headline(self) -> dict[str, tuple[Cell | Interval, Column]]:
        return {"cross_model_agreement": (self.chosen, Column(name="read by the other", format=".1%"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="layer", format="d"),
            Column(name="best explainer layer", format="d"),
            Column(name="agrees there", format=".1%", help="of all explainer layers the best on these positions"),
            Column(name="its surprisal", unit="nats", format=".2f"),
            Column(name="read by itself", format=".1%", help="the same prompt in the model itself, l* = l"),
        ]
        rows: list[list[Any]] = []
        for layer, line, bits, own in zip(self.layers, self.agreement, self.surprisal, self.own, strict=True):
            at = max(range(len(line)), key=line.__getitem__)
            rows.append([layer, self.target_layers[at], line[at], bits[at], own])
        return [Table(title=f"{self.model} read by {self.explainer}", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        rows = [f"layer {layer}" for layer in reversed(self.layers)]
        columns = [str(layer) for layer in self.target_layers]
        x = [float(layer) for layer in self.layers]
        best = Series(name="best explainer layer", x=x, y=[max(line) for line in self.agreement])
        return [
            Figure(title="Agreement with the model's own next token", kind="heatmap", x="explainer's layer",
                   y="precision@1", format=".0%", matrix=[list(r) for r in reversed(self.agreement)], row_names=rows,
                   column_names=columns),
            Figure(title="Surprisal of what is read, under the model's own distribution", kind="heatmap",
                   x="explainer's layer", y="nats", format=".1f", matrix=[list(r) for r in reversed(self.surprisal)],
                   row_names=rows, column_names=columns),
            Figure(title="Read by the explainer, and by itself", kind="line", x="layer", y="share of positions",
                   format=".0%", series=[best, Series(name="by itself", x=x, y=list(self.own))]),
        ]  # fmt: skip

    def blocks(self) -> list[Block]:
        return [*self.tables(), *self.figures()]


@technique(
    "interpretation.cross_model",
    kind="look",
    family="patchscopes",
    source="Ghandeharioun et al. 2024 (Patchscopes), sections 4.4 and 5.2",
    place="prompting · base model · natural language",
    example={
        "train": [
            "The Eiffel Tower is in the city of Paris, on the left bank of the river.",
            "Water boils at one hundred degrees, and freezes at zero.",
            "The ancient kingdom of Macedon lay to the north of Greece.",
        ],
        "test": ["The river Thames flows through the city of London.", "Iron melts at high temperatures."],
        "stride": 10,
        "positions": 10,
    },
)
def cross_model(
    model: Model, config: CrossModelConfig, *, explainer: Model, train: list[Any], test: list[Any], seed: int = 0
) -> CrossModel:
    """Cross-model patching: can another model read this one's states, through an affine map fitted on text?

    For pairs of layers a map is fitted on the positions of `train` where both models have read the same characters;
    states of `test` go through it into the explainer behind the identity prompt, and what that says next is compared
    with the model's own next token (precision@1, surprisal), token by token as text. Beside it: the model read by
    itself. The pair of layers that the summary is about was chosen on other texts.

    `train`, `test`: strings or records with `.text`. Raises `BadInput` where the texts have no positions in common."""
    from intarsia.interpretation.patchscopes.cross_run import look

    return look(model, config, explainer, train, test, seed)
