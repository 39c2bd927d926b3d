"""`interpretation.map_states`: affine maps from one model's states to another's, which then can explain it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import pydantic
from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.models import Model
from intarsia.report import Cell, Column, Finding, Table

if TYPE_CHECKING:
    from intarsia.interpretation.patchscopes.mapping import StateMaps


class MapStatesConfig(Config):
    pairs: Literal["same", "all"] = Field(
        "same", description="maps for each layer to the one at its own depth, or for all pairs of layers"
    )
    stride: int = Field(1, ge=1, description="every n-th layer of both models, counted back from the last")
    max_texts: int = Field(300, ge=2, description="texts read; more are drawn down to this many by the seed")
    max_tokens: int = Field(64, ge=2, description="tokens of a text that are read; the rest is cut off")
    penalty: float = Field(0.01, ge=0, description="ridge penalty, as a share of the states' mean variance")
    held_out: float = Field(0.1, gt=0, lt=1, description="share of the texts that only measures the fit")


class MappedPair(pydantic.BaseModel):
    """One map: the share of the target states' variance that it explains on texts it was not fitted on."""

    layer: int
    target_layer: int
    explained: float


class MapStates(Finding):
    """How well fitted maps between two models do. `positions`: states fitted on, and `held_out_positions` measured."""

    pairs: list[MappedPair] = Field(default_factory=list)
    positions: int = 0
    held_out_positions: int = 0

    def headline(self) -> dict[str, tuple[Cell | tuple[float, float, float], Column]]:
        mean = sum(p.explained for p in self.pairs) / max(1, len(self.pairs))
        return {"mapped_variance": (mean, Column(name="variance mapped", format=".1%"))}

    def tables(self) -> list[Table]:
        columns = [
            Column(name="layer", format="d"),
            Column(name="to layer", format="d"),
            Column(name="variance explained", format=".1%", help="of held-out states, all coordinates together"),
        ]
        rows = [[p.layer, p.target_layer, p.explained] for p in self.pairs]
        return [Table(title="Maps between the models", columns=columns, rows=rows)]


@technique(
    "interpretation.map_states",
    kind="learn",
    family="patchscopes",
    source="Ghandeharioun et al. 2024 (Patchscopes), section 5.2; ridge in place of least squares",
    place="fine-tuning · global · mechanistic",
    gives="StateMaps",
    example={
        "texts": [
            "The Eiffel Tower is in the city of Paris, on the left bank of the river.",
            "Water boils at one hundred degrees, and freezes at zero.",
            "The ancient kingdom of Macedon lay to the north of Greece.",
        ],
        "stride": 2,
    },
)
def map_states(
    model: Model, config: MapStatesConfig, *, explainer: Model, texts: list[Any], seed: int = 0
) -> StateMaps:
    """Fit affine maps from this model's states to those of another, which then can explain it.

    Both read the same texts; states are paired where both tokenisations have read the same characters, and the first
    token of a text is left out. Ridge in float64. Saved maps are given to `interpretation.patchscope --mapping`
    together with the same `--explainer`. Wants about ten positions for every coordinate of a state.

    `texts`: strings or records with `.text`. Raises `BadInput` when the texts have too few positions in common."""
    from intarsia.interpretation.patchscopes.cross_run import fit

    return fit(model, config, explainer, texts, seed)
