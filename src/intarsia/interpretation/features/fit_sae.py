"""`interpretation.fit_sae`: train a small sparse autoencoder on a model's states."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from intarsia.catalog import Config, technique
from intarsia.interpretation.features.sae import SAE
from intarsia.models import Model
from intarsia.report import Column, Figure, Finding, Mark, Series, Table


class FitSAEConfig(Config):
    layer: int | None = Field(
        None, description="the layer whose states are taken apart (-1 is the last); unset: the middle"
    )
    kind: Literal["resid_post", "resid_pre", "attn_out", "mlp_out"] = Field(
        "resid_post", description="which states: the stream after or before the block, what attention or the MLP adds"
    )
    architecture: Literal["topk", "jumprelu", "standard"] = Field(
        "topk",
        description="topk: the k largest features stay; jumprelu: those above a learned threshold, k on average; "
        "standard: ReLU with an L1 penalty",
    )
    expansion: int = Field(8, ge=1, description="features, as a multiple of the width")
    k: int = Field(16, ge=1, description="active features a position (standard: has no say)")
    penalty: float = Field(0.05, ge=0, description="weight of the L1 penalty (standard)")
    steps: int = Field(2000, ge=1, description="updates")
    batch_states: int = Field(512, ge=2, description="states in one update")
    buffer_states: int = Field(65536, ge=2, description="states held and mixed at a time")
    learning_rate: float = Field(1e-3, gt=0, description="of Adam; warmed up, and lowered at the end")
    dead_after: int = Field(200, ge=1, description="updates without firing after which a feature counts as dead")
    revive: float = Field(
        1 / 32, ge=0, description="weight of the auxiliary loss that lets dead features explain the rest"
    )
    max_tokens: int = Field(64, ge=2, description="tokens of a text that are read")
    batch_size: int = Field(16, ge=1, description="texts in one forward pass")
    checkpoint: Path | None = Field(None, description="folder where the state of training is kept, to go on from there")


class FitSAE(Finding):
    """How a fit went.

    - explained: share of the states' variance that is reconstructed, on `test` where given, else on training states.
    - active: features a position; dead: share of features that never fire there.
    - curve: (update, 1 - explained variance of the batch, active features, dead share)."""

    site: str
    architecture: str
    features: int
    explained: float
    active: float
    dead: float
    states: int
    held_out: bool = False
    curve: list[tuple[int, float, float, float]] = Field(default_factory=list)

    def figures(self) -> list[Figure]:
        x = [float(step) for step, *_ in self.curve]
        return [
            Figure(
                title="What is not explained while training", kind="line", x="update", y="share of variance",
                format=".1%",
                series=[Series(name="not explained", x=x, y=[row[1] for row in self.curve]),
                        Series(name="dead features", x=x, y=[row[3] for row in self.curve])],
                marks=[Mark(value=1 - self.explained, text="held out" if self.held_out else "at the end")],
            )
        ]  # fmt: skip

    def tables(self) -> list[Table]:
        columns = [
            Column(name="site"),
            Column(name="architecture"),
            Column(name="features", format="d"),
            Column(name="variance explained", format=".1%", better="higher"),
            Column(name="active a position", format=".1f", better="lower"),
            Column(name="dead", format=".1%", better="lower", help="never fire on these states"),
            Column(name="states", format=",d"),
        ]
        row = [self.site, self.architecture, self.features, self.explained, self.active, self.dead, self.states]
        return [Table(title="The autoencoder", columns=columns, rows=[row])]


@technique(
    "interpretation.fit_sae",
    kind="learn",
    family="mechanistic",
    source="Gao et al. 2024 (TopK, auxiliary loss), sections 2 and A.2; Rajamanoharan et al. 2024 "
    "(JumpReLU), section 3; "
    "Bricken et al. 2023 (ReLU with L1)",
    place="prompting · base model · representation engineering",
    example={
        "train": ["The Eiffel Tower is in Paris.", "Water boils at 100 degrees.", "The Nile flows to the sea."],
        "steps": 40,
        "batch_states": 16,
        "k": 4,
        "expansion": 2,
    },
)
def fit_sae(
    model: Model, config: FitSAEConfig, *, train: list[Any], test: list[Any] | None = None, seed: int = 0
) -> SAE:
    """Train a sparse autoencoder: a model's states as sums of a few out of many learned directions.

    States stream through a buffer that mixes them (no first positions: these are attention sinks), scaled to a mean
    squared norm of the width. Decoder directions have norm 1. Features that have not fired for long get an auxiliary
    loss to explain what the others leave over. With `checkpoint` an interrupted fit goes on where it stopped, and
    ends up with the same weights.

    Returns an `SAE`, saved in SAELens' layout (`--out`); `interpretation.sae_features` shows what it found. A few
    thousand texts make a toy: published SAEs see hundreds of millions of states."""
    from intarsia.interpretation.features.training import fit

    return fit(model, config, train, test, seed)
