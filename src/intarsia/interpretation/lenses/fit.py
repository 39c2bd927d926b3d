"""`interpretation.fit_lens`: affine maps that let the final norm and head read the layers below."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Cell, Column, Figure, Finding, Series, Table

if TYPE_CHECKING:
    from intarsia.interpretation.lenses.maps import LensMaps


class FitLensConfig(Config):
    method: Literal["affine", "tuned", "future"] = Field(
        "affine",
        description="affine: least squares onto the final state; tuned: trained to give the final distribution (KL); "
        "future: least squares onto the final state of a later position",
    )
    max_texts: int = Field(150, ge=2, description="texts read; more are drawn down to this many by the seed")
    max_tokens: int = Field(64, ge=2, description="tokens of a text that are read; the rest is cut off")
    batch_size: int = Field(8, ge=1, description="texts in one forward pass")
    penalty: float = Field(
        0.01, ge=0, description="ridge penalty of the least squares, as a share of the states' mean variance"
    )
    ahead: int = Field(1, ge=1, description="future: how many positions later the final state is taken")
    held_out: float = Field(
        0.1, gt=0, lt=1, description="share of the texts that is not fitted on: the fit is measured on them"
    )
    start: Literal["affine", "identity"] = Field(
        "affine", description="tuned: where the training starts; the paper starts at the identity"
    )
    optimiser: Literal["adam", "sgd"] = Field(
        "adam", description="tuned: Adam on standardised states, or the paper's Nesterov SGD on the states as they are"
    )
    learning_rate: float | None = Field(
        None, gt=0, description="tuned: of the first step, falling to zero; unset: 0.0003 for adam, 0.1 for sgd"
    )
    weight_decay: float = Field(0.001, ge=0, description="tuned: pull of each step back to the start")
    steps: int = Field(200, ge=1, description="tuned: training steps; the texts are read again when they run out")
    positions: int = Field(64, ge=1, description="tuned: positions of a step, drawn from its texts by the seed")
    checkpoint: Path | None = Field(
        None, description="tuned: a folder where the training is kept while it runs, and taken up again after a stop"
    )


class FittedLayer(pydantic.BaseModel):
    """One layer on held-out texts, without a map (the logit lens) and with the fitted one: KL(final || lens) in nats,
    and the share of positions where the lens's top token is the network's own."""

    layer: int
    kl_before: float
    kl: float
    agreement_before: float
    agreement: float


class FitLens(Finding):
    """How well fitted lens maps do on texts they were not fitted on."""

    method: str = "affine"
    ahead: int = 0
    layers: list[FittedLayer] = Field(default_factory=list)
    positions: int = 0
    held_out_positions: int = 0
    losses: list[float] = Field(default_factory=list)

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        return {"fitted_lens_kl": (self.mean_kl, Column(name="fitted lens KL", unit="nats", format=".2f"))}

    @property
    def mean_kl(self) -> float:
        """Held-out KL averaged over the layers."""
        return sum(row.kl for row in self.layers) / len(self.layers)

    def tables(self) -> list[Table]:
        columns = [
            Column(name="layer", format="d"),
            Column(name="KL without a map", unit="nats", format=".2f"),
            Column(name="KL fitted", unit="nats", format=".2f", better="lower"),
            Column(name="agrees without a map", format=".1%"),
            Column(name="agrees fitted", format=".1%", better="higher"),
        ]
        rows: list[list[Any]] = [
            [row.layer, row.kl_before, row.kl, row.agreement_before, row.agreement] for row in self.layers
        ]
        return [Table(title="On texts that were held out", columns=columns, rows=rows)]

    def figures(self) -> list[Figure]:
        x = [float(row.layer) for row in self.layers]
        lines = [
            Series(name="without a map (logit lens)", x=x, y=[row.kl_before for row in self.layers]),
            Series(name=f"fitted ({self.method})", x=x, y=[row.kl for row in self.layers]),
        ]
        far = "How far each layer is from the final prediction"
        figures = [Figure(title=far, kind="line", x="layer", y="KL in nats", series=lines, format=".2f")]
        if self.losses:
            steps = [float(i + 1) for i in range(len(self.losses))]
            curve = [Series(name="training", x=steps, y=list(self.losses))]
            title = "KL while training, mean over layers"
            figures.append(Figure(title=title, kind="line", x="step", y="nats", series=curve, format=".2f"))
        return figures


@technique(
    "interpretation.fit_lens",
    kind="learn",
    family="lenses",
    source="Din et al. 2023 (linear shortcuts), section 3; Belrose et al. 2023 (tuned lens), section 2; "
    "Pal et al. 2023 (future lens), section 3.1",
    gives="LensMaps",
    place="prompting · base model · representation engineering",
    example={
        "train": [
            "The Eiffel Tower is in the city of Paris.",
            "Water boils at one hundred degrees.",
            "She opened the window and looked out.",
            "A good dictionary has many words in it.",
        ],
        "method": "affine",
    },
)
def fit_lens(model: Model, config: FitLensConfig, *, train: list[Any], seed: int = 0) -> LensMaps:
    """Fit affine maps, one a layer, from which the network's own final norm and head can read every layer.

    The states of a layer are not written in the basis that the head reads; a map h A + b fitted on text translates
    them. `affine` solves a centred ridge regression onto the final state before the norm, in float64. `tuned` trains
    the maps on KL(final distribution || lens). `future` leads to the final state `ahead` positions later, so it tells
    what the state holds about tokens further on. The first position of each text is left out: it is an attention sink,
    a hundred times as large as the others. The last layer needs no map, and has none (but for `future`).

    `train`: strings or records with `.text`; wants ten positions for each unit of width. Saved, the result is used by
    `interpretation.lens` and `interpretation.compare_lenses`. Raises `BadInput` for a network without a head over its
    vocabulary, and for too little text."""
    from intarsia.interpretation.lenses.fitting import fit

    return fit(model, config, train, seed)
